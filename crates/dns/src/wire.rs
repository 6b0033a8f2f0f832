//! Domain messages as bytes: the question of a query, and the answers this resolver gives (RFC 1035 §4).
//!
//! Only what is needed to decide and to answer is parsed; a forwarded message stays the bytes it was. All lengths
//! come from strangers: every access is checked, and a query that does not hold together is an [`Unreadable`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Record types (RFC 1035, 3596, 6891).
pub(crate) const A: u16 = 1;
pub(crate) const PTR: u16 = 12;
pub(crate) const AAAA: u16 = 28;
const OPT: u16 = 41;
const ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// Response codes.
pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const FORMAT_ERROR: u8 = 1;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NOT_IMPLEMENTED: u8 = 4;
pub(crate) const REFUSED: u8 = 5;

/// Seconds an answer may be kept, Docker's value.
const TTL: u32 = 600;
const HEADER: usize = 12;
/// What every client can take over UDP, and the most we send to one that offers more.
const UDP_MINIMUM: usize = 512;
const UDP_MAXIMUM: usize = 4096;

/// Why a datagram is no query we can answer by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Not even a header, or not a query: nothing is sent back.
    Silent,
    /// A header without a question that makes sense; answered with this code.
    Answer(u8),
}

/// A query's question and what limits its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    /// Lower-case, dots between labels, no dot at the end; `None` when the name has bytes no host name has.
    pub(crate) name: Option<String>,
    /// The record type.
    pub(crate) kind: u16,
    /// Whether the class is the internet's.
    pub(crate) internet: bool,
    /// Where the question section ends.
    end: usize,
    /// The client's EDNS0 payload size, if it sent one.
    edns: Option<u16>,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The transaction number.
pub(crate) fn id(message: &[u8]) -> Option<u16> {
    be16(message, 0)
}

/// Replaces the transaction number.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.get_mut(..2) {
        field.copy_from_slice(&id.to_be_bytes());
    }
}

/// The response code of a response.
pub(crate) fn response_code(message: &[u8]) -> Option<u8> {
    message.get(3).map(|flags| flags & 0x0f)
}

/// Reads an uncompressed name at `at`; gives the position behind it.
fn name(message: &[u8], mut at: usize) -> Option<(Option<String>, usize)> {
    let mut text = String::new();
    let mut plain = true;
    let start = at;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // Two high bits mark a compression pointer, which has nothing to point at in a question.
        // The end of the name is one octet more, and 255 are the most (RFC 1035 §2.3.4).
        if length > 63 || at - start + length > 254 {
            return None;
        }
        let label = message.get(at..at + length)?;
        at += length;
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in label {
            plain &= byte.is_ascii_graphic() && byte != b'.';
            text.push(char::from(byte.to_ascii_lowercase()));
        }
    }
    Some((plain.then_some(text), at))
}

/// Passes over a name in a record, compressed or not.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some(at + 1),
            1..=63 => at += 1 + usize::from(length),
            192..=255 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// The EDNS0 payload size, if an OPT record is among the records behind the question.
fn edns_size(message: &[u8], mut at: usize) -> Option<u16> {
    let records = (6..12)
        .step_by(2)
        .map(|offset| usize::from(be16(message, offset).unwrap_or(0)))
        .sum::<usize>();
    for _ in 0..records.min(16) {
        at = skip_name(message, at)?;
        let kind = be16(message, at)?;
        let class = be16(message, at + 2)?;
        if kind == OPT {
            return Some(class);
        }
        at += 10 + usize::from(be16(message, at + 8)?);
    }
    None
}

/// Reads a query.
pub(crate) fn question(message: &[u8]) -> Result<Question, Unreadable> {
    let flags = be16(message, 2).ok_or(Unreadable::Silent)?;
    // A response is never answered: two resolvers would talk to each other for ever.
    if flags & 0x8000 != 0 || message.len() < HEADER {
        return Err(Unreadable::Silent);
    }
    if flags & 0x7800 != 0 {
        return Err(Unreadable::Answer(NOT_IMPLEMENTED));
    }
    let malformed = Unreadable::Answer(FORMAT_ERROR);
    if be16(message, 4) != Some(1) {
        return Err(malformed);
    }
    let (name, at) = name(message, HEADER).ok_or(malformed)?;
    let kind = be16(message, at).ok_or(malformed)?;
    let class = be16(message, at + 2).ok_or(malformed)?;
    let end = at + 4;
    Ok(Question {
        name,
        kind,
        internet: class == CLASS_IN || class == ANY,
        end,
        edns: edns_size(message, end),
    })
}

