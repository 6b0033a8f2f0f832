//! Docker's json-file entries: written in one pass, and read back.
//!
//! Escaping is Docker's: `"`, `\`, newline and carriage return have short forms; other control characters, `<`, `>`,
//! `&` and the two Unicode line separators become `\u` forms; what is not UTF-8 becomes U+FFFD.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::LogLine;
use super::lines::{Entry, Stream};
use crate::timestamp;

/// Writes entries that all carry the same attributes.
#[derive(Debug)]
pub(super) struct Encoder {
    /// `"attrs":{…},`
    attributes: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(attributes: &BTreeMap<String, String>) -> Self {
        let mut out = Vec::new();
        if let (false, Ok(text)) = (attributes.is_empty(), serde_json::to_string(attributes)) {
            out.extend_from_slice(b"\"attrs\":");
            out.extend_from_slice(text.as_bytes());
            out.push(b',');
        }
        Self { attributes: out }
    }

    pub(super) fn append(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"log\":\"");
        escape(entry.text, out);
        if entry.ends_line() {
            out.extend_from_slice(b"\\n");
        }
        out.extend_from_slice(match entry.stream {
            Stream::Stdout => b"\",\"stream\":\"stdout\",",
            Stream::Stderr => b"\",\"stream\":\"stderr\",",
        });
        out.extend_from_slice(&self.attributes);
        out.extend_from_slice(b"\"time\":\"");
        timestamp::append(entry.time, out);
        out.extend_from_slice(b"\"}\n");
    }
}

fn escape(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let mut rest = text;
    loop {
        let plain = rest
            .iter()
            .position(|byte| SPECIAL[usize::from(*byte)])
            .unwrap_or(rest.len());
        let (run, tail) = rest.split_at(plain);
        out.extend_from_slice(run);
        let Some(&byte) = tail.first() else { return };
        let mut taken = 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..=0x7f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => match first_character(tail) {
                Some('\u{2028}') => {
                    out.extend_from_slice(b"\\u2028");
                    taken = 3;
                }
                Some('\u{2029}') => {
                    out.extend_from_slice(b"\\u2029");
                    taken = 3;
                }
                Some(character) => {
                    taken = character.len_utf8();
                    out.extend_from_slice(tail.get(..taken).unwrap_or_default());
                }
                None => out.extend_from_slice(b"\\ufffd"),
            },
        }
        rest = tail.get(taken..).unwrap_or_default();
    }
}

fn first_character(bytes: &[u8]) -> Option<char> {
    let head = bytes.get(..bytes.len().min(4)).unwrap_or_default();
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?,
    };
    valid.chars().next()
}

/// Bytes that are not written as they are.
static SPECIAL: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte < 0x20 || byte >= 0x80;
        byte += 1;
    }
    table[b'"' as usize] = true;
    table[b'\\' as usize] = true;
    table[b'<' as usize] = true;
    table[b'>' as usize] = true;
    table[b'&' as usize] = true;
    table
};

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
    #[serde(borrow)]
    stream: Cow<'a, str>,
    time: Timestamp,
    #[serde(default)]
    attrs: Option<BTreeMap<String, String>>,
}

/// The entry of a line, or nothing when it is none (torn by a crash or a full disk).
pub(super) fn decode(line: &[u8]) -> Option<LogLine> {
    let wire: Wire<'_> = serde_json::from_slice(line).ok()?;
    let stream = Stream::of(&wire.stream)?;
    let bytes = wire.log.into_owned().into_bytes();
    let partial = bytes.last() != Some(&b'\n');
    Some(LogLine {
        time: wire.time,
        stream,
        bytes,
        partial,
        attributes: wire.attrs.unwrap_or_default(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::lines::Partial;
    use super::*;

    fn encode(text: &[u8], attributes: &[(&str, &str)], partial: Option<Partial>) -> String {
        let attributes = attributes
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        let mut out = Vec::new();
        let entry = Entry {
            stream: Stream::Stdout,
            time: 1_763_933_164_938_190_936,
            text,
            partial,
        };
        Encoder::new(&attributes).append(&entry, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_form_is_dockers() {
        assert_eq!(
            encode(b"hi", &[], None),
            "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"2025-11-23T21:26:04.938190936Z\"}\n"
        );
        assert_eq!(
            encode("a\t\"\\<>&\r\u{2028}é\u{7f}".as_bytes(), &[("tag", "x")], None),
            "{\"log\":\"a\\u0009\\\"\\\\\\u003c\\u003e\\u0026\\r\\u2028é\u{7f}\\n\",\"stream\":\"stdout\",\
             \"attrs\":{\"tag\":\"x\"},\"time\":\"2025-11-23T21:26:04.938190936Z\"}\n"
        );
        let piece = Partial {
            id: "i".into(),
            ordinal: 1,
            last: false,
        };
        assert!(encode(b"a", &[], Some(piece.clone())).starts_with("{\"log\":\"a\",\"s"));
        let last = Partial { last: true, ..piece };
        assert!(encode(b"a", &[], Some(last)).starts_with("{\"log\":\"a\\n\",\"s"));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_not_text_is_replaced() {
        let text = "plain é ✓ 🦀 \u{2029} \u{1}\"".as_bytes();
        let line = decode(encode(text, &[("a", "b")], None).trim_end().as_bytes()).unwrap();
        assert_eq!(line.bytes, [text, b"\n"].concat());
        assert_eq!(line.attributes["a"], "b");
        let line = decode(encode(b"a\xff\xe2\x82b", &[], None).trim_end().as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(line.bytes).unwrap(),
            "a\u{fffd}\u{fffd}\u{fffd}b\n"
        );
    }

    #[test]
    fn torn_lines_are_no_entries() {
        for line in [
            "",
            "{\"log\":\"a",
            "{}",
            "{\"log\":\"a\",\"stream\":\"x\",\"time\":\"2025-01-01T00:00:00Z\"}",
        ] {
            assert!(decode(line.as_bytes()).is_none(), "{line}");
        }
    }
}
