//! Choosing what a container gets in a network: interface name, addresses, hardware address, names. Nothing is recorded
//! or made here; what fails gives back what it took.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use spec::Id;

use crate::address::Mac;
use crate::driver::Driver;
use crate::error::Error;
use crate::model::{Endpoint, EndpointRequest};
use crate::names;
use crate::records::{Attached, SandboxRecord};
use crate::settings::is_interface_name;
use crate::state::State;

const INTERFACE_NAME: &str = "com.docker.network.endpoint.ifname";

impl State {
    /// Takes an endpoint's addresses and describes it. `sandbox` holds those taken before.
    pub(crate) fn reserve_endpoint(
        &mut self,
        container: &Id,
        sandbox: &SandboxRecord,
        wanted: &EndpointRequest,
        host_link: String,
    ) -> Result<Attached, Error> {
        let network_id = self.find(&wanted.network)?.network.id.clone();
        let missing = || Error::NotFound(wanted.network.clone());
        let found = self.networks.get_mut(&network_id).ok_or_else(missing)?;
        let (name, internal, has_names) = (
            found.network.name.clone(),
            found.network.internal,
            found.has_names(),
        );
        if sandbox
            .endpoints
            .iter()
            .any(|a| a.endpoint.network_id == network_id)
        {
            return Err(Error::AlreadyAttached {
                container: sandbox.name.clone(),
                network: name,
            });
        }
        if matches!(found.driver, Driver::Host | Driver::None) {
            let text =
                "cannot connect container to host network - container must be created in host network mode";
            return Err(Error::Invalid(text.to_owned()));
        }
        if found.is_default() && (wanted.ipv4.is_some() || wanted.ipv6.is_some()) {
            let text = "invalid config for network bridge: invalid endpoint settings:\n\
                        user specified IP address is supported on user defined networks only";
            return Err(Error::Invalid(text.to_owned()));
        }
        let interface = match wanted.driver_opts.get(INTERFACE_NAME) {
            Some(name) if is_interface_name(name) && name != "lo" => name.clone(),
            Some(name) => {
                return Err(Error::Invalid(format!(
                    "invalid value {name:?} for option {INTERFACE_NAME}"
                )));
            }
            None => free_interface_name(found.driver.interface_prefix(), sandbox),
        };
        if sandbox
            .endpoints
            .iter()
            .any(|a| a.endpoint.interface == interface)
        {
            return Err(Error::Invalid(format!(
                "interface name {interface} is used by another network of the container"
            )));
        }
        let (mut v4, mut v6): (Option<(Ipv4Addr, u8)>, Option<(Ipv6Addr, u8)>) = (None, None);
        let (mut gateway, mut ipv6_gateway) = (None, None);
        let mut taken: Vec<IpAddr> = Vec::new();
        let fixed = [wanted.ipv4.map(IpAddr::from), wanted.ipv6.map(IpAddr::from)];
        let chosen = (|| {
            for ipv4 in [true, false] {
                let subnets = || {
                    found
                        .subnets
                        .iter()
                        .enumerate()
                        .filter(|(_, s)| s.prefix.is_ipv4() == ipv4)
                };
                let wanted_address = fixed.iter().flatten().find(|a| a.is_ipv4() == ipv4).copied();
                if subnets().next().is_none() {
                    if let Some(address) = wanted_address {
                        let text = format!(
                            "invalid endpoint settings: no subnet of network {name} can hold {address}"
                        );
                        return Err(Error::Invalid(text));
                    }
                    continue;
                }
                let places: Vec<usize> = match wanted_address {
                    Some(address) => subnets()
                        .filter(|(_, s)| s.prefix.contains(address))
                        .map(|(at, _)| at)
                        .collect(),
                    None => subnets().map(|(at, _)| at).collect(),
                };
                let mut got = None;
                for place in &places {
                    let Some(subnet) = found.subnets.get_mut(*place) else {
                        continue;
                    };
                    let address = match wanted_address {
                        Some(address) => subnet.take_fixed(address).map(|()| Some(address))?,
                        None => subnet.take(),
                    };
                    if let Some(address) = address {
                        taken.push(address);
                        got = Some((address, subnet.prefix.length(), subnet.gateway));
                        break;
                    }
                }
                match (got, wanted_address) {
                    (Some((IpAddr::V4(address), length, way)), _) => {
                        v4 = Some((address, length));
                        gateway = way.and_then(|g| match g {
                            IpAddr::V4(g) => Some(g),
                            IpAddr::V6(_) => None,
                        });
                    }
                    (Some((IpAddr::V6(address), length, way)), _) => {
                        v6 = Some((address, length));
                        ipv6_gateway = way.and_then(|g| match g {
                            IpAddr::V6(g) => Some(g),
                            IpAddr::V4(_) => None,
                        });
                    }
                    (None, Some(address)) => {
                        return Err(Error::Invalid(format!(
                            "invalid config for network {name}: invalid endpoint settings:\n\
                             no configured subnet contains IP address {address}"
                        )));
                    }
                    (None, None) => {
                        return Err(Error::AddressesExhausted {
                            name: name.clone(),
                            id: network_id.to_string(),
                        });
                    }
                }
            }
            Ok(())
        })();
        if let Err(error) = chosen {
            for address in taken {
                found
                    .subnets
                    .iter_mut()
                    .filter(|s| s.prefix.contains(address))
                    .for_each(|s| s.free(address));
            }
            return Err(error);
        }
        let any = v4
            .map(|(a, _)| IpAddr::from(a))
            .or(v6.map(|(a, _)| IpAddr::from(a)));
        let mac = wanted.mac.or(any.map(Mac::of)).unwrap_or_else(Mac::random);
        let dns_names = match has_names {
            true => names::of_endpoint(container, &sandbox.name, &wanted.aliases, &sandbox.hostname),
            false => Vec::new(),
        };
        let endpoint = Endpoint {
            network_name: name,
            network_id,
            endpoint_id: Id::random(),
            interface,
            mac,
            ipv4: v4.map(|(a, _)| a),
            ipv4_prefix: v4.map_or(0, |(_, l)| l),
            gateway: gateway.filter(|_| !internal),
            ipv6: v6.map(|(a, _)| a),
            ipv6_prefix: v6.map_or(0, |(_, l)| l),
            ipv6_gateway: ipv6_gateway.filter(|_| !internal),
            aliases: wanted.aliases.clone(),
            dns_names,
            gw_priority: wanted.gw_priority,
        };
        Ok(Attached {
            endpoint,
            host_link,
            links: wanted.links.clone(),
        })
    }
}

/// The first of `eth0`, `eth1`, … that no other endpoint has.
fn free_interface_name(prefix: &str, sandbox: &SandboxRecord) -> String {
    let taken: BTreeSet<&str> = sandbox
        .endpoints
        .iter()
        .map(|a| a.endpoint.interface.as_str())
        .collect();
    (0..)
        .map(|n| format!("{prefix}{n}"))
        .find(|name| !taken.contains(name.as_str()))
        .unwrap_or_else(|| prefix.to_owned())
}
