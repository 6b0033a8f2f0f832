//! nf_tables objects as netlink requests: tables, chains, sets, elements, and rules made of expressions.
//!
//! Registers are the 32-bit ones (`NFT_REG32_00` = 8 and up); a value of n bytes fills n/4 of them, rounded up, and a
//! concatenation is its parts in consecutive registers. Numbers and names are those of linux/netfilter/nf_tables.h.

use sys::netlink::{Attributes, Message, Reply, flags};

/// `NFPROTO_INET`: one table for both families.
const INET: u8 = 1;
pub(crate) const NFPROTO_IPV4: u8 = 2;
pub(crate) const NFPROTO_IPV6: u8 = 10;

const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

const TABLE_USERDATA: u16 = 6;

/// Length of `struct nfgenmsg`, with which every message begins.
const NFGENMSG: usize = 4;

const SET_INTERVAL: u32 = 0x4;
const SET_MAP: u32 = 0x8;
const SET_CONCATENATION: u32 = 0x80;
const ELEMENT_INTERVAL_END: u32 = 1;

/// `NFT_META_MARK`.
const MARK: u32 = 3;

/// The registers used here. Names take four of them.
pub(crate) const R0: u32 = 8;
pub(crate) const R1: u32 = 9;
pub(crate) const R4: u32 = 12;

/// The types `nft` prints keys by; the kernel itself does not look at them.
pub(crate) const TYPE_IPV4: u32 = 7;
pub(crate) const TYPE_IPV6: u32 = 8;
pub(crate) const TYPE_PROTO: u32 = 12;
pub(crate) const TYPE_SERVICE: u32 = 13;
pub(crate) const TYPE_IFNAME: u32 = 41;

/// Protocols in the IP header.
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;

/// One of the two ends of a packet's way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Source,
    Destination,
}

/// The number `nft` gives to a concatenation of types.
pub(crate) fn concatenated(types: &[u32]) -> u32 {
    types.iter().fold(0, |all, one| all << 6 | one)
}

/// An interface's name as sets hold it: 16 bytes, zero-filled.
pub(crate) fn ifname(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    bytes
}

pub(crate) fn new_table(table: &str) -> Message {
    Message::nftables(NEWTABLE, flags::CREATE, INET).string(1, table)
}

/// A table with a comment, which `nft list` shows and a later daemon reads.
pub(crate) fn new_table_with_comment(table: &str, comment: &str) -> Message {
    new_table(table).bytes(TABLE_USERDATA, &user_data(comment))
}

/// A table of one family alone.
pub(crate) fn table_of_family(family: u8, table: &str, comment: Option<&str>) -> Message {
    let message = Message::nftables(NEWTABLE, flags::CREATE, family).string(1, table);
    match comment {
        Some(comment) => message.bytes(TABLE_USERDATA, &user_data(comment)),
        None => message,
    }
}

pub(crate) fn delete_table_of_family(family: u8, table: &str) -> Message {
    Message::nftables(DELTABLE, 0, family).string(1, table)
}

pub(crate) fn get_table_of_family(family: u8, table: &str) -> Message {
    Message::nftables(GETTABLE, 0, family).string(1, table)
}

/// User data as `nft` writes it: type 0 (a comment), length, the text and its NUL.
fn user_data(comment: &str) -> Vec<u8> {
    let text = comment.as_bytes().get(..200).unwrap_or(comment.as_bytes());
    let mut data = vec![0, text.len() as u8 + 1];
    data.extend_from_slice(text);
    data.push(0);
    data
}

/// The request for the table itself.
pub(crate) fn get_table(table: &str) -> Message {
    Message::nftables(GETTABLE, 0, INET).string(1, table)
}

/// Whether the table in an answer to [`get_table`] carries this comment.
pub(crate) fn has_comment(reply: &Reply, comment: &str) -> bool {
    reply.attributes(NFGENMSG).get(TABLE_USERDATA) == Some(&user_data(comment)[..])
}

