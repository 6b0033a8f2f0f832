//! The drivers `macvlan` and `ipvlan`: a container's interface is a link on a link of the host, so the container is on
//! the parent's own network, with an address of that network and no translation. Nothing of it stands on the host; the
//! host itself cannot reach the container over the parent (the kernel does not turn such packets around).
//!
//! Options as in Docker: `parent` (`eth0`, or `eth0.10` for VLAN 10 of it, which is made where it is not there),
//! `macvlan_mode` (`bridge`, `vepa`, `passthru`, `private`), `ipvlan_mode` (`l2`, `l3`, `l3s`), `ipvlan_flag` (`bridge`,
//! `private`, `vepa`). Kernel: linux/if_link.h.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use sys::netlink::{Failure, Socket};

use crate::address::Mac;
use crate::error::Error;
use crate::link::{self, Child};
use crate::settings::{MTU, is_interface_name};

const PARENT: &str = "parent";
const MACVLAN_MODE: &str = "macvlan_mode";
const IPVLAN_MODE: &str = "ipvlan_mode";
const IPVLAN_FLAG: &str = "ipvlan_flag";

/// Such a network's working state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Direct {
    pub(crate) parent: String,
    pub(crate) kind: Kind,
    /// The container's largest packet; the parent's where nothing is said.
    pub(crate) mtu: Option<u32>,
    /// The parent was made for this network.
    made_parent: bool,
}

/// How links on a parent treat one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The kernel's number of the mode.
    Macvlan(u32),
    /// Mode and flags.
    Ipvlan(u16, u16),
}

impl Kind {
    /// Layer 3 modes know no neighbours: the way out is the link itself.
    pub(crate) fn routes_without_gateway(self) -> bool {
        matches!(self, Kind::Ipvlan(mode, _) if mode != 0)
    }

    /// All links of one parent have its hardware address.
    pub(crate) fn has_own_mac(self) -> bool {
        matches!(self, Kind::Macvlan(_))
    }
}

impl Direct {
    pub(crate) fn parse(driver: &str, options: &BTreeMap<String, String>) -> Result<Direct, Error> {
        let choose = |key: &str, choices: &[(&str, u32)]| {
            let text = options.get(key).map(String::as_str).unwrap_or_default();
            match (text, choices.iter().find(|(name, _)| *name == text)) {
                ("", _) => Ok(choices.first().map_or(0, |(_, number)| *number)),
                (_, Some((_, number))) => Ok(*number),
                (other, None) => {
                    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
                    Err(Error::Invalid(format!(
                        "invalid value {other:?} for option {key}: it is one of {}",
                        names.join(", ")
                    )))
                }
            }
        };
        let kind = if driver == "macvlan" {
            Kind::Macvlan(choose(
                MACVLAN_MODE,
                &[("bridge", 4), ("private", 1), ("vepa", 2), ("passthru", 8)],
            )?)
        } else {
            let mode = choose(IPVLAN_MODE, &[("l2", 0), ("l3", 1), ("l3s", 2)])?;
            let flag = choose(IPVLAN_FLAG, &[("bridge", 0), ("private", 1), ("vepa", 2)])?;
            Kind::Ipvlan(mode as u16, flag as u16)
        };
        let parent = match options.get(PARENT).map(String::as_str) {
            Some(name) if is_interface_name(name) && name != "lo" => name.to_owned(),
            Some(name) if !name.is_empty() => {
                return Err(Error::Invalid(format!(
                    "invalid value {name:?} for option {PARENT}: it is no link's name"
                )));
            }
            _ => {
                return Err(Error::Invalid(format!(
                    "a {driver} network needs the link of the host it lies on: -o {PARENT}=eth0"
                )));
            }
        };
        let mtu = match options.get(MTU).filter(|text| !text.is_empty()) {
            None => None,
            Some(text) => Some(
                text.parse()
                    .ok()
                    .filter(|mtu| (68..=65535).contains(mtu))
                    .ok_or_else(|| Error::Invalid(format!("invalid value {text:?} for option {MTU}")))?,
            ),
        };
        Ok(Direct {
            parent,
            kind,
            mtu,
            made_parent: false,
        })
    }

