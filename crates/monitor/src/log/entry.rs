//! One entry of the log: made from raw output in one pass, and read back.
//!
//! Escaping is Docker's: `"`, `\`, newline and carriage return have short forms; other control characters, `<`, `>`,
//! `&` and the two Unicode line separators become `\u` forms; what is not UTF-8 becomes U+FFFD.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::timestamp;

/// Most bytes of output in one entry.
pub(super) const MAX_TEXT: usize = 16 * 1024;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its number in the frames of an attach stream.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// An entry as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time: Timestamp,
    pub stream: Stream,
    /// With its newline, if it has one.
    pub bytes: Vec<u8>,
    /// The text goes on in the next entry of the stream, or the output ended without a newline.
    pub partial: bool,
    pub attributes: BTreeMap<String, String>,
}

/// Turns the output of one stream into entries. What has no newline yet stays inside, encoded.
#[derive(Debug)]
pub(super) struct Encoder {
    /// Whole entries, then the beginning of the one in progress.
    out: Vec<u8>,
    /// Where the entry in progress begins; equals the length when there is none.
    start: usize,
    /// Bytes of output in the entry in progress.
    length: usize,
    /// The beginning of a character that was cut by the end of a chunk.
    cut: Vec<u8>,
    /// `","stream":"stdout","attrs":{…},"time":"`
    middle: Vec<u8>,
}

const OPENING: &[u8] = b"{\"log\":\"";

impl Encoder {
    pub(super) fn new(stream: Stream, attributes: &BTreeMap<String, String>) -> Self {
        let mut middle = format!("\",\"stream\":\"{}\",", stream.name()).into_bytes();
        if let (false, Ok(text)) = (attributes.is_empty(), serde_json::to_string(attributes)) {
            middle.extend_from_slice(b"\"attrs\":");
            middle.extend_from_slice(text.as_bytes());
            middle.push(b',');
        }
        middle.extend_from_slice(b"\"time\":\"");
        Self {
            out: Vec::new(),
            start: 0,
            length: 0,
            cut: Vec::new(),
            middle,
        }
    }

    /// Takes a chunk of output that was read at `now`. Whole entries are in [`Encoder::ready`] then.
    pub(super) fn push(&mut self, chunk: &[u8], now: u64) {
        if self.cut.is_empty() {
            self.encode(chunk, now);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(chunk);
            self.encode(&joined, now);
        }
    }

    /// The output has ended: what is left becomes an entry without newline.
    pub(super) fn finish(&mut self, now: u64) {
        if !self.cut.is_empty() {
            self.cut.clear();
            self.open();
            self.out.extend_from_slice(b"\\ufffd");
        }
        if self.start < self.out.len() {
            self.close(now);
        }
    }

    /// Whole entries.
    pub(super) fn ready(&self) -> &[u8] {
        self.out.get(..self.start).unwrap_or_default()
    }

    /// Forgets the whole entries, and memory that only a burst needed.
    pub(super) fn clear_ready(&mut self) {
        self.out.drain(..self.start);
        self.start = 0;
        if self.out.is_empty() && self.out.capacity() > 8 * 1024 {
            self.out = Vec::new();
        }
    }

    fn encode(&mut self, chunk: &[u8], now: u64) {
        let mut rest = chunk;
        while !rest.is_empty() {
            self.open();
            let plain = rest
                .iter()
                .take(MAX_TEXT - self.length)
                .position(|byte| SPECIAL[usize::from(*byte)])
                .unwrap_or_else(|| rest.len().min(MAX_TEXT - self.length));
            let (run, tail) = rest.split_at(plain);
            self.out.extend_from_slice(run);
            self.length += run.len();
            rest = tail;
            if self.length >= MAX_TEXT {
                self.close(now);
                continue;
            }
            let Some(&byte) = rest.first() else { break };
            match self.escape(byte, rest) {
                Escaped::Bytes(count) => {
                    rest = rest.get(count..).unwrap_or_default();
                    self.length += count;
                    if byte == b'\n' || self.length >= MAX_TEXT {
                        self.close(now);
                    }
                }
                Escaped::Full => self.close(now),
                Escaped::Cut => {
                    self.cut = rest.to_vec();
                    // An entry is only begun when it has text: nothing may be left open by a cut alone.
                    if self.length == 0 {
                        self.out.truncate(self.start);
                    }
                    break;
                }
            }
        }
        if self.length == 0 {
            self.out.truncate(self.start);
        }
    }

