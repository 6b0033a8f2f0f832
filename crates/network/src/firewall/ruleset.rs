//! The table of an instance: what is in it that does not depend on networks or ports, and what each network and each
//! port adds to its sets.
//!
//! ```text
//! raw          iif @gate                                       the mark's bit is cleared
//!              to 127/8, iif @bridges                         drop     route_localnet is on for our bridges
//!              IPv6, iif @internal, to this host, @served6    drop     a published port that its monitor listens to
//! prerouting   to 127/8 or ::1, or from an internal bridge    return
//!              to this host                                   publish  with a gate: from it or a bridge alone; input
//!                                                                      decides about others first, see `gate`
//! input        with a gate: not from it, to a published port  the mark's bit is set, and the packet copied
//! output       to ::1                                         return   the kernel takes no answer to ::1 from a link
//!              to this host                                   publish
//! publish      destination nat by the publish* maps, address and port; then by the ranges* maps, the address alone
//! forward      established, related                           accept   (as far as this table is concerned)
//!              neither side a bridge of ours                  accept
//!              @same: a bridge to itself                      accept
//!              an internal bridge on either side              drop
//!              to a bridge, destination was rewritten         accept   a published port
//!              to a bridge, to @unprotected*                  accept   networks that ask for it
//!              to a bridge, to @open*                         accept   a published port of a network that is routed
//!              to a bridge, to @routed*, ICMP                 accept
//!              @trusted: an interface to a bridge, to @direct*  accept  a published port of a network that trusts it
//!              to a bridge                                    drop     isolation; no routing to containers
//! postrouting  from sources*, not to a bridge                 source nat to what the map says
//!              from @masquerade*, not to a bridge             masquerade
//!              from @subnets*, to a bridge, rewritten         masquerade   or the answer would not come back this way
//!              to a bridge, from 127/8                        masquerade
//! ```
//!
//! An `accept` ends only this table's chain. Another engine that sets the FORWARD policy of iptables to DROP still
//! drops; that is its table, and it stays as it is.

use std::net::IpAddr;

use sys::netlink::Message;

use super::expression::{
    self as nft, Element, FORWARD, Hook, INPUT, NFPROTO_IPV4, NFPROTO_IPV6, OUTPUT, POSTROUTING, PREROUTING,
    Rule, Set, TYPE_IFNAME, TYPE_IPV4, TYPE_IPV6, TYPE_PROTO, TYPE_SERVICE, Verdict, concatenated,
};
use super::gate::{self, Gate};
use super::ports::{PortRule, octets, port_elements};
use crate::address::{Prefix, from_number};

const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const SAME: &str = "same";
const GATE: &str = "gate";
const SUBNETS4: &str = "subnets4";
const SUBNETS6: &str = "subnets6";
const MASQUERADE4: &str = "masquerade4";
const MASQUERADE6: &str = "masquerade6";
const SOURCES4: &str = "sources4";
const SOURCES6: &str = "sources6";
const UNPROTECTED4: &str = "unprotected4";
const UNPROTECTED6: &str = "unprotected6";
const ROUTED4: &str = "routed4";
const ROUTED6: &str = "routed6";
const TRUSTED: &str = "trusted";
pub(super) const OPEN4: &str = "open4";
pub(super) const OPEN6: &str = "open6";
pub(super) const DIRECT4: &str = "direct4";
pub(super) const DIRECT6: &str = "direct6";
/// Protocols in the IP header.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
pub(super) const PUBLISH4: &str = "publish4";
pub(super) const PUBLISH4_ANY: &str = "publish4_any";
pub(super) const PUBLISH6: &str = "publish6";
pub(super) const PUBLISH6_ANY: &str = "publish6_any";
pub(super) const SERVED6: &str = "served6";
pub(super) const RANGES4: &str = "ranges4";
pub(super) const RANGES6: &str = "ranges6";

