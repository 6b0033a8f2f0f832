//! What a container's mount namespace gets for a volume.
//!
//! A volume with driver options is not mounted on the host: the options are handed to whoever makes the
//! container's mounts, so no mount can be left behind.

use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{LOCAL, Volume, VolumeError, Volumes};

/// Filesystems of the network, whose `addr` option the kernel wants as an address.
const NETWORK: [&str; 4] = ["nfs", "nfs4", "cifs", "smb3"];

const ADDRESS: &str = "addr=";

/// Where a volume's content is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// A directory of the host, to be bound.
    Directory(PathBuf),
    /// A filesystem, to be mounted inside the container's own mount namespace.
    Mount {
        fstype: String,
        device: String,
        options: Vec<String>,
        /// Who has it, for people: the address, and the name it was found by.
        server: Option<String>,
    },
}

impl Volume {
    /// The server that a filesystem of the network is on, as its options name it.
    pub fn server(&self) -> Option<&str> {
        let fstype = self.options.get("type")?;
        if self.driver != LOCAL || !NETWORK.contains(&fstype.as_str()) {
            return None;
        }
        let words = self.options.get("o")?.split(',');
        words.rev().find_map(|word| word.strip_prefix(ADDRESS))
    }
}

impl Volumes {
    /// What to mount for the volume, and a note that `holder` uses it.
    pub fn mount(&self, name: &str, holder: &str) -> Result<VolumeSource, VolumeError> {
        let volume = self.get(name)?;
        if volume.driver != LOCAL {
            return self.mount_with(&volume, holder).map(VolumeSource::Directory);
        }
        // Resolved outside the lock: a name server may be slow.
        let source = source(&volume)?;
        let mut state = self.lock();
        // Once more: the limits of the filesystem may have been lost, or it may be another one.
        self.bound(&volume)?;
        let holders = state.holders.entry(name.to_owned()).or_default();
        holders.insert(holder.to_owned());
        Ok(source)
    }

    /// Takes all notes of a holder back; not an error when there are none.
    pub fn release(&self, holder: &str) {
        self.let_go_of("a holder's", |mounted| mounted.holder == holder);
        self.lock().holders.retain(|_, holders| {
            holders.remove(holder);
            !holders.is_empty()
        });
    }

    /// Who uses the volume, as far as this process was told.
    pub fn holders(&self, name: &str) -> Vec<String> {
        let state = self.lock();
        let holders = state.holders.get(name);
        holders.map_or_else(Vec::new, |holders| holders.iter().cloned().collect())
    }
}

pub(crate) fn source(volume: &Volume) -> Result<VolumeSource, VolumeError> {
    let (Some(fstype), Some(device)) = (volume.options.get("type"), volume.options.get("device")) else {
        return Ok(VolumeSource::Directory(volume.mountpoint.clone()));
    };
    let mut options: Vec<String> = volume
        .options
        .get("o")
        .map(|options| options.split(',').filter(|option| !option.is_empty()))
        .into_iter()
        .flatten()
        .map(str::to_owned)
        .collect();
    if let Some(version) = default_version(fstype).filter(|_| !options.iter().any(|word| is_version(word))) {
        options.push(version.to_owned());
    }
    let mut server = None;
    if NETWORK.contains(&fstype.as_str()) {
        for option in &mut options {
            if let Some(host) = option.strip_prefix(ADDRESS) {
                let address = resolve(host).map_err(|cause| VolumeError::Unresolved {
                    name: volume.name.clone(),
                    cause,
                })?;
                let shown = match host == address.to_string() {
                    true => host.to_owned(),
                    false => format!("{host} ({address})"),
                };
                server = Some(shown);
                *option = format!("{ADDRESS}{address}");
            }
        }
    }
    Ok(VolumeSource::Mount {
        fstype: fstype.clone(),
        device: device.clone(),
        options,
        server,
    })
}

