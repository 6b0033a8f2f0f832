//! Docker's `local` entries, which are also what travels to a forwarder: a protocol buffer message between two
//! copies of its length (4 bytes, big endian), so that a file can be read from either end.
//!
//! ```text
//!   message LogEntry { string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4;
//!                      PartialLogEntryMetadata partial_log_metadata = 5; }
//!   message PartialLogEntryMetadata { bool last = 1; string id = 2; int32 ordinal = 3; }
//! ```
//!
//! The text has no newline; an entry ends its line unless it is a piece that is not the last.

use super::lines::{Entry, Partial, Stream};

/// Bytes of the length, before and after.
pub(crate) const LENGTH: usize = 4;
/// No entry is longer: the longest line that may be asked for, and room for the rest.
const MOST: usize = (16 << 20) + 1024;

const SOURCE: u8 = 1 << 3 | 2;
const TIME: u8 = 2 << 3;
const LINE: u8 = 3 << 3 | 2;
const PARTIAL: u8 = 4 << 3;
const METADATA: u8 = 5 << 3 | 2;

/// Appends a framed entry.
pub(crate) fn append(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH]);
    let source = entry.stream.name().as_bytes();
    out.push(SOURCE);
    varint(source.len() as u64, out);
    out.extend_from_slice(source);
    out.push(TIME);
    varint(entry.time, out);
    out.push(LINE);
    varint(entry.text.len() as u64, out);
    out.extend_from_slice(entry.text);
    if let Some(partial) = &entry.partial {
        out.extend_from_slice(&[PARTIAL, 1]);
        let mut inner = Vec::with_capacity(80);
        if partial.last {
            inner.extend_from_slice(&[1 << 3, 1]);
        }
        inner.push(2 << 3 | 2);
        varint(partial.id.len() as u64, &mut inner);
        inner.extend_from_slice(partial.id.as_bytes());
        inner.push(3 << 3);
        varint(u64::from(partial.ordinal), &mut inner);
        out.push(METADATA);
        varint(inner.len() as u64, out);
        out.extend_from_slice(&inner);
    }
    let length = u32::try_from(out.len() - start - LENGTH)
        .unwrap_or(u32::MAX)
        .to_be_bytes();
    if let Some(slot) = out.get_mut(start..start + LENGTH) {
        slot.copy_from_slice(&length);
    }
    out.extend_from_slice(&length);
}

/// What the beginning of some bytes is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Framed<'a> {
    /// A whole entry; its message, and its bytes with both lengths.
    Entry(&'a [u8], usize),
    /// Not all of it is there.
    Short,
    /// No entry begins here.
    Damaged,
}

pub(crate) fn first(bytes: &[u8]) -> Framed<'_> {
    let Some(length) = length_at(bytes, 0) else {
        return Framed::Short;
    };
    if length > MOST {
        return Framed::Damaged;
    }
    match (
        bytes.get(LENGTH..LENGTH + length),
        length_at(bytes, LENGTH + length),
    ) {
        (Some(message), Some(after)) if after == length => Framed::Entry(message, length + 2 * LENGTH),
        (Some(_), Some(_)) => Framed::Damaged,
        _ => Framed::Short,
    }
}

/// The length that stands at a place.
pub(super) fn length_at(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; LENGTH] = bytes.get(at..at + LENGTH)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(bytes)).ok()
}

/// Reads a message; nothing when it is none.
pub(crate) fn decode(message: &[u8]) -> Option<Entry<'_>> {
    let mut entry = Entry {
        stream: Stream::Stdout,
        time: 0,
        text: &[],
        partial: None,
    };
    let mut known = false;
    let mut rest = message;
    while !rest.is_empty() {
        let (field, value, after) = field(rest)?;
        rest = after;
        match (field, value) {
            (1, Value::Bytes(name)) => {
                entry.stream = Stream::of(std::str::from_utf8(name).ok()?)?;
                known = true;
            }
            (2, Value::Number(time)) => entry.time = time,
            (3, Value::Bytes(text)) => entry.text = text,
            (5, Value::Bytes(inner)) => entry.partial = Some(metadata(inner)?),
            // Fields of later versions.
            _ => {}
        }
    }
    known.then_some(entry)
}

fn metadata(message: &[u8]) -> Option<Partial> {
    let mut partial = Partial {
        id: String::new(),
        ordinal: 0,
        last: false,
    };
    let mut rest = message;
    while !rest.is_empty() {
        let (field, value, after) = field(rest)?;
        rest = after;
        match (field, value) {
            (1, Value::Number(last)) => partial.last = last != 0,
            (2, Value::Bytes(id)) => partial.id = String::from_utf8(id.to_vec()).ok()?,
            (3, Value::Number(ordinal)) => partial.ordinal = u32::try_from(ordinal).ok()?,
            _ => {}
        }
    }
    Some(partial)
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Number, value and what follows of the first field. Only the two kinds that occur are read.
fn field(bytes: &[u8]) -> Option<(u64, Value<'_>, &[u8])> {
    let (key, rest) = read_varint(bytes)?;
    let (number, after) = read_varint(rest)?;
    match key & 7 {
        0 => Some((key >> 3, Value::Number(number), after)),
        2 => {
            let length = usize::try_from(number).ok()?;
            Some((key >> 3, Value::Bytes(after.get(..length)?), after.get(length..)?))
        }
        _ => None,
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        #[allow(clippy::cast_possible_truncation)]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[allow(clippy::cast_possible_truncation)]
    out.push(value as u8);
}

fn read_varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f).checked_shl(u32::try_from(at).ok()? * 7)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entry(text: &[u8], partial: Option<Partial>) -> Entry<'_> {
        Entry {
            stream: Stream::Stderr,
            time: 1_763_933_164_938_190_936,
            text,
            partial,
        }
    }

    #[test]
    fn the_bytes_are_the_ones_docker_writes() {
        let mut out = Vec::new();
        let small = Entry {
            stream: Stream::Stdout,
            time: 300,
            text: b"hi",
            partial: None,
        };
        append(&small, &mut out);
        let message = b"\x0a\x06stdout\x10\xac\x02\x1a\x02hi";
        assert_eq!(out, [&[0, 0, 0, 15], &message[..], &[0, 0, 0, 15]].concat());
    }

    #[test]
    fn what_is_written_is_read() {
        let partial = Partial {
            id: "ab".repeat(32),
            ordinal: 300,
            last: true,
        };
        for entry in [
            entry(b"", None),
            entry(b"x\xff\n", None),
            entry(&[7; 70_000], Some(partial)),
        ] {
            let mut out = Vec::new();
            append(&entry, &mut out);
            let length = out.len();
            out.extend_from_slice(b"\0\0");
            let Framed::Entry(message, taken) = first(&out) else {
                unreachable!()
            };
            assert_eq!(taken, length);
            assert_eq!(decode(message).unwrap(), entry);
            for short in [0, 3, 4, length - 1] {
                assert_eq!(first(&out[..short]), Framed::Short);
            }
        }
    }

    #[test]
    fn damage_is_noticed() {
        let mut out = Vec::new();
        append(&entry(b"hello", None), &mut out);
        *out.last_mut().unwrap() += 1;
        assert_eq!(first(&out), Framed::Damaged);
        assert_eq!(first(&[0xff; 8]), Framed::Damaged);
        assert!(decode(b"\x0a\x50stdout").is_none());
        assert!(decode(b"").is_none());
    }
}