/// The table that an announcement of the rule set is about. All kinds of objects name it in the same attribute.
pub(crate) fn table_of(announcement: &Reply) -> Option<String> {
    announcement.attributes(NFGENMSG).text(1)
}

pub(crate) fn delete_table(table: &str) -> Message {
    Message::nftables(DELTABLE, 0, INET).string(1, table)
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hook {
    pub(crate) kind: &'static str,
    pub(crate) number: u32,
    pub(crate) priority: i32,
}

/// `NF_IP_PRI_RAW`: a chain that sees packets before conntrack does.
pub(crate) const BEFORE_CONNTRACK: i32 = -300;

pub(crate) const PREROUTING: u32 = 0;
pub(crate) const INPUT: u32 = 1;
pub(crate) const FORWARD: u32 = 2;
pub(crate) const OUTPUT: u32 = 3;
pub(crate) const POSTROUTING: u32 = 4;

/// A chain; with a hook, a base chain that accepts what its rules do not decide.
pub(crate) fn new_chain(table: &str, name: &str, hook: Option<Hook>) -> Message {
    chain(INET, table, name, hook)
}

pub(crate) fn chain_of_family(family: u8, table: &str, name: &str, hook: Hook) -> Message {
    chain(family, table, name, Some(hook))
}

fn chain(family: u8, table: &str, name: &str, hook: Option<Hook>) -> Message {
    let message = Message::nftables(NEWCHAIN, flags::CREATE, family)
        .string(1, table)
        .string(3, name);
    let Some(hook) = hook else { return message };
    let accept = 1;
    message
        .nest(4, |m| m.be32(1, hook.number).be32(2, hook.priority as u32))
        .be32(5, accept)
        .string(7, hook.kind)
}

/// The request for all chains of all tables.
pub(crate) fn list_chains() -> Message {
    Message::nftables(GETCHAIN, 0, 0)
}

/// A base chain of a filter, of whatever table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    /// As `nft` writes families: `ip`, `ip6`, `inet`, …
    pub(crate) family: &'static str,
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) hook: u32,
    /// Whether it drops what its rules do not decide.
    pub(crate) drops: bool,
}

/// The filter in one answer to [`list_chains`]; none for chains that are no base chains of filters.
pub(crate) fn read_filter(reply: &Reply) -> Option<Filter> {
    let attributes = reply.attributes(NFGENMSG);
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let hook = number(Attributes::of(attributes.get(4)?).get(1)?)?;
    let family = match reply.payload.first()? {
        1 => "inet",
        2 => "ip",
        10 => "ip6",
        _ => return None,
    };
    (attributes.text(7)? == "filter").then_some(())?;
    Some(Filter {
        family,
        table: attributes.text(1)?,
        chain: attributes.text(3)?,
        hook,
        drops: attributes.get(5).and_then(number) == Some(0),
    })
}

/// A set or map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set {
    pub(crate) name: &'static str,
    pub(crate) key_type: u32,
    pub(crate) key_length: u32,
    /// Type and length of what keys map to.
    pub(crate) data: Option<(u32, u32)>,
    /// Keys are ranges.
    pub(crate) interval: bool,
    /// Lengths of the parts of a key, where keys are ranges of several parts (Linux 5.6).
    pub(crate) parts: &'static [u32],
}

