//! What a published port adds to the table: an element of a map that leads it to its container, or of a set that lets
//! packets to the container's own address pass: all of them on a network that is routed, those of some interfaces of the
//! host on one that trusts these.

use std::net::{IpAddr, SocketAddr};

use super::expression::Element;
use super::ruleset::{
    DIRECT4, DIRECT6, OPEN4, OPEN6, PUBLISH4, PUBLISH4_ANY, PUBLISH6, PUBLISH6_ANY, RANGES4, RANGES6, SERVED6,
};
use crate::model::{Proto, PublishedPort};

/// By which address a published port is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// One of the host, which is rewritten.
    Translated,
    /// The container's own, from everywhere.
    Open,
    /// The container's own, from the interfaces that its network trusts.
    Trusted,
    /// One of the host, to which the container's monitor listens: what comes there over IPv6 and is not translated.
    Served,
}

/// What a published port adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRule {
    pub(crate) proto: Proto,
    pub(crate) host_ip: IpAddr,
    pub(crate) host_port: u16,
    pub(crate) target: SocketAddr,
    /// How many ports from these on.
    pub(crate) count: u16,
    /// Where nothing is translated, `host_ip` and `host_port` are the target's own.
    pub(crate) way: Way,
}

impl PortRule {
    /// How a published port leads to an address.
    pub(crate) fn of(port: &PublishedPort, target: IpAddr, way: Way) -> PortRule {
        let rule = PortRule {
            proto: port.proto,
            host_ip: port.host_ip,
            host_port: port.host_port,
            target: (target, port.container_port).into(),
            count: port.count,
            way,
        };
        match way {
            Way::Open | Way::Trusted => PortRule {
                host_ip: target,
                host_port: port.container_port,
                ..rule
            },
            Way::Translated | Way::Served => rule,
        }
    }

    pub(crate) fn is_translated(&self) -> bool {
        self.way == Way::Translated
    }

    /// Whether it leads to the container's own address.
    fn is_direct(&self) -> bool {
        matches!(self.way, Way::Open | Way::Trusted)
    }

    /// Whether it is the same port of the host, reached in another way.
    pub(crate) fn is_at(&self, other: &PortRule) -> bool {
        (self.proto, self.host_ip, self.host_port) == (other.proto, other.host_ip, other.host_port)
    }

    /// Whether it lets interfaces that are trusted reach what the other one leads to.
    pub(crate) fn is_trusted_way_of(&self, other: &PortRule) -> bool {
        let first = other.target.port();
        let ours = self.target.port()..=self.target.port().saturating_add(self.count - 1);
        self.way == Way::Trusted
            && (self.proto, self.target.ip()) == (other.proto, other.target.ip())
            && ours.contains(&first)
    }

    /// One port of a container that is reached itself.
    fn direct(way: Way, proto: Proto, target: SocketAddr) -> PortRule {
        PortRule {
            proto,
            host_ip: target.ip(),
            host_port: target.port(),
            target,
            count: 1,
            way,
        }
    }

    /// Whether a port of a container that is reached itself is the next behind these.
    fn ends_before(&self, way: Way, proto: Proto, target: SocketAddr) -> bool {
        (self.way, self.proto, self.target.ip()) == (way, proto, target.ip())
            && self.target.port().checked_add(self.count) == Some(target.port())
    }
}

/// Two ports of the host that lead to one of the container are one where there is no port of the host: an address and a
/// port stand once in a set.
pub(crate) fn without_repeats(rules: Vec<PortRule>) -> Vec<PortRule> {
    let (direct, mut others): (Vec<PortRule>, Vec<PortRule>) =
        rules.into_iter().partition(PortRule::is_direct);
    if direct.is_empty() {
        return others;
    }
    let mut open: Vec<(Way, Proto, SocketAddr)> = Vec::new();
    for rule in &direct {
        let at = |n: u16| SocketAddr::new(rule.target.ip(), rule.target.port().saturating_add(n));
        open.extend((0..rule.count).map(|n| (rule.way, rule.proto, at(n))));
    }
    open.sort_unstable();
    open.dedup();
    let mut run: Option<PortRule> = None;
    for (way, proto, target) in open {
        match &mut run {
            Some(run) if run.ends_before(way, proto, target) => run.count += 1,
            _ => others.extend(run.replace(PortRule::direct(way, proto, target))),
        }
    }
    others.extend(run);
    others
}

