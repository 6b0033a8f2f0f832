//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container: files in its directory on the host,
//! bound into it, so that they can be changed while it runs.

use std::fmt::Write as _;
use std::path::Path;

use spec::runtime::Mount;

use super::{Container, Files};
use crate::error::{Error, Result};

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
                        ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// The content of `/etc/hosts`: loopback, what the user added, and the container's own addresses.
pub(super) fn hosts(extra: &[(String, String)], addresses: &[String], names: &[&str]) -> String {
    let mut text = LOOPBACK.to_owned();
    for (name, address) in extra {
        let _ = writeln!(text, "{address}\t{name}");
    }
    let names: Vec<&str> = names.iter().copied().filter(|n| !n.is_empty()).collect();
    for address in addresses.iter().filter(|a| !a.is_empty()) {
        let _ = writeln!(text, "{address}\t{}", names.join(" "));
    }
    text
}

/// Reads `name:address` and `name=address`; `host-gateway` stands for the address given.
pub(super) fn extra_host(text: &str, gateway: &str) -> Result<(String, String)> {
    let invalid = || Error::invalid(format!("bad format for add-host: {text:?}"));
    let split = text
        .find('=')
        .filter(|at| !text[..*at].contains(':'))
        .or_else(|| text.find(':'))
        .ok_or_else(invalid)?;
    let (name, address) = (&text[..split], &text[split + 1..]);
    if name.is_empty() || address.is_empty() {
        return Err(invalid());
    }
    if address == "host-gateway" {
        if gateway.is_empty() {
            return Err(Error::invalid(
                "unable to derive the IP value for host-gateway: the default bridge is off",
            ));
        }
        return Ok((name.to_owned(), gateway.to_owned()));
    }
    let bare = address.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<std::net::IpAddr>()
        .map_err(|_| Error::invalid(format!("invalid IP address in add-host: {address:?}")))?;
    Ok((name.to_owned(), bare.to_owned()))
}

/// Writes the three files and gives their paths.
pub(super) fn write(dir: &Path, hosts: &str, hostname: &str, resolv_conf: &str) -> Result<Files> {
    let put = |name: &str, text: &str| -> Result<String> {
        let path = dir.join(name);
        std::fs::write(&path, text)
            .map_err(|error| Error::internal(format!("cannot write {}: {error}", path.display())))?;
        Ok(path.to_string_lossy().into_owned())
    };
    Ok(Files {
        dir: dir.to_owned(),
        hosts: put("hosts", hosts)?,
        hostname: put("hostname", &format!("{hostname}\n"))?,
        resolv_conf: put("resolv.conf", resolv_conf)?,
        log: String::new(),
    })
}

/// The binds for the three files, without those a mount of the user's covers. With `mapped` they belong to the
/// container's root.
pub(super) fn mounts(container: &Container, files: &Files, mapped: bool) -> Vec<Mount> {
    [
        ("/etc/resolv.conf", &files.resolv_conf),
        ("/etc/hostname", &files.hostname),
        ("/etc/hosts", &files.hosts),
    ]
    .into_iter()
    .filter(|(destination, source)| {
        !source.is_empty() && !container.plan.iter().any(|m| m.destination == *destination)
    })
    .map(|(destination, source)| Mount {
        destination: destination.into(),
        r#type: Some("bind".to_owned()),
        source: Some(source.clone()),
        options: ["rbind", "rprivate"]
            .into_iter()
            .chain(mapped.then_some("idmap"))
            .map(str::to_owned)
            .collect(),
        ..Mount::default()
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_file() {
        let text = hosts(
            &[("x".into(), "192.0.2.1".into())],
            &["172.17.0.2".into()],
            &["h1.example", "h1"],
        );
        assert!(
            text.ends_with("192.0.2.1\tx\n172.17.0.2\th1.example h1\n"),
            "{text}"
        );
    }

    #[test]
    fn extra_hosts() {
        assert_eq!(
            extra_host("a:1.2.3.4", "").unwrap(),
            ("a".into(), "1.2.3.4".into())
        );
        assert_eq!(extra_host("a=::1", "").unwrap(), ("a".into(), "::1".into()));
        assert_eq!(extra_host("a:[::1]", "").unwrap().1, "::1");
        assert_eq!(
            extra_host("a:host-gateway", "172.17.0.1").unwrap().1,
            "172.17.0.1"
        );
        for bad in ["a", "a:", ":1.2.3.4", "a:b"] {
            assert!(extra_host(bad, "").is_err(), "{bad}");
        }
    }
}
