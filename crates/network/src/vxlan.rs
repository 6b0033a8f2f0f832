//! The tunnel of an `overlay` network: a VXLAN link as a port of the network's bridge, which sends what the bridge floods
//! to every peer and learns which peer a container is behind.
//!
//! There is no cluster store: each host is told its peers, and hands out a part of the subnet of its own (`--ip-range`,
//! and a `--gateway` of its own). Options: `peers` (addresses, comma-separated) or `peers-file` (one a line, `#` for
//! comments; read again by `network reload`), `vni` (1 to 16777215, 4096 by default), `port` (4789 by default).
//!
//! The tunnel is not encrypted and believes whoever reaches the port: it is for networks that are trusted, or tunnels
//! that are encrypted themselves. Sources: RFC 7348, linux/if_link.h.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use rustix::io::Errno;
use sys::netlink::Socket;

use crate::error::Error;
use crate::link;

const PEERS: &str = "peers";
const PEERS_FILE: &str = "peers-file";
const VNI: &str = "vni";
const PORT: &str = "port";
/// A file of peers is small; a larger one is not read to the end.
const LONGEST_FILE: u64 = 1 << 20;

/// How a network reaches its other hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Vxlan {
    vni: u32,
    port: u16,
    peers: Vec<IpAddr>,
    peers_file: Option<PathBuf>,
    /// Peers are reached over IPv6; a tunnel has one family.
    ipv6: bool,
}

impl Vxlan {
    /// What the tunnel's headers take from each packet: Ethernet, VXLAN, UDP, and IPv4 or IPv6.
    pub(crate) fn overhead(&self) -> u32 {
        if self.over_ipv6() { 70 } else { 50 }
    }

    fn over_ipv6(&self) -> bool {
        self.ipv6
    }

    pub(crate) fn parse(options: &BTreeMap<String, String>) -> Result<Vxlan, Error> {
        let text = |key: &str| {
            options
                .get(key)
                .map(String::as_str)
                .filter(|text| !text.is_empty())
        };
        let number = |key: &str, default: u32, most: u32| match text(key) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|n| (1..=most).contains(n))
                .ok_or_else(|| {
                    Error::Invalid(format!(
                        "invalid value {text:?} for option {key}: it is a number from 1 to {most}"
                    ))
                }),
        };
        let peers_file = text(PEERS_FILE).map(PathBuf::from);
        if let Some(path) = peers_file.as_ref().filter(|path| !path.is_absolute()) {
            return Err(Error::Invalid(format!(
                "invalid value {path:?} for option {PEERS_FILE}: it is an absolute path"
            )));
        }
        let peers = parse_peers(text(PEERS).unwrap_or_default().split(','), PEERS)?;
        if peers.is_empty() && peers_file.is_none() {
            return Err(Error::Invalid(format!(
                "an overlay network needs the addresses of its other hosts: -o {PEERS}=192.0.2.2,192.0.2.3 or -o {PEERS_FILE}=/etc/…"
            )));
        }
        let mut vxlan = Vxlan {
            vni: number(VNI, 4096, (1 << 24) - 1)?,
            port: number(PORT, 4789, 65535)? as u16,
            peers,
            peers_file,
            ipv6: false,
        };
        one_family(&vxlan.peers)?;
        // A file that cannot be read is told when the tunnel is made; a daemon that starts does not fail over it.
        let peers = vxlan.all_peers().unwrap_or_else(|_| vxlan.peers.clone());
        vxlan.ipv6 = peers.first().is_some_and(IpAddr::is_ipv6);
        Ok(vxlan)
    }

    /// The link's name follows from the bridge's, which is unique on the host.
    pub(crate) fn link_name(bridge: &str) -> String {
        let name: String = format!("vx-{}", bridge.strip_prefix("br-").unwrap_or(bridge));
        name.chars().take(15).collect()
    }

    /// The peers that are named, and those that the file names now.
    fn all_peers(&self) -> Result<Vec<IpAddr>, Error> {
        let mut peers = self.peers.clone();
        if let Some(path) = &self.peers_file {
            use std::io::Read as _;
            let shown = path.display().to_string();
            let mut text = String::new();
            std::fs::File::open(path)
                .and_then(|file| file.take(LONGEST_FILE).read_to_string(&mut text))
                .map_err(Error::io(format!(
                    "read the peers of an overlay network from {shown}"
                )))?;
            let lines = text
                .lines()
                .map(|line| line.split('#').next().unwrap_or_default());
            peers.extend(parse_peers(lines, &shown)?);
        }
        peers.sort_unstable();
        peers.dedup();
        one_family(&peers)?;
        Ok(peers)
    }

    /// Makes the tunnel where it is not there, and leads it to the peers of this moment.
    pub(crate) fn bring_up(
        &self,
        route: &mut Socket,
        alias: &str,
        bridge: &str,
        bridge_index: u32,
        mtu: u32,
    ) -> Result<(), Error> {
        let name = Vxlan::link_name(bridge);
        let peers = self.all_peers()?;
        let action = format!("make the tunnel {name} of {bridge}");
        let found = link::find(route, &name).map_err(Error::kernel(action.clone()))?;
        let index = match found {
            Some(link) if link.alias.as_deref() == Some(alias) => link.index,
            Some(_) => return Err(Error::kernel(action)(Errno::EXIST.into())),
            None => {
                let tunnel = link::Tunnel {
                    name: &name,
                    alias,
                    vni: self.vni,
                    port: self.port,
                    bridge: bridge_index,
                    mtu,
                    over_ipv6: self.over_ipv6(),
                };
                link::create_tunnel(route, &tunnel).map_err(|failure| match failure.errno {
                    Errno::EXIST => Error::Invalid(format!(
                        "another tunnel of this host has VNI {} at port {}: choose another with -o {VNI}=",
                        self.vni, self.port
                    )),
                    _ => Error::kernel(action.clone())(failure),
                })?
            }
        };
        link::set_peers(route, index, &peers).map_err(Error::kernel(action))
    }
}

