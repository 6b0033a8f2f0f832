//! The table of an instance: what is in it that does not depend on networks or ports, and what each network and each
//! port adds to its sets.
//!
//! ```text
//! raw          iif @bridges, to 127/8                         drop     route_localnet is on for our bridges
//! prerouting   to 127/8 or ::1, or from an internal bridge    return
//!              to this host                                   publish
//! output       to ::1                                         return   the kernel takes no answer to ::1 from a link
//!              to this host                                   publish
//! publish      destination nat by the publish* maps
//! forward      neither side a bridge of ours                  accept   (as far as this table is concerned)
//!              established, related                           accept
//!              @same: a bridge to itself                      accept
//!              an internal bridge on either side              drop
//!              to a bridge, destination was rewritten         accept   a published port
//!              to a bridge                                    drop     isolation; no routing to containers
//! postrouting  from @masquerade*, not to a bridge             masquerade
//!              from @subnets*, to a bridge, rewritten         masquerade   or the answer would not come back this way
//!              to a bridge, from 127/8                        masquerade
//! ```
//!
//! An `accept` ends only this table's chain. Another engine that sets the FORWARD policy of iptables to DROP still
//! drops; that is its table, and it stays as it is.

use std::net::{IpAddr, SocketAddr};

use sys::netlink::Message;

use super::expression::{
    self as nft, Element, FORWARD, Hook, NFPROTO_IPV4, NFPROTO_IPV6, OUTPUT, POSTROUTING, PREROUTING, Rule,
    Set, TYPE_IFNAME, TYPE_IPV4, TYPE_IPV6, TYPE_PROTO, TYPE_SERVICE, Verdict, concatenated,
};
use crate::address::{Prefix, from_number};
use crate::model::Proto;

const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const SAME: &str = "same";
const SUBNETS4: &str = "subnets4";
const SUBNETS6: &str = "subnets6";
const MASQUERADE4: &str = "masquerade4";
const MASQUERADE6: &str = "masquerade6";
const PUBLISH4: &str = "publish4";
const PUBLISH4_ANY: &str = "publish4_any";
const PUBLISH6: &str = "publish6";
const PUBLISH6_ANY: &str = "publish6_any";

/// What a bridge adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) name: String,
    pub(crate) internal: bool,
    pub(crate) icc: bool,
    pub(crate) subnets: Vec<Prefix>,
    /// Whether what leaves them does so with the host's address.
    pub(crate) masquerade: bool,
}

/// What a published port adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PortRule {
    pub(crate) proto: Proto,
    pub(crate) host_ip: IpAddr,
    pub(crate) host_port: u16,
    pub(crate) target: SocketAddr,
}

/// Everything that depends on networks and ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    pub(crate) bridges: Vec<BridgeRules>,
    pub(crate) ports: Vec<PortRule>,
}

fn sets() -> Vec<Set> {
    let set = |name, key_type, key_length| Set {
        name,
        key_type,
        key_length,
        data: None,
        interval: false,
    };
    let pair = concatenated(&[TYPE_IFNAME, TYPE_IFNAME]);
    let service = |address| concatenated(&[address, TYPE_SERVICE]);
    let map = |name, types: &[u32], key_length, address, data_length| Set {
        data: Some((service(address), data_length)),
        ..set(name, concatenated(types), key_length)
    };
    let range = |name, key_type, key_length| Set {
        interval: true,
        ..set(name, key_type, key_length)
    };
    vec![
        set(BRIDGES, TYPE_IFNAME, 16),
        set(INTERNAL, TYPE_IFNAME, 16),
        set(SAME, pair, 32),
        range(SUBNETS4, TYPE_IPV4, 4),
        range(SUBNETS6, TYPE_IPV6, 16),
        range(MASQUERADE4, TYPE_IPV4, 4),
        range(MASQUERADE6, TYPE_IPV6, 16),
        map(PUBLISH4, &[TYPE_PROTO, TYPE_IPV4, TYPE_SERVICE], 12, TYPE_IPV4, 8),
        map(PUBLISH4_ANY, &[TYPE_PROTO, TYPE_SERVICE], 8, TYPE_IPV4, 8),
        map(
            PUBLISH6,
            &[TYPE_PROTO, TYPE_IPV6, TYPE_SERVICE],
            24,
            TYPE_IPV6,
            20,
        ),
        map(PUBLISH6_ANY, &[TYPE_PROTO, TYPE_SERVICE], 8, TYPE_IPV6, 20),
    ]
}

/// Requests that make the table as it should be, in place of whatever was there under its name.
pub(crate) fn replace(table: &str, desired: &Desired) -> Vec<Message> {
    let mut messages = vec![
        nft::new_table(table),
        nft::delete_table(table),
        nft::new_table_with_comment(table, &stamp()),
    ];
    messages.extend(frame(table));
    messages.extend(nft::elements(table, true, &elements(desired)));
    messages
}

/// What the table's comment says: which rules are in it. A table with another stamp is another release's.
pub(crate) fn stamp() -> String {
    // FNV-1a over the requests that make the rules.
    let hash = frame("").iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, message| {
        message
            .body()
            .iter()
            .fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
    });
    format!("berth, rules {hash:016x}")
}

/// Sets, chains and rules: what does not depend on networks and ports.
fn frame(table: &str) -> Vec<Message> {
    let mut messages = Vec::new();
    for (id, set) in (1..).zip(sets()) {
        messages.push(nft::new_set(table, &set, id));
    }
    let hook = |kind, number, priority| {
        Some(Hook {
            kind,
            number,
            priority,
        })
    };
    let chains = [
        ("raw", hook("filter", PREROUTING, -300)),
        ("prerouting", hook("nat", PREROUTING, -100)),
        ("output", hook("nat", OUTPUT, -100)),
        ("forward", hook("filter", FORWARD, 0)),
        ("postrouting", hook("nat", POSTROUTING, 100)),
        ("publish", None),
    ];
    messages.extend(
        chains
            .iter()
            .map(|(name, hook)| nft::new_chain(table, name, *hook)),
    );
    messages.extend(
        rules()
            .into_iter()
            .map(|(chain, rule)| rule.into_message(table, chain)),
    );
    messages
}