/// What a bridge adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BridgeRules {
    pub(crate) name: String,
    pub(crate) internal: bool,
    pub(crate) icc: bool,
    pub(crate) subnets: Vec<Prefix>,
    /// Whether what leaves them does so with the host's address.
    pub(crate) masquerade: bool,
    /// Those that leave with a chosen address of the host, and which.
    pub(crate) sources: Vec<(Prefix, IpAddr)>,
    /// Those whose containers are reached by whoever routes to them.
    pub(crate) unprotected: Vec<Prefix>,
    /// Those whose containers are reached at their own addresses, at published ports alone, and leave with them.
    pub(crate) routed: Vec<Prefix>,
    /// Interfaces of the host from which published ports are reached at the containers' own addresses.
    pub(crate) trusted: Vec<String>,
}

/// Everything that depends on networks and ports.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    pub(crate) bridges: Vec<BridgeRules>,
    pub(crate) ports: Vec<PortRule>,
    /// Present where the host's own input rules decide about published ports as well.
    pub(crate) gate: Option<Gate>,
}

fn sets() -> Vec<Set> {
    let set = |name, key_type, key_length| Set {
        name,
        key_type,
        key_length,
        data: None,
        interval: false,
        parts: &[],
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
    let sources = |name, kind, length| Set {
        data: Some((kind, length)),
        ..range(name, kind, length)
    };
    let open = |name, address, parts: &'static [u32]| Set {
        interval: true,
        parts,
        ..set(
            name,
            concatenated(&[TYPE_PROTO, address, TYPE_SERVICE]),
            8 + parts[1],
        )
    };
    let ranges = |name, address, parts: &'static [u32]| Set {
        data: Some((address, parts[1])),
        ..open(name, address, parts)
    };
    vec![
        set(BRIDGES, TYPE_IFNAME, 16),
        set(INTERNAL, TYPE_IFNAME, 16),
        set(SAME, pair, 32),
        set(TRUSTED, pair, 32),
        set(GATE, TYPE_IFNAME, 16),
        range(SUBNETS4, TYPE_IPV4, 4),
        range(SUBNETS6, TYPE_IPV6, 16),
        range(MASQUERADE4, TYPE_IPV4, 4),
        range(MASQUERADE6, TYPE_IPV6, 16),
        sources(SOURCES4, TYPE_IPV4, 4),
        sources(SOURCES6, TYPE_IPV6, 16),
        range(UNPROTECTED4, TYPE_IPV4, 4),
        range(UNPROTECTED6, TYPE_IPV6, 16),
        range(ROUTED4, TYPE_IPV4, 4),
        range(ROUTED6, TYPE_IPV6, 16),
        open(OPEN4, TYPE_IPV4, &[1, 4, 2]),
        open(OPEN6, TYPE_IPV6, &[1, 16, 2]),
        open(DIRECT4, TYPE_IPV4, &[1, 4, 2]),
        open(DIRECT6, TYPE_IPV6, &[1, 16, 2]),
        open(SERVED6, TYPE_IPV6, &[1, 16, 2]),
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
        ranges(RANGES4, TYPE_IPV4, &[1, 4, 2]),
        ranges(RANGES6, TYPE_IPV6, &[1, 16, 2]),
    ]
}

/// Requests that make the table as it should be, in place of whatever was there under its name.
pub(crate) fn replace(table: &str, desired: &Desired) -> Vec<Message> {
    let mut messages = vec![
        nft::new_table(table),
        nft::delete_table(table),
        nft::new_table_with_comment(table, &stamp(desired.gate.is_some())),
    ];
    messages.extend(frame(table, desired.gate.is_some()));
    messages.extend(nft::elements(table, true, &elements(desired)));
    messages.extend(gate::tables(table, desired.gate.as_ref()));
    messages
}

/// What the table's comment says: which rules are in it. A table with another stamp is another release's.
pub(crate) fn stamp(gated: bool) -> String {
    // FNV-1a over the requests that make the rules.
    let hash = frame("", gated)
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, message| {
            message
                .body()
                .iter()
                .fold(hash, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
        });
    format!("berth, rules {hash:016x}")
}