    /// `eth0` and 10 of `eth0.10`.
    fn vlan(&self) -> Option<(&str, u16)> {
        let (link, number) = self.parent.rsplit_once('.')?;
        let number = number.parse().ok().filter(|n| (1..=4094).contains(n))?;
        Some((link, number))
    }

    /// Finds the parent, or makes it where it is a VLAN of a link that is there.
    pub(crate) fn bring_up(&mut self, route: &mut Socket, alias: &str) -> Result<(), Error> {
        let look = |route: &mut Socket, name: &str| {
            link::find(route, name).map_err(Error::kernel(format!("look for the link {name}")))
        };
        if let Some(found) = look(route, &self.parent)? {
            self.made_parent = found.alias.as_deref() == Some(alias);
            return Ok(());
        }
        let missing = |name: &str| Error::Invalid(format!("the host has no link called {name}"));
        let Some((below, number)) = self.vlan() else {
            return Err(missing(&self.parent));
        };
        let below = look(route, below)?.ok_or_else(|| missing(below))?;
        link::create_vlan(route, &self.parent, alias, below.index, number).map_err(Error::kernel(
            format!("make the link {} for VLAN {number}", self.parent),
        ))?;
        self.made_parent = true;
        Ok(())
    }

    /// The parent where it is ours.
    pub(crate) fn own_link(&self) -> Option<String> {
        self.made_parent.then(|| self.parent.clone())
    }

    /// Makes a container's link and gives its index inside. `inside` is a socket of the container's namespace.
    pub(crate) fn link_into(
        &self,
        route: &mut Socket,
        inside: &mut Socket,
        namespace: BorrowedFd<'_>,
        name: &str,
        mac: Mac,
    ) -> Result<u32, Error> {
        let action = || format!("make the link {name} on {}", self.parent);
        let parent = link::find(route, &self.parent)
            .map_err(Error::kernel(action()))?
            .ok_or_else(|| Error::Invalid(format!("the host has no link called {} any more", self.parent)))?;
        let child = Child {
            name,
            parent: parent.index,
            kind: self.kind,
            namespace,
            mac: self.kind.has_own_mac().then_some(mac),
        };
        link::create_child(route, &child).map_err(|failure: Failure| match failure.errno {
            Errno::OPNOTSUPP => Error::Invalid(format!(
                "the host's kernel has no {} links",
                if self.kind.has_own_mac() {
                    "macvlan"
                } else {
                    "ipvlan"
                }
            )),
            Errno::BUSY => Error::Invalid(format!(
                "the link {} is in use by another kind of network, or as the port of a bridge",
                self.parent
            )),
            _ => Error::kernel(action())(failure),
        })?;
        let found = link::find(inside, name).map_err(Error::kernel(action()))?;
        found
            .map(|link| link.index)
            .ok_or_else(|| Error::kernel(action())(Errno::NODEV.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(driver: &str, pairs: &[(&str, &str)]) -> Result<Direct, Error> {
        let options = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Direct::parse(driver, &options.collect())
    }

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        assert_eq!(
            parse("macvlan", &[("parent", "eth0")]).unwrap().kind,
            Kind::Macvlan(4)
        );
        let l3 = parse("ipvlan", &[("parent", "eth0"), ("ipvlan_mode", "l3")]).unwrap();
        assert!(l3.kind.routes_without_gateway() && !l3.kind.has_own_mac());
        let vlan = parse("macvlan", &[("parent", "eth0.10")]).unwrap();
        assert_eq!(vlan.vlan(), Some(("eth0", 10)));
        for (driver, pairs, word) in [
            ("macvlan", &[][..], "parent=eth0"),
            ("macvlan", &[("parent", "../x")], "../x"),
            ("macvlan", &[("parent", "eth0"), ("macvlan_mode", "l2")], "vepa"),
            (
                "ipvlan",
                &[("parent", "eth0"), ("ipvlan_flag", "x")],
                "ipvlan_flag",
            ),
            ("ipvlan", &[("parent", "eth0"), (MTU, "1")], "\"1\""),
        ] {
            let refused = parse(driver, pairs).unwrap_err().to_string();
            assert!(refused.contains(word), "{refused}");
        }
    }
}
