//! Ports as the API writes them (`80/tcp`, host port ranges) turned into requests to the network.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use api_types::port_reach::PortReach;
use api_types::{List, PortBinding, PortMap, Protocol};
use network::{Explained, PortChoice, PortRequest, Proto, PublishedPort};

use super::Container;
use crate::error::{Error, Result};

/// Reads `80`, `80/tcp`, `53/udp`.
pub(super) fn parse(text: &str) -> Result<(u16, Proto)> {
    let (number, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let proto = match proto.to_ascii_lowercase().as_str() {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        _ => {
            return Err(Error::invalid(format!(
                "invalid port {text:?}: the protocol is tcp, udp or sctp"
            )));
        }
    };
    let number = number.parse::<u16>().ok().filter(|n| *n > 0).ok_or_else(|| {
        Error::invalid(format!(
            "invalid port {text:?}: expected a number from 1 to 65535"
        ))
    })?;
    Ok((number, proto))
}

/// How a port is spelled: `80/tcp`.
fn key(port: u16, proto: Proto) -> String {
    format!("{port}/{}", protocol(proto).as_str())
}

fn protocol(proto: Proto) -> Protocol {
    match proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        Proto::Sctp => Protocol::Sctp,
    }
}

fn proto(protocol: Protocol) -> Proto {
    match protocol {
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
        Protocol::Sctp => Proto::Sctp,
    }
}

/// Every port the container wants published.
pub(super) fn requests(container: &Container) -> Result<Vec<PortRequest>> {
    let mut requests = bound(&container.host_config.port_bindings)?;
    if container.host_config.publish_all_ports {
        let bound: HashSet<(u16, Proto)> = requests.iter().map(|r| (r.container_port, r.proto)).collect();
        for port in container.config.exposed_ports.names() {
            let (container_port, proto) = parse(&port)?;
            if !bound.contains(&(container_port, proto)) {
                requests.push(PortRequest {
                    container_port,
                    proto,
                    host_ip: None,
                    host_port: PortChoice::Any,
                });
            }
        }
    }
    Ok(requests)
}

/// What a map of bindings asks for, in the order of its runs' names.
pub(super) fn bound(bindings: &PortMap) -> Result<Vec<PortRequest>> {
    let mut runs: Vec<(String, u16, u16, Proto, &List<PortBinding>)> = Vec::new();
    for (protocol, first, run) in bindings.runs() {
        let proto = proto(protocol);
        runs.push((key(first, proto), first, run.count, proto, &run.value));
    }
    for (name, bindings) in bindings.others() {
        let (port, proto) = parse(name)?;
        runs.push((name.clone(), port, 1, proto, bindings));
    }
    runs.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    let mut requests = Vec::with_capacity(bindings.len());
    for (_, first, count, proto, bindings) in runs {
        let read = |binding: &PortBinding| {
            let choice = host_port(&binding.host_port)?;
            Ok((host_ip(binding)?, choice, binding.number().is_some()))
        };
        let read = bindings.iter().map(read).collect::<Result<Vec<_>>>()?;
        for n in 0..count {
            requests.extend(read.iter().map(|(host_ip, choice, moves)| PortRequest {
                container_port: first.saturating_add(n),
                proto,
                host_ip: *host_ip,
                host_port: match choice {
                    PortChoice::Fixed(first) if *moves => PortChoice::Fixed(first.saturating_add(n)),
                    choice => *choice,
                },
            }));
        }
    }
    Ok(requests)
}

/// Adds bindings to those that are there.
pub(super) fn bind(bindings: &mut PortMap, add: &PortMap) {
    for (protocol, first, run) in add.runs() {
        for binding in &run.value {
            bindings.bind(protocol, first..=first.saturating_add(run.count - 1), binding);
        }
    }
    for (port, more) in add.others() {
        for binding in more {
            bindings.bind_other(port, binding);
        }
    }
}

/// Takes the bindings out that fit in everything `remove` says; what it leaves open fits everything.
pub(super) fn unbind(bindings: &mut PortMap, remove: &PortMap) {
    for (port, wanted) in &remove.entries() {
        let Some(bound) = bindings.get(port) else {
            continue;
        };
        let left = bound.iter().filter(|binding| {
            !wanted.iter().any(|asked| {
                (asked.host_port.is_empty() || asked.host_port == binding.host_port)
                    && (asked.host_ip.is_empty() || asked.host_ip == binding.host_ip)
            })
        });
        let left: Vec<PortBinding> = left.cloned().collect();
        if left.is_empty() {
            bindings.remove(port);
        } else {
            bindings.insert(port, List::from(left));
        }
    }
}

