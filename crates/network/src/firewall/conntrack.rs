//! Flows of datagrams that conntrack remembers although the port they came to leads elsewhere now.
//!
//! A UDP "connection" is a pair of addresses and ports that is remembered for minutes after its last packet, with the
//! translation its first packet got. A client that keeps sending from one port (a resolver, a phone, a tunnel) would
//! thus go on being led to a container that is gone, or past one that is new. Only entries of the ports that changed are
//! removed: those translated to the old target, and those that came in untranslated before the port was published.
//!
//! The same happens while our table is away and another one keeps the kernel at translating: what begins then is
//! remembered as not to be translated.
//!
//! Sources: linux/netfilter/nfnetlink_conntrack.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use sys::netlink::{Attributes, Failure, Message, Reply, Socket};

use super::ports::{PortRule, Way};
use super::ruleset::Desired;
use crate::model::Proto;

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const NFGENMSG: usize = 4;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const SEEN_REPLY: u32 = 1 << 1;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const UDP: u8 = 17;

/// One direction of a flow.
#[derive(Debug, PartialEq, Eq)]
struct Tuple {
    proto: u8,
    from: SocketAddr,
    to: SocketAddr,
}

/// What the kernel remembers of one.
#[derive(Debug)]
struct Flow {
    original: Tuple,
    reply: Tuple,
    /// Whether anything came back.
    answered: bool,
}

/// Forgets the flows to ports that led to `before` and lead to `after` now.
pub(super) fn forget(socket: &mut Socket, before: &[PortRule], after: &[PortRule]) -> Result<(), Failure> {
    let datagrams = |rules: &[PortRule], others: &[PortRule]| -> Vec<PortRule> {
        let changed = rules
            .iter()
            // What a monitor serves is no flow of the kernel's from one address to another.
            .filter(|r| r.proto == Proto::Udp && r.way != Way::Served && !others.contains(r));
        changed.copied().collect()
    };
    let (gone, come) = (datagrams(before, after), datagrams(after, before));
    for (ipv4, family) in [(true, IPV4), (false, IPV6)] {
        let concerned = |rules: &[PortRule]| rules.iter().any(|r| r.host_ip.is_ipv4() == ipv4);
        if concerned(&gone) || concerned(&come) {
            forget_those(socket, family, |flow| is_stale(flow, &gone, &come))?;
        }
    }
    Ok(())
}

/// Forgets what began while the rules of `desired` were away and would go on past them: datagrams to published ports,
/// and what left for the world with an address nobody answers to.
pub(super) fn forget_untranslated(socket: &mut Socket, desired: &Desired) -> Result<(), Failure> {
    let ports: Vec<PortRule> = desired
        .ports
        .iter()
        .filter(|rule| rule.proto == Proto::Udp && rule.is_translated())
        .copied()
        .collect();
    let masqueraded = |address| {
        let mut bridges = desired.bridges.iter().filter(|bridge| bridge.masquerade);
        bridges.any(|bridge| bridge.subnets.iter().any(|subnet| subnet.contains(address)))
    };
    let inside = |address| {
        let mut subnets = desired.bridges.iter().flat_map(|bridge| &bridge.subnets);
        subnets.any(|subnet| subnet.contains(address))
    };
    for family in [IPV4, IPV6] {
        forget_those(socket, family, |flow| {
            let left =
                !flow.answered && masqueraded(flow.original.from.ip()) && !inside(flow.original.to.ip());
            is_stale(flow, &[], &ports) || (left && flow.is_untranslated())
        })?;
    }
    Ok(())
}

fn forget_those(socket: &mut Socket, family: u8, stale: impl Fn(&Flow) -> bool) -> Result<(), Failure> {
    let flows = socket.dump(&Message::new(GET, 0, &[family, 0, 0, 0]))?;
    let stale = flows
        .iter()
        .filter(|flow| Flow::read(flow).is_some_and(|flow| stale(&flow)));
    let requests: Vec<Message> = stale
        .filter_map(|flow| {
            let original = flow.attributes(NFGENMSG).get(TUPLE_ORIGINAL)?;
            Some(Message::new(DELETE, 0, &[family, 0, 0, 0]).nest(TUPLE_ORIGINAL, |m| m.raw(original)))
        })
        .collect();
    for outcome in socket.send(&requests)? {
        match outcome {
            // It ended by itself.
            Err(failure) if failure.errno != Errno::NOENT => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

fn is_stale(flow: &Flow, gone: &[PortRule], come: &[PortRule]) -> bool {
    let Flow { original, reply, .. } = flow;
    if original.proto != UDP {
        return false;
    }
    let offset = |rule: &PortRule| {
        let port = original.to.port().checked_sub(rule.host_port)?;
        let here = rule.host_ip.is_unspecified() || rule.host_ip == original.to.ip();
        let same_family = rule.host_ip.is_ipv4() == original.to.is_ipv4();
        (port < rule.count && here && same_family).then_some(port)
    };
    let led_there = gone.iter().any(|rule| {
        offset(rule).is_some_and(|n| {
            reply.from == SocketAddr::new(rule.target.ip(), rule.target.port().saturating_add(n))
        })
    });
    led_there || (flow.is_untranslated() && come.iter().any(|rule| offset(rule).is_some()))
}

impl Flow {
    fn read(flow: &Reply) -> Option<Flow> {
        let attributes = flow.attributes(NFGENMSG);
        let tuple = |kind| attributes.get(kind).and_then(tuple);
        let status: Option<[u8; 4]> = attributes.get(STATUS).and_then(|bytes| bytes.try_into().ok());
        Some(Flow {
            original: tuple(TUPLE_ORIGINAL)?,
            reply: tuple(TUPLE_REPLY)?,
            answered: u32::from_be_bytes(status?) & SEEN_REPLY != 0,
        })
    }

    fn is_untranslated(&self) -> bool {
        self.reply.from == self.original.to && self.reply.to == self.original.from
    }
}

fn tuple(payload: &[u8]) -> Option<Tuple> {
    let tuple = Attributes::of(payload);
    let (addresses, transport) = (Attributes::of(tuple.get(1)?), Attributes::of(tuple.get(2)?));
    let address = |v4: u16, v6: u16| -> Option<IpAddr> {
        if let Some(bytes) = addresses.get(v4) {
            return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
        }
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(addresses.get(v6)?).ok()?).into())
    };
    let port = |kind: u16| Some(u16::from_be_bytes(transport.get(kind)?.try_into().ok()?));
    Some(Tuple {
        proto: *transport.get(1)?.first()?,
        from: SocketAddr::new(address(1, 3)?, port(2)?),
        to: SocketAddr::new(address(2, 4)?, port(3)?),
    })
}