/// All elements, sorted by set: requests are cut where it changes.
pub(crate) fn elements(desired: &Desired) -> Vec<Element> {
    let mut elements: Vec<Element> = desired.bridges.iter().flat_map(bridge_elements).collect();
    elements.extend(desired.ports.iter().map(port_element));
    elements.sort_by_key(|element| element.set);
    elements
}

pub(crate) fn set_names() -> impl Iterator<Item = &'static str> {
    sets().into_iter().map(|set| set.name)
}

pub(crate) fn rules() -> Vec<(&'static str, Rule)> {
    let rule = Rule::new;
    let publish = Verdict::Jump("publish");
    let (source4, destination4, destination6) = (12, 16, 24);
    vec![
        (
            "raw",
            rule()
                .incoming(BRIDGES, true)
                .loopback_ipv4(destination4)
                .verdict(Verdict::Drop),
        ),
        (
            "prerouting",
            rule().loopback_ipv4(destination4).verdict(Verdict::Return),
        ),
        (
            "prerouting",
            rule().loopback_ipv6(destination6).verdict(Verdict::Return),
        ),
        (
            "prerouting",
            rule().incoming(INTERNAL, true).verdict(Verdict::Return),
        ),
        ("prerouting", rule().for_this_host().verdict(publish)),
        (
            "output",
            rule().loopback_ipv6(destination6).verdict(Verdict::Return),
        ),
        ("output", rule().for_this_host().verdict(publish)),
        ("publish", rule().publish(NFPROTO_IPV4, true, PUBLISH4)),
        ("publish", rule().publish(NFPROTO_IPV4, false, PUBLISH4_ANY)),
        ("publish", rule().publish(NFPROTO_IPV6, true, PUBLISH6)),
        ("publish", rule().publish(NFPROTO_IPV6, false, PUBLISH6_ANY)),
        (
            "forward",
            rule()
                .incoming(BRIDGES, false)
                .outgoing(BRIDGES, false)
                .verdict(Verdict::Accept),
        ),
        ("forward", rule().established().verdict(Verdict::Accept)),
        ("forward", rule().passing(SAME).verdict(Verdict::Accept)),
        ("forward", rule().incoming(INTERNAL, true).verdict(Verdict::Drop)),
        ("forward", rule().outgoing(INTERNAL, true).verdict(Verdict::Drop)),
        (
            "forward",
            rule()
                .outgoing(BRIDGES, true)
                .translated()
                .verdict(Verdict::Accept),
        ),
        ("forward", rule().outgoing(BRIDGES, true).verdict(Verdict::Drop)),
        (
            "postrouting",
            rule()
                .source(NFPROTO_IPV4, MASQUERADE4)
                .outgoing(BRIDGES, false)
                .masquerade(),
        ),
        (
            "postrouting",
            rule()
                .source(NFPROTO_IPV6, MASQUERADE6)
                .outgoing(BRIDGES, false)
                .masquerade(),
        ),
        // Not told by the interface it came in by, which is not known here when br_netfilter turned the packet around
        // on the bridge.
        (
            "postrouting",
            rule()
                .source(NFPROTO_IPV4, SUBNETS4)
                .outgoing(BRIDGES, true)
                .translated()
                .masquerade(),
        ),
        (
            "postrouting",
            rule()
                .source(NFPROTO_IPV6, SUBNETS6)
                .outgoing(BRIDGES, true)
                .translated()
                .masquerade(),
        ),
        (
            "postrouting",
            rule().outgoing(BRIDGES, true).loopback_ipv4(source4).masquerade(),
        ),
    ]
}

/// The elements of a bridge, sorted by set.
pub(crate) fn bridge_elements(bridge: &BridgeRules) -> Vec<Element> {
    let name = nft::ifname(&bridge.name);
    let pair = [name, name].concat();
    let plain = |set, key: &[u8]| Element {
        set,
        key: key.to_vec(),
        data: None,
        ends_range: false,
    };
    let range = |set, subnet: &Prefix| {
        let first = plain(set, &octets(subnet.masked().address()));
        // A range ends before its end element; one that reaches the last address has none.
        let top = if subnet.is_ipv4() {
            u128::from(u32::MAX)
        } else {
            u128::MAX
        };
        let end = (subnet.last() < top).then(|| Element {
            ends_range: true,
            ..plain(set, &octets(from_number(subnet.last() + 1, subnet.is_ipv4())))
        });
        [Some(first), end].into_iter().flatten()
    };
    let mut elements = vec![plain(BRIDGES, &name)];
    if bridge.internal {
        elements.push(plain(INTERNAL, &name));
    }
    for subnet in &bridge.subnets {
        let (all, masqueraded) = match subnet.is_ipv4() {
            true => (SUBNETS4, MASQUERADE4),
            false => (SUBNETS6, MASQUERADE6),
        };
        elements.extend(range(all, subnet));
        if bridge.masquerade {
            elements.extend(range(masqueraded, subnet));
        }
    }
    if bridge.icc {
        elements.push(plain(SAME, &pair));
    }
    elements
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The map element of a published port. Parts of a concatenation are padded to four bytes each.
pub(crate) fn port_element(port: &PortRule) -> Element {
    let padded = |port: u16| [&port.to_be_bytes()[..], &[0, 0]].concat();
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
        data: Some(data),
        ends_range: false,
    }
}