/// Who reaches what is published.
pub(super) fn reach(explained: &Explained) -> PortReach {
    let port = &explained.port;
    let range = |first: u16| match port.count {
        1 => first.to_string(),
        count => format!("{first}-{}", first.saturating_add(count - 1)),
    };
    let outside = match port.host_ip {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    PortReach {
        port: format!("{}/{}", range(port.container_port), port.proto),
        published: match port.routed {
            true => "routed".to_owned(),
            false => format!("{outside}:{}", range(port.host_port)),
        },
        network: explained.network.clone(),
        target: explained.target.to_string(),
        addresses: explained.addresses.iter().map(IpAddr::to_string).collect(),
        from: explained.from.clone(),
        rules: explained.rules.clone(),
        notes: explained.notes.clone(),
    }
}

fn host_ip(binding: &PortBinding) -> Result<Option<IpAddr>> {
    match binding.host_ip.as_str() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| Error::invalid(format!("invalid host address {text:?} for a published port"))),
    }
}

fn host_port(text: &str) -> Result<PortChoice> {
    let number = |text: &str| {
        text.parse::<u16>()
            .map_err(|_| Error::invalid(format!("invalid port specification: {text:?}")))
    };
    match (text, text.split_once('-')) {
        ("" | "0", _) => Ok(PortChoice::Any),
        (_, Some((from, to))) => {
            let (from, to) = (number(from)?, number(to)?);
            if from == 0 || to < from {
                return Err(Error::invalid(format!("invalid port specification: {text:?}")));
            }
            Ok(PortChoice::Range(from, to))
        }
        (one, None) => number(one).map(PortChoice::Fixed),
    }
}

/// What inspect shows: published ports with their bindings, exposed ones with none.
pub(super) fn published(container: &Container, published: &[PublishedPort]) -> PortMap {
    let mut map = PortMap::empty();
    let exposed = &container.config.exposed_ports;
    for (protocol, first, run) in exposed.runs() {
        map.insert_range(
            protocol,
            first..=first.saturating_add(run.count - 1),
            List::null(),
        );
    }
    for port in exposed.others().keys() {
        if let Ok((number, proto)) = parse(port) {
            map.insert(&key(number, proto), List::null());
        }
    }
    for port in published {
        let binding = PortBinding {
            host_ip: port.host_ip.to_string(),
            host_port: match port.routed {
                true => String::new(),
                false => port.host_port.to_string(),
            },
        };
        let last = port.container_port.saturating_add(port.count.saturating_sub(1));
        map.bind(protocol(port.proto), port.container_port..=last, &binding);
    }
    map
}

/// Brings what is published of a running container and what its record says together, after a crash between the two:
/// what the record does not know is taken back, and what is published no more leaves the record. Gives whether the record
/// has changed.
pub(crate) fn reconcile(networks: &network::Networks, container: &mut Container) -> Result<bool> {
    let now = published(container, &networks.published(&container.id));
    let unknown = beyond(&now, &container.ports);
    if !unknown.is_empty() {
        networks.publish(&container.id, &[], &bound(&unknown)?)?;
    }
    let mut lost = PortMap::empty();
    for (port, mut bindings) in beyond(&container.ports, &now).entries() {
        for binding in bindings.iter_mut() {
            // Asked for without an address, it has one for each family.
            let address = binding.host_ip.parse::<IpAddr>();
            if address.is_ok_and(|address| address.is_unspecified()) {
                binding.host_ip.clear();
            }
        }
        lost.insert(&port, bindings);
    }
    if lost.is_empty() {
        return Ok(false);
    }
    let bindings = &mut Arc::make_mut(&mut container.host_config).port_bindings;
    unbind(bindings, &lost);
    for port in lost.names() {
        // A random port has no number there.
        if now.get(&port).is_none_or(|left| left.is_empty()) {
            bindings.remove(&port);
        }
    }
    container.ports = Arc::new(published(container, &networks.published(&container.id)));
    Ok(true)
}

/// The bindings of one map that another has not.
fn beyond(map: &PortMap, other: &PortMap) -> PortMap {
    let mut more = PortMap::empty();
    if map == other {
        return more;
    }
    for (port, bindings) in &map.entries() {
        let known = other.get(port);
        let new = bindings
            .iter()
            .filter(|binding| !known.as_ref().is_some_and(|known| known.contains(binding)));
        let new: Vec<PortBinding> = new.cloned().collect();
        if !new.is_empty() {
            more.insert(port, List::from(new));
        }
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        assert_eq!(parse("80").unwrap(), (80, Proto::Tcp));
        assert_eq!(parse("53/UDP").unwrap(), (53, Proto::Udp));
        for bad in ["", "0", "70000", "80/icmp", "a"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(matches!(host_port("").unwrap(), PortChoice::Any));
        assert!(matches!(host_port("8080").unwrap(), PortChoice::Fixed(8080)));
        assert!(matches!(host_port("1-3").unwrap(), PortChoice::Range(1, 3)));
        assert!(host_port("3-1").is_err());
    }
}