pub(crate) fn new_set(table: &str, set: &Set, id: u32) -> Message {
    let mut flags = 0;
    if set.interval {
        flags |= SET_INTERVAL;
    }
    if set.data.is_some() {
        flags |= SET_MAP;
    }
    if !set.parts.is_empty() {
        flags |= SET_CONCATENATION;
    }
    let message = Message::nftables(NEWSET, self::flags::CREATE, INET)
        .string(1, table)
        .string(2, set.name)
        .be32(3, flags)
        .be32(4, set.key_type)
        .be32(5, set.key_length);
    let message = match set.data {
        Some((kind, length)) => message.be32(6, kind).be32(7, length),
        None => message,
    };
    let message = match set.parts {
        [] => message,
        parts => message.nest(9, |m| {
            m.nest(2, |m| {
                parts
                    .iter()
                    .fold(m, |m, length| m.nest(1, |m| m.be32(1, *length)))
            })
        }),
    };
    let message = message.be32(10, id);
    if set.key_type == TYPE_IFNAME {
        // For `nft list` alone: names are in the machine's byte order (type 0, four bytes, value 1).
        let host_order = [&[0, 4][..], &1u32.to_ne_bytes()].concat();
        return message.bytes(13, &host_order);
    }
    message
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) set: &'static str,
    pub(crate) key: Vec<u8>,
    /// The last key of the range, where keys have several parts.
    pub(crate) last_key: Option<Vec<u8>>,
    pub(crate) data: Option<Vec<u8>>,
    /// It ends the range that the element before it begins.
    pub(crate) ends_range: bool,
}

/// Requests that add (or remove) elements, grouped by set, each small enough for an attribute's length.
pub(crate) fn elements(table: &str, add: bool, elements: &[Element]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = elements;
    while let Some(first) = rest.first() {
        let run = rest.iter().take(400).take_while(|e| e.set == first.set).count();
        let (batch, behind) = rest.split_at(run);
        rest = behind;
        let (kind, flags) = if add {
            (NEWSETELEM, flags::CREATE)
        } else {
            (DELSETELEM, 0)
        };
        messages.push(
            Message::nftables(kind, flags, INET)
                .string(1, table)
                .string(2, first.set)
                .nest(3, |mut m| {
                    for element in batch {
                        m = m.nest(1, |m| {
                            let m = m.nest(1, |m| m.bytes(1, &element.key));
                            let m = match &element.last_key {
                                Some(key) => m.nest(10, |m| m.bytes(1, key)),
                                None => m,
                            };
                            let m = match &element.data {
                                Some(data) if add => m.nest(2, |m| m.bytes(1, data)),
                                _ => m,
                            };
                            if element.ends_range {
                                m.be32(3, ELEMENT_INTERVAL_END)
                            } else {
                                m
                            }
                        });
                    }
                    m
                }),
        );
    }
    messages
}

/// The request for everything in a set.
pub(crate) fn list_elements(table: &str, set: &str) -> Message {
    Message::nftables(GETSETELEM, 0, INET)
        .string(1, table)
        .string(2, set)
}

/// The request for the rules of all chains.
pub(crate) fn list_rules(table: &str) -> Message {
    Message::nftables(GETRULE, 0, INET).string(1, table)
}

/// The elements in one answer to [`list_elements`].
pub(crate) fn read_elements(set: &'static str, reply: &Reply) -> Vec<Element> {
    let list = reply.attributes(NFGENMSG).get(3).unwrap_or_default();
    let value = |element: &Attributes<'_>, kind| Some(Attributes::of(element.get(kind)?).get(1)?.to_vec());
    let read = |payload: &[u8]| {
        let element = Attributes::of(payload);
        let flags = element.get(3).and_then(|bytes| bytes.try_into().ok());
        Some(Element {
            set,
            key: value(&element, 1)?,
            last_key: value(&element, 10),
            data: value(&element, 2),
            ends_range: flags.is_some_and(|bytes| u32::from_be_bytes(bytes) & ELEMENT_INTERVAL_END != 0),
        })
    };
    Attributes::of(list)
        .filter_map(|(_, payload)| read(payload))
        .collect()
}

/// What a rule does with a packet it matches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
}

/// A rule under construction: expressions in order.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    expressions: Vec<Message>,
}

impl Rule {
    pub(crate) fn new() -> Rule {
        Rule {
            expressions: Vec::new(),
        }
    }

    fn add(mut self, name: &str, fill: impl FnOnce(Message) -> Message) -> Rule {
        let body = Message::new(0, 0, &[]).nest(1, |m| m.string(1, name).nest(2, fill));
        self.expressions.push(body);
        self
    }

