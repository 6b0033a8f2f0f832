//! `firewall: respect-host`: packets from other machines come to a published port only after the host's own input rules
//! let them in.
//!
//! Translation happens before routing, so a translated packet is forwarded and never meets the rules for the host's own
//! input, whoever wrote them and with whichever tool. Here the first packet of a flow is therefore not translated. It
//! goes where a packet for the host goes, through every input chain there is; behind all of them stands ours:
//!
//! ```text
//!   wire ─> prerouting (left alone) ─> input: the host's rules ─> input, last: a published port?
//!                                          └─ drop, reject             │ yes: a copy goes out by the gate, it is dropped
//!   container <─ forward <─ prerouting (translated) <── gate (a veth pair of the host's) <┘
//! ```
//!
//! The copy comes back in as a new packet with the client's own address and is translated as ever; conntrack remembers
//! the flow, so all that follows takes the short way. No packet is held up, nothing runs in user space, and the daemon
//! may be away.
//!
//! The kernel copies in tables of one family alone, so two small tables stand beside ours, `ip <tag>` and `ip6 <tag>`;
//! what is to be copied is told to them by a bit of the packet's mark, which lives between two neighbouring hooks.
//! Packets of containers and of the host itself are translated at once: they are inside already.

use std::net::Ipv6Addr;

use sys::netlink::Message;

use super::expression::{self as nft, Hook, INPUT, NFPROTO_IPV4, NFPROTO_IPV6, Rule, Verdict};
use crate::link::BEYOND_GATE;

/// The bit of the mark by which the last input chain tells that a packet is to be copied.
pub(crate) const MARK: u32 = 0x1000_0000;
/// Behind every filter of the host's (priorities 0, 10, 50, 225) and before conntrack confirms.
pub(crate) const ADMIT_PRIORITY: i32 = 250;
/// The neighbour beyond the gate.
const BEYOND6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// The pair of links through which copies come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gate {
    /// The index of the end they go out by.
    pub(crate) outer: u32,
    /// The name of the end they come in by.
    pub(crate) inner: String,
}

impl Gate {
    pub(crate) fn stamp(&self) -> String {
        format!("berth, gate {} {}", self.outer, self.inner)
    }
}

/// The two tables: emptied of whatever was there, and made where there is a gate.
pub(crate) fn tables(table: &str, gate: Option<&Gate>) -> Vec<Message> {
    let mut messages = Vec::new();
    for family in [NFPROTO_IPV4, NFPROTO_IPV6] {
        messages.push(nft::table_of_family(family, table, None));
        messages.push(nft::delete_table_of_family(family, table));
        let Some(gate) = gate else { continue };
        messages.push(nft::table_of_family(family, table, Some(&gate.stamp())));
        let hook = Hook {
            kind: "filter",
            number: INPUT,
            priority: ADMIT_PRIORITY + 1,
        };
        messages.push(nft::chain_of_family(family, table, "copy", hook));
        let beyond = match family {
            NFPROTO_IPV4 => BEYOND_GATE.octets().to_vec(),
            _ => BEYOND6.octets().to_vec(),
        };
        let copy = Rule::new().marked(MARK).copy_to(&beyond, gate.outer);
        let drop = Rule::new().marked(MARK).verdict(Verdict::Drop);
        messages.extend([copy, drop].map(|rule| rule.into_message_of_family(family, table, "copy")));
    }
    messages
}