/// The map elements of published ports, sorted by set. Ports that have the same numbers inside are one element together;
/// the kernel cannot add to a port, so others are one each.
pub(crate) fn port_elements(ports: &[PortRule]) -> Vec<Element> {
    let mut elements = Vec::with_capacity(ports.len());
    for port in ports {
        if !port.is_translated() || (port.count > 1 && port.host_port == port.target.port()) {
            elements.push(range_element(port));
            continue;
        }
        elements.extend((0..port.count).map(|n| {
            let inside = port.target.port().saturating_add(n);
            port_element(&PortRule {
                host_port: port.host_port.saturating_add(n),
                target: (port.target.ip(), inside).into(),
                ..*port
            })
        }));
    }
    elements.sort_by_key(|element| element.set);
    elements
}

/// The map that a published port is in, and its element as `nft list` writes it; of many elements, the first and last.
pub(crate) fn shown(port: &PortRule) -> (&'static str, String) {
    let elements = port_elements(std::slice::from_ref(port));
    let set = elements.first().map_or("", |element| element.set);
    let last = port.host_port.saturating_add(port.count - 1);
    let address = match port.host_ip.is_unspecified() && elements.iter().all(|e| e.last_key.is_none()) {
        true => String::new(),
        false if port.host_ip.is_unspecified() => format!("{}/0 . ", port.host_ip),
        false => format!("{} . ", port.host_ip),
    };
    let target = |n: u16| format!("{} . {}", port.target.ip(), port.target.port().saturating_add(n));
    let text = match elements.as_slice() {
        [_] if !port.is_translated() => match port.count {
            1 => format!("{} . {address}{}", port.proto, port.host_port),
            _ => format!("{} . {address}{}-{last}", port.proto, port.host_port),
        },
        [one] if one.last_key.is_some() => {
            format!(
                "{} . {address}{}-{last} : {}",
                port.proto,
                port.host_port,
                port.target.ip()
            )
        }
        [_] => format!("{} . {address}{} : {}", port.proto, port.host_port, target(0)),
        _ => format!(
            "{} . {address}{} : {}, …, {} . {address}{last} : {}",
            port.proto,
            port.host_port,
            target(0),
            port.proto,
            target(port.count - 1)
        ),
    };
    (set, text)
}

/// Parts of a concatenation are padded to four bytes each.
fn padded(port: u16) -> Vec<u8> {
    [&port.to_be_bytes()[..], &[0, 0]].concat()
}

/// One address and some ports, or, where the address is unspecified, all of them.
fn range_element(port: &PortRule) -> Element {
    let (set, last_address) = match (port.way, port.host_ip) {
        (Way::Open, IpAddr::V4(_)) => (OPEN4, Vec::new()),
        (Way::Open, IpAddr::V6(_)) => (OPEN6, Vec::new()),
        (Way::Trusted, IpAddr::V4(_)) => (DIRECT4, Vec::new()),
        (Way::Trusted, IpAddr::V6(_)) => (DIRECT6, Vec::new()),
        // Of the IPv6 addresses alone.
        (Way::Served, _) => (SERVED6, vec![0xff; 16]),
        (Way::Translated, IpAddr::V4(_)) => (RANGES4, vec![0xff; 4]),
        (Way::Translated, IpAddr::V6(_)) => (RANGES6, vec![0xff; 16]),
    };
    let address = octets(port.host_ip);
    let last_address = if port.host_ip.is_unspecified() {
        last_address
    } else {
        address.clone()
    };
    let key = |address: &[u8], port_number: u16| {
        [&[port.proto.number(), 0, 0, 0], address, &padded(port_number)].concat()
    };
    let last = port.host_port.saturating_add(port.count - 1);
    Element {
        set,
        key: key(&address, port.host_port),
        last_key: Some(key(&last_address, last)),
        data: port.is_translated().then(|| octets(port.target.ip())),
        ends_range: false,
    }
}