fn one_family(peers: &[IpAddr]) -> Result<(), Error> {
    if peers.iter().any(IpAddr::is_ipv4) && peers.iter().any(IpAddr::is_ipv6) {
        return Err(Error::Invalid(
            "the peers of an overlay network are reached over IPv4 or over IPv6, not over both".to_owned(),
        ));
    }
    Ok(())
}

fn parse_peers<'a>(words: impl Iterator<Item = &'a str>, place: &str) -> Result<Vec<IpAddr>, Error> {
    words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let address: Option<IpAddr> = word.parse().ok();
            address
                .filter(|a| !a.is_unspecified() && !a.is_multicast())
                .ok_or_else(|| {
                    Error::Invalid(format!(
                        "invalid peer {word:?} in {place}: it is no address of a host"
                    ))
                })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Vxlan, Error> {
        let options = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Vxlan::parse(&options.collect())
    }

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let tunnel = parse(&[("peers", "192.0.2.2, 192.0.2.3")]).unwrap();
        assert_eq!((tunnel.peers.len(), tunnel.vni, tunnel.port), (2, 4096, 4789));
        let six = parse(&[("peers", "2001:db8::2")]).unwrap();
        assert_eq!((tunnel.overhead(), six.overhead()), (50, 70));
        assert_eq!(Vxlan::link_name("br-0123456789ab"), "vx-0123456789ab");
        for (pairs, word) in [
            (&[][..], "peers="),
            (&[("peers", "host.example")], "host.example"),
            (&[("peers", "0.0.0.0")], "0.0.0.0"),
            (&[("peers", "192.0.2.2,2001:db8::2")], "not over both"),
            (&[("peers", "192.0.2.2"), ("vni", "16777216")], "16777215"),
            (&[("peers", "192.0.2.2"), ("port", "0")], "port"),
            (&[("peers-file", "peers")], "absolute"),
        ] {
            let refused = parse(pairs).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