    fn compare(self, register: u32, equal: bool, value: &[u8]) -> Rule {
        self.add("cmp", |m| {
            m.be32(1, register)
                .be32(2, u32::from(!equal))
                .nest(3, |m| m.bytes(1, value))
        })
    }

    fn meta(self, key: u32, register: u32) -> Rule {
        self.add("meta", |m| m.be32(1, register).be32(2, key))
    }

    fn payload(self, base: u32, offset: u32, length: u32, register: u32) -> Rule {
        self.add("payload", |m| {
            m.be32(1, register).be32(2, base).be32(3, offset).be32(4, length)
        })
    }

    fn lookup(self, set: &str, register: u32, into: Option<u32>, inverted: bool) -> Rule {
        self.add("lookup", |m| {
            let m = m.string(1, set).be32(2, register);
            let m = match into {
                Some(register) => m.be32(3, register),
                None => m,
            };
            if inverted { m.be32(5, 1) } else { m }
        })
    }

    /// Only packets of this family.
    pub(crate) fn family(self, family: u8) -> Rule {
        self.meta(15, R0).compare(R0, true, &[family])
    }

    /// The incoming interface is in the set (or is not).
    pub(crate) fn incoming(self, set: &str, inside: bool) -> Rule {
        self.meta(6, R0).lookup(set, R0, None, !inside)
    }

    /// The outgoing interface is in the set (or is not).
    pub(crate) fn outgoing(self, set: &str, inside: bool) -> Rule {
        self.meta(7, R0).lookup(set, R0, None, !inside)
    }

    /// Incoming and outgoing interface together are in the set.
    pub(crate) fn passing(self, set: &str) -> Rule {
        self.meta(6, R0).meta(7, R4).lookup(set, R0, None, false)
    }

    /// The first byte of the IPv4 source (offset 12) or destination (16) is 127.
    pub(crate) fn loopback_ipv4(self, offset: u32) -> Rule {
        self.family(NFPROTO_IPV4)
            .payload(1, offset, 1, R0)
            .compare(R0, true, &[127])
    }

    /// The IPv6 source (offset 8) or destination (24) is ::1.
    pub(crate) fn loopback_ipv6(self, offset: u32) -> Rule {
        let one = std::net::Ipv6Addr::LOCALHOST.octets();
        self.family(NFPROTO_IPV6)
            .payload(1, offset, 16, R0)
            .compare(R0, true, &one)
    }

    /// The source address is in the set.
    pub(crate) fn source(self, family: u8, set: &str) -> Rule {
        let (offset, length) = if family == NFPROTO_IPV4 { (12, 4) } else { (8, 16) };
        self.family(family)
            .payload(1, offset, length, R0)
            .lookup(set, R0, None, false)
    }

    /// The destination address is in the set.
    pub(crate) fn destination(self, family: u8, set: &str) -> Rule {
        let (offset, length) = if family == NFPROTO_IPV4 { (16, 4) } else { (24, 16) };
        self.family(family)
            .payload(1, offset, length, R0)
            .lookup(set, R0, None, false)
    }

    /// The IPv4 address at this offset, and transport and port at theirs, are these; for a table of IPv4 alone. Most
    /// packets end at the address, so it comes first.
    pub(crate) fn end_ipv4(self, end: End, address: std::net::Ipv4Addr, protocol: u8, port: u16) -> Rule {
        let (address_offset, port_offset) = match end {
            End::Source => (12, 0),
            End::Destination => (16, 2),
        };
        self.payload(1, address_offset, 4, R0)
            .compare(R0, true, &address.octets())
            .protocol(protocol)
            .payload(2, port_offset, 2, R0)
            .compare(R0, true, &port.to_be_bytes())
    }

