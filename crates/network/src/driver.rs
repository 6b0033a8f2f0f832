//! What makes a network of a driver. A closed set: each driver says what it needs on the host, what a container's link
//! into it is, and which ways it opens; everything else (addresses, names, records, joining and leaving) is the same for
//! all and knows no driver.
//!
//! | driver | on the host | a container's link | ports | options |
//! |---|---|---|---|---|
//! | `bridge` | a bridge | a veth pair, one end a port of the bridge | yes | `settings` |
//! | `overlay` | a bridge with a VXLAN tunnel to each peer as a port | the same | yes | `vxlan` besides |
//! | `macvlan`, `ipvlan` | nothing, or the VLAN link that is its parent | a link on the parent, inside from its birth | no: the container is on the parent's own network | `direct` |
//! | `host`, `null` | nothing | none | no | none |

use std::collections::BTreeMap;

use spec::Id;
use sys::netlink::Socket;

use crate::address::{Mac, Prefix};
use crate::direct::Direct;
use crate::error::Error;
use crate::host;
use crate::link;
use crate::model::Network;
use crate::settings::Settings;
use crate::vxlan::Vxlan;

/// The drivers a client can ask for.
pub(crate) const OFFERED: [&str; 4] = ["bridge", "macvlan", "ipvlan", "overlay"];

#[derive(Debug, Clone)]
pub(crate) enum Driver {
    Bridge(Bridge),
    Direct(Direct),
    Host,
    None,
}

/// A bridge network's working state.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    pub(crate) settings: Settings,
    /// The bridge's interface index; none until it was made.
    pub(crate) index: Option<u32>,
    /// The tunnel to other hosts, where the network spans several.
    pub(crate) vxlan: Option<Vxlan>,
}

impl Driver {
    /// The driver of a recorded network, with its options read.
    pub(crate) fn of(network: &Network) -> Result<Driver, Error> {
        Driver::parse(&network.driver, &network.id, &network.options)
    }

    pub(crate) fn parse(name: &str, id: &Id, options: &BTreeMap<String, String>) -> Result<Driver, Error> {
        let bridge = |vxlan: Option<Vxlan>| -> Result<Driver, Error> {
            let mut settings = Settings::parse(options, &format!("br-{}", id.short()))?;
            if let Some(vxlan) = vxlan
                .as_ref()
                .filter(|_| !options.contains_key(crate::settings::MTU))
            {
                settings.mtu -= vxlan.overhead();
            }
            Ok(Driver::Bridge(Bridge {
                settings,
                index: None,
                vxlan,
            }))
        };
        match name {
            "host" => Ok(Driver::Host),
            "null" => Ok(Driver::None),
            "macvlan" | "ipvlan" => Ok(Driver::Direct(Direct::parse(name, options)?)),
            "overlay" => bridge(Some(Vxlan::parse(options)?)),
            _ => bridge(None),
        }
    }

    /// Makes or takes over what the network has on the host. `addresses` are its gateways.
    pub(crate) fn bring_up(
        &mut self,
        route: &mut Socket,
        tag: &str,
        network: &Network,
        addresses: &[Prefix],
    ) -> Result<(), Error> {
        let alias = format!("{tag}:network:{}", network.id);
        match self {
            Driver::Bridge(bridge) => bridge.bring_up(route, &alias, network, addresses),
            Driver::Direct(direct) => direct.bring_up(route, &alias),
            Driver::Host | Driver::None => Ok(()),
        }
    }

    /// The links that the network has on the host.
    pub(crate) fn links(&self) -> Vec<String> {
        match self {
            Driver::Bridge(bridge) => {
                let tunnel = bridge
                    .vxlan
                    .as_ref()
                    .map(|_| Vxlan::link_name(&bridge.settings.bridge));
                [Some(bridge.settings.bridge.clone()), tunnel]
                    .into_iter()
                    .flatten()
                    .collect()
            }
            Driver::Direct(direct) => direct.own_link().into_iter().collect(),
            Driver::Host | Driver::None => Vec::new(),
        }
    }

    /// What interfaces inside are called, before their number.
    pub(crate) fn interface_prefix(&self) -> &str {
        match self {
            Driver::Bridge(bridge) => &bridge.settings.interface_prefix,
            Driver::Direct(_) | Driver::Host | Driver::None => "eth",
        }
    }
}

impl Bridge {
    fn bring_up(
        &mut self,
        route: &mut Socket,
        alias: &str,
        network: &Network,
        addresses: &[Prefix],
    ) -> Result<(), Error> {
        let wanted = link::Bridge {
            name: &self.settings.bridge,
            alias,
            mac: Mac::of_network(&network.id),
            mtu: self.settings.mtu,
            addresses,
        };
        let action = format!("make the bridge {} of network {}", wanted.name, network.name);
        if network.enable_ipv6 {
            host::enable_forwarding_ipv6();
        }
        let index = link::ensure_bridge(route, &wanted).map_err(Error::kernel(action.clone()))?;
        // Before the addresses: an IPv6 one is refused while the interface has IPv6 turned off.
        host::prepare_bridge(wanted.name, network.enable_ipv6, !network.internal);
        link::start_bridge(route, index, &wanted).map_err(Error::kernel(action))?;
        self.index = Some(index);
        if let Some(vxlan) = &self.vxlan {
            vxlan.bring_up(route, alias, &self.settings.bridge, index, self.settings.mtu)?;
        }
        Ok(())
    }
}
