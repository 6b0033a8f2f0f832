//! `net.*` settings of a container's namespace and of its interfaces.

use std::os::fd::BorrowedFd;

use sys::namespace::{Kind, in_namespace};

use crate::error::Error;

pub(crate) const INTERFACE_SYSCTLS: &str = "com.docker.network.endpoint.sysctls";

/// `net.ipv4.conf.IFNAME.forwarding=1,…` with the name filled in.
pub(crate) fn interface_sysctls(text: &str, interface: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong =
        |entry: &str| Error::Invalid(format!("invalid value {entry:?} for option {INTERFACE_SYSCTLS}"));
    text.split(',')
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            let (key, value) = entry.split_once('=').ok_or_else(|| wrong(entry))?;
            let parts: Vec<&str> = key.split('.').collect();
            match parts.as_slice() {
                [
                    "net",
                    family @ ("ipv4" | "ipv6" | "mpls"),
                    kind @ ("conf" | "neigh"),
                    "IFNAME",
                    name,
                ] => Ok((
                    format!("net.{family}.{kind}.{interface}.{name}"),
                    value.to_owned(),
                )),
                _ => Err(wrong(entry)),
            }
        })
        .collect()
}

/// Sets `net.*` settings in a namespace. Each name is checked to be one and to stay below /proc/sys/net.
pub(crate) fn set_sysctls(namespace: BorrowedFd<'_>, sysctls: Vec<(String, String)>) -> Result<(), Error> {
    let mut files = Vec::new();
    for (key, value) in sysctls {
        let plain = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        if !key.starts_with("net.") || !key.split('.').all(plain) {
            return Err(Error::Invalid(format!(
                "sysctl '{key}' is not a setting of a network namespace"
            )));
        }
        files.push((format!("/proc/sys/{}", key.replace('.', "/")), value));
    }
    let write = move || {
        for (path, value) in files {
            std::fs::write(&path, &value).map_err(Error::io(format!("set {path} to {value:?}")))?;
        }
        Ok(())
    };
    in_namespace(namespace, Kind::Network, write)
        .map_err(Error::io("enter the container's network namespace"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_settings_are_checked() {
        let set = interface_sysctls(
            "net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=2",
            "eth1",
        )
        .unwrap();
        assert_eq!(
            set[0],
            ("net.ipv4.conf.eth1.log_martians".to_owned(), "1".to_owned())
        );
        assert_eq!(set.len(), 2);
        for wrong in [
            "kernel.x=1",
            "net.ipv4.conf.eth0.x=1",
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.IFNAME.x",
        ] {
            assert!(interface_sysctls(wrong, "eth0").is_err(), "{wrong}");
        }
    }
}