fn port_element(port: &PortRule) -> Element {
    let set = match (port.host_ip.is_ipv4(), port.host_ip.is_unspecified()) {
        (true, true) => PUBLISH4_ANY,
        (true, false) => PUBLISH4,
        (false, true) => PUBLISH6_ANY,
        (false, false) => PUBLISH6,
    };
    let mut key = vec![port.proto.number(), 0, 0, 0];
    if !port.host_ip.is_unspecified() {
        key.extend(octets(port.host_ip));
    }
    key.extend(padded(port.host_port));
    let mut data = octets(port.target.ip());
    data.extend(padded(port.target.port()));
    Element {
        set,
        key,
        last_key: None,
        data: Some(data),
        ends_range: false,
    }
}

pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(first: u16, count: u16) -> PortRule {
        PortRule {
            count,
            ..PortRule::direct(
                Way::Open,
                Proto::Tcp,
                (IpAddr::from([172, 18, 0, 2]), first).into(),
            )
        }
    }

    #[test]
    fn what_the_monitor_serves_is_one_element_of_a_set() {
        let port = PublishedPort {
            container_port: 80,
            proto: Proto::Tcp,
            host_ip: std::net::Ipv6Addr::UNSPECIFIED.into(),
            host_port: 8080,
            count: 3,
            routed: false,
        };
        let everywhere = PortRule::of(&port, [172, 17, 0, 2].into(), Way::Served);
        assert_eq!(shown(&everywhere), (SERVED6, "tcp . ::/0 . 8080-8082".to_owned()));
        let elements = port_elements(&[everywhere]);
        assert!(elements.len() == 1 && elements[0].data.is_none());
        let one = PublishedPort {
            host_ip: "2001:db8::1".parse().unwrap(),
            count: 1,
            ..port
        };
        let one = PortRule::of(&one, [172, 17, 0, 2].into(), Way::Served);
        assert_eq!(shown(&one), (SERVED6, "tcp . 2001:db8::1 . 8080".to_owned()));
        // It does not stand for the container's own address.
        assert_eq!(
            without_repeats(vec![one, routed(80, 1), routed(80, 1)]),
            [one, routed(80, 1)]
        );
    }

    #[test]
    fn a_port_stands_once_in_the_set_however_often_it_is_published() {
        let port = PublishedPort {
            container_port: 7,
            proto: Proto::Udp,
            host_ip: IpAddr::from([0; 4]),
            host_port: 7,
            count: 1,
            routed: false,
        };
        let translated = PortRule::of(&port, [172, 18, 0, 2].into(), Way::Translated);
        let rules = without_repeats(vec![
            routed(84, 7),
            translated,
            routed(80, 5),
            routed(80, 1),
            routed(95, 1),
        ]);
        assert_eq!(rules, [translated, routed(80, 11), routed(95, 1)]);
        let elements = port_elements(&rules);
        let open: Vec<&Element> = elements.iter().filter(|element| element.set == OPEN4).collect();
        assert_eq!(open.len(), 2);
        assert!(
            open.iter()
                .all(|element| element.data.is_none() && element.last_key.is_some())
        );
        assert_eq!(
            shown(&routed(80, 11)),
            (OPEN4, "tcp . 172.18.0.2 . 80-90".to_owned())
        );
        // The last port has no neighbour.
        assert_eq!(without_repeats(vec![routed(65535, 1), routed(1, 1)]).len(), 2);
        // What is open to all is another set than what is open to some.
        let trusted = PortRule {
            way: Way::Trusted,
            ..routed(81, 1)
        };
        assert_eq!(
            without_repeats(vec![trusted, routed(80, 1), trusted]),
            [routed(80, 1), trusted]
        );
        assert_eq!(shown(&trusted), (DIRECT4, "tcp . 172.18.0.2 . 81".to_owned()));
    }
}