    /// Writes another port into the packet's header, of TCP or UDP, and corrects the checksum for it.
    pub(crate) fn set_port(self, end: End, protocol: u8, port: u16) -> Rule {
        let (transport_header, length, internet_checksum) = (2, 2, 1);
        let offset = match end {
            End::Source => 0,
            End::Destination => 2,
        };
        let checksum_offset = if protocol == TCP { 16 } else { 6 };
        self.immediate(R0, &port.to_be_bytes()).add("payload", |m| {
            m.be32(5, R0)
                .be32(2, transport_header)
                .be32(3, offset)
                .be32(4, length)
                .be32(6, internet_checksum)
                .be32(7, checksum_offset)
        })
    }

    /// The packet is of this protocol.
    pub(crate) fn protocol(self, protocol: u8) -> Rule {
        self.meta(16, R0).compare(R0, true, &[protocol])
    }

    /// Protocol, destination address and destination port together are in the set.
    pub(crate) fn open(self, family: u8, set: &str) -> Rule {
        let (rule, _) = self.port_key(family, true);
        rule.lookup(set, R0, None, false)
    }

    /// The destination is an address of this host.
    pub(crate) fn for_this_host(self) -> Rule {
        let (result_address_type, destination, local) = (3, 2, 2u32);
        self.add("fib", |m| {
            m.be32(1, R0).be32(2, result_address_type).be32(3, destination)
        })
        .compare(R0, true, &local.to_ne_bytes())
    }

    /// Any of these bits of conntrack's word `key` is set.
    fn conntrack(self, key: u32, bits: u32) -> Rule {
        self.add("ct", |m| m.be32(1, R0).be32(2, key))
            .bits(R0, bits, 0)
            .compare(R0, false, &[0; 4])
    }

    /// The packet belongs to a connection that was let through before.
    pub(crate) fn established(self) -> Rule {
        let (state, established_or_related) = (0, 0x2 | 0x4);
        self.conntrack(state, established_or_related)
    }

    /// The connection's destination was rewritten, which is to say: it came to a published port.
    pub(crate) fn translated(self) -> Rule {
        let (status, destination_nat) = (2, 1 << 5);
        self.conntrack(status, destination_nat)
    }

    /// Rewrites the destination to what the map says; packets the map does not know pass on.
    pub(crate) fn publish(self, family: u8, with_address: bool, map: &str) -> Rule {
        let (rule, length) = self.port_key(family, with_address);
        // Data: address, then port.
        rule.lookup(map, R0, Some(R0), false)
            .translate(family, R0, Some(R0 + length / 4))
    }

    /// Protocol, then the address if the map has it, then the port; one after the other in the registers. Gives the
    /// length of an address besides.
    fn port_key(self, family: u8, with_address: bool) -> (Rule, u32) {
        let (offset, length) = if family == NFPROTO_IPV4 { (16, 4) } else { (24, 16) };
        let rule = self.family(family).meta(16, R0);
        let rule = if with_address {
            let behind = R1 + length / 4;
            rule.payload(1, offset, length, R1).payload(2, 2, 2, behind)
        } else {
            rule.payload(2, 2, 2, R1)
        };
        (rule, length)
    }

    /// Rewrites the destination's address to what the map of ranges says; the port stays.
    pub(crate) fn publish_range(self, family: u8, map: &str) -> Rule {
        let (rule, _) = self.port_key(family, true);
        rule.lookup(map, R0, Some(R0), false).translate(family, R0, None)
    }

    fn immediate(self, register: u32, value: &[u8]) -> Rule {
        self.add("immediate", |m| {
            m.be32(1, register).nest(2, |m| m.bytes(1, value))
        })
    }

    fn translate(self, family: u8, address: u32, port: Option<u32>) -> Rule {
        let destination = 1;
        self.rewrite(destination, family, address, port)
    }

    fn rewrite(self, end: u32, family: u8, address: u32, port: Option<u32>) -> Rule {
        self.add("nat", |m| {
            let m = m.be32(1, end).be32(2, u32::from(family)).be32(3, address);
            match port {
                Some(port) => m.be32(5, port),
                None => m,
            }
        })
    }