    /// Writes one special byte, or one character, in its escaped form.
    fn escape(&mut self, byte: u8, rest: &[u8]) -> Escaped {
        match byte {
            b'"' => self.out.extend_from_slice(b"\\\""),
            b'\\' => self.out.extend_from_slice(b"\\\\"),
            b'\n' => self.out.extend_from_slice(b"\\n"),
            b'\r' => self.out.extend_from_slice(b"\\r"),
            0..=0x7f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                self.out.extend_from_slice(b"\\u00");
                self.out.push(HEX[usize::from(byte >> 4)]);
                self.out.push(HEX[usize::from(byte & 15)]);
            }
            _ => return self.character(rest),
        }
        Escaped::Bytes(1)
    }

    fn character(&mut self, rest: &[u8]) -> Escaped {
        let head = rest.get(..rest.len().min(4)).unwrap_or_default();
        let valid = match std::str::from_utf8(head) {
            Ok(text) => text,
            Err(error) if error.valid_up_to() > 0 => {
                std::str::from_utf8(head.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
            }
            // The chunk ends inside a character that may yet be completed.
            Err(error) if error.error_len().is_none() => return Escaped::Cut,
            Err(_) => {
                self.out.extend_from_slice(b"\\ufffd");
                return Escaped::Bytes(1);
            }
        };
        let Some(character) = valid.chars().next() else {
            return Escaped::Bytes(1);
        };
        let length = character.len_utf8();
        if self.length + length > MAX_TEXT {
            // A character is never torn between two entries.
            return Escaped::Full;
        }
        match character {
            '\u{2028}' => self.out.extend_from_slice(b"\\u2028"),
            '\u{2029}' => self.out.extend_from_slice(b"\\u2029"),
            _ => self.out.extend_from_slice(rest.get(..length).unwrap_or_default()),
        }
        Escaped::Bytes(length)
    }

    fn open(&mut self) {
        if self.start == self.out.len() {
            self.out.extend_from_slice(OPENING);
        }
    }

    fn close(&mut self, now: u64) {
        self.out.extend_from_slice(&self.middle);
        timestamp::append(now, &mut self.out);
        self.out.extend_from_slice(b"\"}\n");
        self.start = self.out.len();
        self.length = 0;
    }
}

enum Escaped {
    Bytes(usize),
    /// The entry has no room for the character.
    Full,
    /// The chunk ends inside a character.
    Cut,
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

/// An entry of a line, or nothing when it is none (torn by a crash or a full disk).
pub(super) fn decode(line: &[u8]) -> Option<LogLine> {
    let wire: Wire<'_> = serde_json::from_slice(line).ok()?;
    let stream = match &*wire.stream {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
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
    use super::*;

    const NOW: u64 = 1_763_933_164_938_190_936;

    fn encode(chunks: &[&[u8]], finish: bool) -> String {
        let mut encoder = Encoder::new(Stream::Stdout, &BTreeMap::new());
        for chunk in chunks {
            encoder.push(chunk, NOW);
        }
        if finish {
            encoder.finish(NOW);
        }
        String::from_utf8(encoder.ready().to_vec()).unwrap()
    }

    fn texts(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        encode(chunks, true)
            .lines()
            .map(|line| decode(line.as_bytes()).unwrap().bytes)
            .collect()
    }

    #[test]
    fn the_form_is_dockers() {
        assert_eq!(
            encode(&[b"hi\n"], false),
            "{\"log\":\"hi\\n\",\"stream\":\"stdout\",\"time\":\"2025-11-23T21:26:04.938190936Z\"}\n"
        );
        assert_eq!(
            encode(&["a\t\"\\<>&\r\u{2028}é\u{7f}\n".as_bytes()], false),
            "{\"log\":\"a\\u0009\\\"\\\\\\u003c\\u003e\\u0026\\r\\u2028é\u{7f}\\n\",\"stream\":\"stdout\",\
             \"time\":\"2025-11-23T21:26:04.938190936Z\"}\n"
        );
        let attributes = BTreeMap::from([("tag".to_owned(), "x".to_owned())]);
        let mut encoder = Encoder::new(Stream::Stderr, &attributes);
        encoder.push(b"e\n", NOW);
        assert_eq!(
            String::from_utf8(encoder.ready().to_vec()).unwrap(),
            "{\"log\":\"e\\n\",\"stream\":\"stderr\",\"attrs\":{\"tag\":\"x\"},\
             \"time\":\"2025-11-23T21:26:04.938190936Z\"}\n"
        );
    }

    #[test]
    fn lines_come_out_however_they_were_cut() {
        let text = "one\n\nthree é ✓ 🦀\nlast".as_bytes();
        let whole = texts(&[text]);
        assert_eq!(whole.len(), 4);
        assert_eq!(whole.concat(), text);
        for at in 0..text.len() {
            assert_eq!(texts(&[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn nothing_is_written_before_the_line_ends() {
        assert_eq!(encode(&[b"abc"], false), "");
        assert_eq!(encode(&[b""], true), "");
        assert_eq!(texts(&[b"abc"]), [b"abc"]);
    }

    #[test]
    fn long_lines_are_split_between_characters() {
        let mut text = vec![b'x'; MAX_TEXT * 2 + 10];
        text.push(b'\n');
        let parts = texts(&[&text]);
        assert_eq!(
            parts.iter().map(Vec::len).collect::<Vec<_>>(),
            [MAX_TEXT, MAX_TEXT, 11]
        );
        let mut text = vec![b'x'; MAX_TEXT - 1];
        text.extend_from_slice("é\n".as_bytes());
        let parts = texts(&[&text]);
        assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_TEXT - 1, 3]);
    }

    #[test]
    fn what_is_not_text_is_replaced() {
        assert_eq!(texts(&[b"a\xff\xfeb\n"]), ["a\u{fffd}\u{fffd}b\n".as_bytes()]);
        assert_eq!(texts(&[b"a\xe2\x82"]), ["a\u{fffd}".as_bytes()]);
        assert_eq!(texts(&[b"\xe2", b"\x82", b"\xac\n"]), ["€\n".as_bytes()]);
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