/// Sets, chains and rules: what does not depend on networks and ports.
fn frame(table: &str, gated: bool) -> Vec<Message> {
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
    let mut chains = vec![
        ("raw", hook("filter", PREROUTING, nft::BEFORE_CONNTRACK)),
        ("prerouting", hook("nat", PREROUTING, -100)),
        ("output", hook("nat", OUTPUT, -100)),
        ("forward", hook("filter", FORWARD, 0)),
        ("postrouting", hook("nat", POSTROUTING, 100)),
        ("publish", None),
    ];
    if gated {
        chains.push(("input", hook("filter", INPUT, gate::ADMIT_PRIORITY)));
    }
    messages.extend(
        chains
            .iter()
            .map(|(name, hook)| nft::new_chain(table, name, *hook)),
    );
    messages.extend(
        rules(gated)
            .into_iter()
            .map(|(chain, rule)| rule.into_message(table, chain)),
    );
    messages
}

/// All elements, sorted by set: requests are cut where it changes.
pub(crate) fn elements(desired: &Desired) -> Vec<Element> {
    let mut elements: Vec<Element> = desired.bridges.iter().flat_map(bridge_elements).collect();
    elements.extend(port_elements(&desired.ports));
    elements.extend(desired.gate.iter().map(|gate| Element {
        set: GATE,
        key: nft::ifname(&gate.inner).to_vec(),
        last_key: None,
        data: None,
        ends_range: false,
    }));
    elements.sort_by_key(|element| element.set);
    elements
}

pub(crate) fn set_names() -> impl Iterator<Item = &'static str> {
    sets().into_iter().map(|set| set.name)
}

/// The rules by which packets come to published ports after the host's own input rules.
fn gate_rules() -> Vec<(&'static str, Rule)> {
    let rule = Rule::new;
    let mut rules = vec![
        ("raw", rule().incoming(GATE, true).unmark(gate::MARK)),
        ("input", rule().incoming(GATE, true).verdict(Verdict::Return)),
        ("input", rule().incoming(BRIDGES, true).verdict(Verdict::Return)),
    ];
    let maps = [
        (NFPROTO_IPV4, true, PUBLISH4),
        (NFPROTO_IPV4, false, PUBLISH4_ANY),
        (NFPROTO_IPV4, true, RANGES4),
        (NFPROTO_IPV6, true, PUBLISH6),
        (NFPROTO_IPV6, false, PUBLISH6_ANY),
        (NFPROTO_IPV6, true, RANGES6),
    ];
    rules.extend(maps.map(|(family, with_address, map)| {
        let published = rule().publishes(family, with_address, map);
        ("input", published.mark(gate::MARK))
    }));
    rules
}

pub(crate) fn rules(gated: bool) -> Vec<(&'static str, Rule)> {
    let mut rules = always();
    let to_us = || Rule::new().for_this_host();
    let publish = Verdict::Jump("publish");
    if gated {
        for set in [GATE, BRIDGES] {
            rules.push(("prerouting", to_us().incoming(set, true).verdict(publish)));
        }
        rules.extend(gate_rules());
    } else {
        rules.push(("prerouting", to_us().verdict(publish)));
    }
    rules
}