/// Whether `response` is one to `query`: a response, same number, same question but for case.
pub(crate) fn answers(response: &[u8], query: &[u8], question: &Question, id: u16) -> bool {
    self::id(response) == Some(id)
        && response.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && match (
            response.get(HEADER..question.end),
            query.get(HEADER..question.end),
        ) {
            (Some(a), Some(b)) => be16(response, 4) == Some(1) && a.eq_ignore_ascii_case(b),
            _ => false,
        }
}

/// What stands in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR.
    Name(String),
}

/// The largest datagram the asker takes.
pub(crate) fn udp_limit(question: &Question) -> usize {
    question.edns.map_or(UDP_MINIMUM, |size| {
        usize::from(size).clamp(UDP_MINIMUM, UDP_MAXIMUM)
    })
}

/// Builds a response of at most `limit` bytes; what does not fit is left out and the truncation bit set (RFC 2181 §9).
pub(crate) fn respond(
    query: &[u8],
    question: Option<&Question>,
    code: u8,
    data: &[Data],
    limit: usize,
) -> Vec<u8> {
    let end = question.map_or(HEADER, |q| q.end);
    let mut out = query
        .get(..end)
        .or(query.get(..HEADER))
        .unwrap_or_default()
        .to_vec();
    out.resize(out.len().max(HEADER), 0);
    // QR, and the asker's opcode and RD; then RA and the code.
    let flags = [0x80 | (out[2] & 0x79), 0x80 | (code & 0x0f)];
    out[2..4].copy_from_slice(&flags);
    out[4..6].copy_from_slice(&u16::from(question.is_some()).to_be_bytes());
    out[6..12].fill(0);

    let edns: &[u8] = match question.and_then(|q| q.edns) {
        // Root name, OPT, our payload size, no flags, no data.
        Some(_) => &[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0],
        None => &[],
    };
    let mut count = 0u16;
    for item in data {
        let mark = out.len();
        record(&mut out, item);
        if out.len() + edns.len() > limit {
            out.truncate(mark);
            out[2] |= 0x02;
            break;
        }
        count += 1;
    }
    out[6..8].copy_from_slice(&count.to_be_bytes());
    if !edns.is_empty() {
        out.extend_from_slice(edns);
        out[10..12].copy_from_slice(&1u16.to_be_bytes());
    }
    out
}