/// What mount(2) takes where nobody says a version; who configures a mount step by step (fsconfig(2)) has to say one.
fn default_version(fstype: &str) -> Option<&'static str> {
    match fstype {
        "nfs" => Some("vers=3"),
        "nfs4" => Some("vers=4"),
        _ => None,
    }
}

fn is_version(word: &str) -> bool {
    let number = word.strip_prefix('v').unwrap_or_default();
    word.starts_with("vers=")
        || word.starts_with("nfsvers=")
        || number.starts_with(|c: char| c.is_ascii_digit())
}

fn resolve(host: &str) -> io::Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    // The port is only there because the resolver wants one.
    let addresses = (host, 0).to_socket_addrs()?.map(|address| address.ip());
    preferred(addresses).ok_or_else(|| io::Error::other(format!("lookup {host}: no such host")))
}

/// As Docker chooses: a server may have an IPv6 address on which it serves nothing.
fn preferred(addresses: impl Iterator<Item = IpAddr>) -> Option<IpAddr> {
    let addresses: Vec<IpAddr> = addresses.collect();
    let ipv4 = addresses.iter().find(|address| address.is_ipv4());
    ipv4.or(addresses.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn volume(options: &[(&str, &str)]) -> Volume {
        Volume {
            options: options
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            ..Volume::bare("vol", "/v/vol/_data".into(), Timestamp::UNIX_EPOCH)
        }
    }

    #[test]
    fn plain_volumes_are_directories() {
        assert_eq!(
            source(&volume(&[])).unwrap(),
            VolumeSource::Directory("/v/vol/_data".into())
        );
    }

    #[test]
    fn of_a_servers_addresses_the_first_of_ipv4_is_asked() {
        let of = |texts: &[&str]| preferred(texts.iter().map(|text| text.parse().unwrap()));
        let address = |text: &str| text.parse::<IpAddr>().ok();
        assert_eq!(of(&["::1", "127.0.0.1", "192.0.2.1"]), address("127.0.0.1"));
        assert_eq!(of(&["2001:db8::1", "2001:db8::2"]), address("2001:db8::1"));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn options_become_a_mount() {
        let nfs = volume(&[
            ("type", "nfs"),
            ("device", ":/export"),
            ("o", "addr=192.0.2.1,,rw"),
        ]);
        assert_eq!(
            source(&nfs).unwrap(),
            VolumeSource::Mount {
                fstype: "nfs".into(),
                device: ":/export".into(),
                options: vec!["addr=192.0.2.1".into(), "rw".into(), "vers=3".into()],
                server: Some("192.0.2.1".into()),
            }
        );
        assert_eq!(nfs.server(), Some("192.0.2.1"));
        for (fstype, words, version) in [
            ("nfs", "addr=192.0.2.1,nfsvers=4.2", None),
            ("nfs", "vers=3,addr=192.0.2.1", None),
            ("nfs", "addr=192.0.2.1,v4.1", None),
            ("nfs4", "addr=192.0.2.1", Some("vers=4")),
            ("cifs", "addr=192.0.2.1", None),
        ] {
            let made = source(&volume(&[("type", fstype), ("device", ":/x"), ("o", words)]));
            let VolumeSource::Mount { options, .. } = made.unwrap() else {
                panic!("{words}");
            };
            let said = words.split(',').chain(version);
            assert_eq!(options, said.collect::<Vec<_>>(), "{fstype} {words}");
        }
        let named = volume(&[("type", "nfs4"), ("device", ":/x"), ("o", "ro,addr=localhost")]);
        assert!(matches!(
            source(&named).unwrap(),
            VolumeSource::Mount { server: Some(server), .. } if server.starts_with("localhost (")
        ));
        let bind = volume(&[("type", "none"), ("device", "/srv"), ("o", "bind")]);
        assert_eq!(
            source(&bind).unwrap(),
            VolumeSource::Mount {
                fstype: "none".into(),
                device: "/srv".into(),
                options: vec!["bind".into()],
                server: None,
            }
        );
        assert_eq!(bind.server(), None);
    }
}