fn always() -> Vec<(&'static str, Rule)> {
    let rule = Rule::new;
    let publish = Verdict::Jump("publish");
    let (source4, destination4, destination6) = (12, 16, 24);
    vec![
        // What costs least is asked first: every packet of the host comes here, and most end at the first question.
        (
            "raw",
            rule()
                .loopback_ipv4(destination4)
                .incoming(BRIDGES, true)
                .verdict(Verdict::Drop),
        ),
        (
            "raw",
            rule()
                .family(NFPROTO_IPV6)
                .incoming(INTERNAL, true)
                .for_this_host()
                .open(NFPROTO_IPV6, SERVED6)
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
        (
            "output",
            rule().loopback_ipv6(destination6).verdict(Verdict::Return),
        ),
        ("output", rule().for_this_host().verdict(publish)),
        ("publish", rule().publish(NFPROTO_IPV4, true, PUBLISH4)),
        ("publish", rule().publish(NFPROTO_IPV4, false, PUBLISH4_ANY)),
        ("publish", rule().publish(NFPROTO_IPV6, true, PUBLISH6)),
        ("publish", rule().publish(NFPROTO_IPV6, false, PUBLISH6_ANY)),
        ("publish", rule().publish_range(NFPROTO_IPV4, RANGES4)),
        ("publish", rule().publish_range(NFPROTO_IPV6, RANGES6)),
        // First, since it is what nearly every packet is.
        ("forward", rule().established().verdict(Verdict::Accept)),
        (
            "forward",
            rule()
                .incoming(BRIDGES, false)
                .outgoing(BRIDGES, false)
                .verdict(Verdict::Accept),
        ),
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
        (
            "forward",
            rule()
                .destination(NFPROTO_IPV4, UNPROTECTED4)
                .outgoing(BRIDGES, true)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .destination(NFPROTO_IPV6, UNPROTECTED6)
                .outgoing(BRIDGES, true)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .outgoing(BRIDGES, true)
                .open(NFPROTO_IPV4, OPEN4)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .outgoing(BRIDGES, true)
                .open(NFPROTO_IPV6, OPEN6)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .destination(NFPROTO_IPV4, ROUTED4)
                .outgoing(BRIDGES, true)
                .protocol(ICMP)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .destination(NFPROTO_IPV6, ROUTED6)
                .outgoing(BRIDGES, true)
                .protocol(ICMPV6)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .passing(TRUSTED)
                .open(NFPROTO_IPV4, DIRECT4)
                .verdict(Verdict::Accept),
        ),
        (
            "forward",
            rule()
                .passing(TRUSTED)
                .open(NFPROTO_IPV6, DIRECT6)
                .verdict(Verdict::Accept),
        ),
        ("forward", rule().outgoing(BRIDGES, true).verdict(Verdict::Drop)),
        (
            "postrouting",
            rule().outgoing(BRIDGES, false).send_from(NFPROTO_IPV4, SOURCES4),
        ),
        (
            "postrouting",
            rule().outgoing(BRIDGES, false).send_from(NFPROTO_IPV6, SOURCES6),
        ),
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

/// The elements of a bridge, those of a set together.
pub(crate) fn bridge_elements(bridge: &BridgeRules) -> Vec<Element> {
    let name = nft::ifname(&bridge.name);
    let pair = [name, name].concat();
    let plain = |set, key: &[u8]| Element {
        set,
        key: key.to_vec(),
        last_key: None,
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
        let chosen = bridge.sources.iter().find(|(prefix, _)| prefix == subnet);
        match chosen {
            _ if !bridge.masquerade || bridge.routed.contains(subnet) => {}
            None => elements.extend(range(masqueraded, subnet)),
            Some((_, address)) => {
                let map = if subnet.is_ipv4() { SOURCES4 } else { SOURCES6 };
                elements.extend(range(map, subnet).map(|element| Element {
                    // The end of a range leads nowhere.
                    data: (!element.ends_range).then(|| octets(*address)),
                    ..element
                }));
            }
        }
    }
    for subnet in &bridge.unprotected {
        let set = if subnet.is_ipv4() {
            UNPROTECTED4
        } else {
            UNPROTECTED6
        };
        elements.extend(range(set, subnet));
    }
    for subnet in &bridge.routed {
        let set = if subnet.is_ipv4() { ROUTED4 } else { ROUTED6 };
        elements.extend(range(set, subnet));
    }
    if bridge.icc {
        elements.push(plain(SAME, &pair));
    }
    elements.extend(
        bridge
            .trusted
            .iter()
            .map(|interface| plain(TRUSTED, &[nft::ifname(interface), name].concat())),
    );
    elements
}