fn record(out: &mut Vec<u8>, data: &Data) {
    let (kind, payload) = match data {
        Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
        Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
        Data::Name(name) => (PTR, encode(name)),
    };
    // The owner is the question's name, which stands right behind the header.
    out.extend_from_slice(&[0xc0, HEADER as u8]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out.extend_from_slice(&TTL.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    out.extend_from_slice(&payload);
}

/// A name as labels. Labels longer than the format allows are cut, since our own tables never hold such.
fn encode(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        if out.len() + label.len() + 2 > 255 {
            break;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label);
    }
    out.push(0);
    out
}

/// The address a reverse name asks about (`4.3.2.1.in-addr.arpa`, nibbles under `ip6.arpa`).
pub(crate) fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(rest) = name.strip_suffix(".in-addr.arpa") {
        let mut octets = [0u8; 4];
        let mut parts = rest.split('.');
        for octet in octets.iter_mut().rev() {
            *octet = parts.next()?.parse().ok()?;
        }
        return parts
            .next()
            .is_none()
            .then_some(IpAddr::V4(Ipv4Addr::from(octets)));
    }
    let rest = name.strip_suffix(".ip6.arpa")?;
    let mut value = 0u128;
    let mut nibbles = 0u32;
    for part in rest.split('.') {
        if part.len() != 1 || nibbles == 32 {
            return None;
        }
        let digit = u128::from(u8::from_str_radix(part, 16).ok()?);
        value |= digit << (4 * nibbles);
        nibbles += 1;
    }
    (nibbles == 32).then_some(IpAddr::V6(Ipv6Addr::from(value)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A query with recursion desired.
    pub(crate) fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0x12, 0x34, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend_from_slice(&encode(name));
        out.extend_from_slice(&kind.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out
    }

    #[test]
    fn another_implementation_reads_our_answers() {
        let query = query("Web.Example", A);
        let question = question(&query).unwrap();
        assert_eq!(question.name.as_deref(), Some("web.example"));
        let data = [
            Data::Address("10.0.0.1".parse().unwrap()),
            Data::Address("10.0.0.2".parse().unwrap()),
        ];
        let response = respond(&query, Some(&question), NO_ERROR, &data, 512);
        let packet = simple_dns::Packet::parse(&response).unwrap();
        assert_eq!(packet.id(), 0x1234);
        assert_eq!(packet.answers.len(), 2);
        assert_eq!(packet.answers[0].ttl, 600);
        assert!(answers(&response, &query, &question, 0x1234));
        assert!(!answers(&response, &query, &question, 0x1235));
        assert!(!answers(&query, &query, &question, 0x1234));
    }

    #[test]
    fn pointer_records_and_reverse_names() {
        assert_eq!(
            reverse_address("4.3.2.1.in-addr.arpa"),
            Some("1.2.3.4".parse().unwrap())
        );
        assert_eq!(reverse_address("4.3.2.in-addr.arpa"), None);
        assert_eq!(reverse_address("5.4.3.2.1.in-addr.arpa"), None);
        let v6 = "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert_eq!(reverse_address(v6), Some("2001:db8::567:89ab".parse().unwrap()));
        let query = query("4.3.2.1.in-addr.arpa", PTR);
        let question = question(&query).unwrap();
        let response = respond(
            &query,
            Some(&question),
            NO_ERROR,
            &[Data::Name("web.net".into())],
            512,
        );
        let packet = simple_dns::Packet::parse(&response).unwrap();
        let simple_dns::rdata::RData::PTR(pointer) = &packet.answers[0].rdata else {
            panic!("not a PTR")
        };
        assert_eq!(pointer.0.to_string(), "web.net");
    }

    #[test]
    fn long_answers_are_truncated_to_the_askers_size() {
        let data: Vec<Data> = (0..200u8)
            .map(|n| Data::Address(Ipv4Addr::new(10, 0, 0, n).into()))
            .collect();
        let plain = query("many", A);
        let asked = question(&plain).unwrap();
        let response = respond(&plain, Some(&asked), NO_ERROR, &data, udp_limit(&asked));
        assert!(response.len() <= 512 && response[2] & 0x02 != 0);
        assert!(!simple_dns::Packet::parse(&response).unwrap().answers.is_empty());

        let mut edns = plain.clone();
        edns[11] = 1;
        edns.extend_from_slice(&[0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
        let asked = question(&edns).unwrap();
        assert_eq!(udp_limit(&asked), 4096);
        let response = respond(&edns, Some(&asked), NO_ERROR, &data, udp_limit(&asked));
        assert_eq!(response[2] & 0x02, 0);
        let packet = simple_dns::Packet::parse(&response).unwrap();
        assert_eq!(packet.answers.len(), 200);
        assert!(packet.opt().is_some());
    }

    #[test]
    fn hostile_bytes_never_panic() {
        assert_eq!(question(&[]), Err(Unreadable::Silent));
        assert_eq!(question(&[0; 11]), Err(Unreadable::Silent));
        let base = query("a-name.with.labels", A);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        for round in 0..20_000usize {
            let mut bytes = base.clone();
            for _ in 0..(round % 5) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state >> 8) as usize % bytes.len();
                bytes[at] = state as u8;
            }
            bytes.truncate(bytes.len() - round % (base.len() + 1).min(bytes.len()));
            if let Ok(asked) = question(&bytes) {
                let _ = respond(&bytes, Some(&asked), NO_ERROR, &[Data::Name("x".into())], 512);
                let _ = answers(&base, &bytes, &asked, 1);
            }
            let _ = respond(&bytes, None, FORMAT_ERROR, &[], 512);
        }
        // A pointer in the question, and a label that runs past the end.
        let mut pointer = query("a", A);
        pointer[12] = 0xc0;
        assert_eq!(question(&pointer), Err(Unreadable::Answer(FORMAT_ERROR)));
        pointer[12] = 63;
        assert_eq!(question(&pointer), Err(Unreadable::Answer(FORMAT_ERROR)));
        // The longest name, and one that is longer.
        let of_length = |last: usize| {
            let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for length in [63, 63, 63, last] {
                query.push(length as u8);
                query.extend(std::iter::repeat_n(b'a', length));
            }
            query.extend([0, 0, 1, 0, 1]);
            query
        };
        assert!(question(&of_length(61)).is_ok());
        assert_eq!(question(&of_length(62)), Err(Unreadable::Answer(FORMAT_ERROR)));
    }

    /// A well-formed query with some bytes changed, cut or added: what gets furthest into a parser.
    fn mangled() -> impl Strategy<Value = Vec<u8>> {
        let labels = proptest::collection::vec("[a-zA-Z0-9_-]{1,63}", 0..6);
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
        let tail = proptest::collection::vec(any::<u8>(), 0..40);
        let cut = proptest::option::of(any::<prop::sample::Index>());
        (labels, any::<u16>(), changes, tail, cut).prop_map(|(labels, kind, changes, tail, cut)| {
            let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
            bytes.extend(encode(&labels.join(".")));
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 41, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
            bytes.extend(tail);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        })
    }

    /// Whatever comes, what is answered is bounded and belongs to it; what became of it.
    fn holds_together(message: &[u8], data: &[Data]) -> &'static str {
        match question(message) {
            Err(Unreadable::Silent) => "silence",
            Err(Unreadable::Answer(code)) => {
                // No more comes back than came: nobody is flooded over us.
                let response = respond(message, None, code, &[], usize::MAX);
                assert!(response.len() <= message.len().max(HEADER));
                if code == FORMAT_ERROR {
                    "a format error"
                } else {
                    "another error"
                }
            }
            Ok(asked) => {
                assert!(asked.end <= message.len());
                assert!(asked.name.as_ref().is_none_or(|name| name.len() <= 255));
                let limit = udp_limit(&asked);
                let response = respond(message, Some(&asked), NO_ERROR, data, limit);
                assert!(response.len() <= limit);
                assert!(answers(
                    &response,
                    message,
                    &asked,
                    id(message).unwrap_or_default()
                ));
                match (asked.name.is_some(), asked.internet, asked.edns.is_some()) {
                    (true, true, true) => "a name with a size",
                    (true, true, false) => "a name",
                    (true, false, _) => "a name of another class",
                    (false, ..) => "no host's name",
                }
            }
        }
    }

    /// Queries and answers as programs and servers send them.
    #[test]
    fn fuzz_query() {
        let words = [
            "\u{0}",
            "\u{3f}",
            "\u{1}a",
            "\u{0}\u{1}\u{0}\u{1}",
            "\u{0}\u{0}\u{29}",
            "\u{7f}",
        ];
        let data = [
            Data::Address(Ipv4Addr::LOCALHOST.into()),
            Data::Address(Ipv6Addr::LOCALHOST.into()),
            Data::Name("name.net".to_owned()),
        ];
        fuzz::target!("tests/corpus/query")
            .words(&words)
            .run(|message| holds_together(message, &data).to_owned());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_are_too_odd(message in proptest::collection::vec(any::<u8>(), 0..300)) {
            holds_together(&message, &[Data::Address(IpAddr::V4(Ipv4Addr::LOCALHOST))]);
        }

        #[test]
        fn nor_are_nearly_good_queries(message in mangled(), count in 0usize..600) {
            let data: Vec<Data> = (0..count)
                .map(|n| match n % 3 {
                    0 => Data::Address(Ipv4Addr::LOCALHOST.into()),
                    1 => Data::Address(Ipv6Addr::LOCALHOST.into()),
                    _ => Data::Name(format!("name{n}.net")),
                })
                .collect();
            holds_together(&message, &data);
        }
    }
}