    /// Rewrites the source's address to what the map of sources says; packets the map does not know pass on.
    pub(crate) fn send_from(self, family: u8, map: &str) -> Rule {
        let (offset, length) = if family == NFPROTO_IPV4 { (12, 4) } else { (8, 16) };
        let source = 0;
        self.family(family)
            .payload(1, offset, length, R0)
            .lookup(map, R0, Some(R0), false)
            .rewrite(source, family, R0, None)
    }

    /// Gives the packet the address of the interface it leaves by.
    pub(crate) fn masquerade(self) -> Rule {
        self.add("masq", |m| m)
    }

    pub(crate) fn verdict(self, verdict: Verdict) -> Rule {
        let (code, chain) = match verdict {
            Verdict::Drop => (0i32, None),
            Verdict::Accept => (1, None),
            Verdict::Return => (-5, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
        };
        let verdict_register = 0;
        self.add("immediate", |m| {
            m.be32(1, verdict_register).nest(2, |m| {
                m.nest(2, |m| {
                    let m = m.be32(1, code as u32);
                    match chain {
                        Some(chain) => m.string(2, chain),
                        None => m,
                    }
                })
            })
        })
    }

    /// These bits of the packet's mark are set.
    pub(crate) fn marked(self, bits: u32) -> Rule {
        self.meta(MARK, R0).bits(R0, bits, 0).compare(R0, false, &[0; 4])
    }

    /// Sets these bits of the packet's mark.
    pub(crate) fn mark(self, bits: u32) -> Rule {
        self.meta(MARK, R0).bits(R0, !bits, bits).set_meta(MARK, R0)
    }

    /// Clears these bits of the packet's mark.
    pub(crate) fn unmark(self, bits: u32) -> Rule {
        self.meta(MARK, R0).bits(R0, !bits, 0).set_meta(MARK, R0)
    }

    /// Register = (register & mask) ^ flip.
    fn bits(self, register: u32, mask: u32, flip: u32) -> Rule {
        self.add("bitwise", |m| {
            m.be32(1, register)
                .be32(2, register)
                .be32(3, 4)
                .nest(4, |m| m.bytes(1, &mask.to_ne_bytes()))
                .nest(5, |m| m.bytes(1, &flip.to_ne_bytes()))
        })
    }

    fn set_meta(self, key: u32, register: u32) -> Rule {
        self.add("meta", |m| m.be32(2, key).be32(3, register))
    }

    /// Sends a copy to a neighbour over the link of this index.
    pub(crate) fn copy_to(self, neighbour: &[u8], link: u32) -> Rule {
        let behind = R0 + neighbour.len() as u32 / 4;
        self.immediate(R0, neighbour)
            .immediate(behind, &link.to_ne_bytes())
            .add("dup", |m| m.be32(1, R0).be32(2, behind))
    }

    /// The packet is for a port that the map knows.
    pub(crate) fn publishes(self, family: u8, with_address: bool, map: &str) -> Rule {
        let (rule, _) = self.port_key(family, with_address);
        // A map is looked up into registers, which nobody reads here.
        rule.lookup(map, R0, Some(R0), false)
    }

    /// The request that appends the rule to a chain of a table of one family.
    pub(crate) fn into_message_of_family(self, family: u8, table: &str, chain: &str) -> Message {
        self.append(family, table, chain)
    }

    /// The request that appends the rule to a chain.
    pub(crate) fn into_message(self, table: &str, chain: &str) -> Message {
        self.append(INET, table, chain)
    }

    fn append(self, family: u8, table: &str, chain: &str) -> Message {
        Message::nftables(NEWRULE, flags::CREATE | flags::APPEND, family)
            .string(1, table)
            .string(2, chain)
            .nest(4, |mut m| {
                for expression in &self.expressions {
                    m = m.raw(expression.body());
                }
                m
            })
    }
}
