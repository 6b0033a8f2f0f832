//! The two forms an entry has in a file.

use std::collections::BTreeMap;

use jiff::Timestamp;
use memchr::{memchr, memrchr};
use serde::{Deserialize, Serialize};

use super::lines::{Entry, Stream};
use super::local::{self, Framed};
use super::{LogLine, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON document per line.
    Json,
    /// Frames; see [`local`](super::local).
    Local,
}

/// Writes entries in one of them.
#[derive(Debug)]
pub(super) enum Encoder {
    Json(json::Encoder),
    Local,
}

impl Encoder {
    pub(super) fn new(format: Format, attributes: &BTreeMap<String, String>) -> Self {
        match format {
            Format::Json => Self::Json(json::Encoder::new(attributes)),
            Format::Local => Self::Local,
        }
    }

    pub(super) fn append(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json(json) => json.append(entry, out),
            Self::Local => local::append(entry, out),
        }
    }
}

/// What the beginning of some bytes of a file is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// An entry of this many bytes.
    Entry(usize),
    /// The entry goes on; no end of it lies before this place.
    Short(usize),
    /// Nothing can be read from here on.
    Damaged,
}

impl Format {
    /// The entry that `bytes` begin with. `searched` says how far an earlier call has looked already.
    pub(super) fn head(self, bytes: &[u8], searched: usize) -> Head {
        match self {
            Self::Json => match memchr(b'\n', bytes.get(searched..).unwrap_or_default()) {
                Some(end) => Head::Entry(searched + end + 1),
                None => Head::Short(bytes.len()),
            },
            Self::Local => match local::first(bytes) {
                Framed::Entry(_, length) => Head::Entry(length),
                Framed::Short => Head::Short(0),
                Framed::Damaged => Head::Damaged,
            },
        }
    }

    /// An entry of a file, or nothing when it is none.
    pub(super) fn decode(self, bytes: &[u8]) -> Option<LogLine> {
        match self {
            Self::Json => json::decode(bytes),
            Self::Local => {
                let Framed::Entry(message, _) = local::first(bytes) else {
                    return None;
                };
                let entry = local::decode(message)?;
                let mut text = Vec::with_capacity(entry.text.len() + 1);
                text.extend_from_slice(entry.text);
                if entry.ends_line() {
                    text.push(b'\n');
                }
                Some(LogLine {
                    time: Timestamp::from_nanosecond(i128::from(entry.time)).ok()?,
                    stream: entry.stream,
                    bytes: text,
                    partial: !entry.ends_line(),
                    attributes: BTreeMap::new(),
                })
            }
        }
    }

    /// Number of entries in bytes that are whole entries.
    pub(super) fn count(self, bytes: &[u8]) -> u64 {
        match self {
            Self::Json => memchr::memchr_iter(b'\n', bytes).count() as u64,
            Self::Local => {
                let (mut count, mut at) = (0, 0);
                while let Framed::Entry(_, length) = local::first(bytes.get(at..).unwrap_or_default()) {
                    count += 1;
                    at += length;
                }
                count
            }
        }
    }

    /// How many bytes of `bytes`, which begin with an entry, are whole entries.
    pub(super) fn whole(self, bytes: &[u8]) -> usize {
        match self {
            Self::Json => memrchr(b'\n', bytes).map_or(0, |end| end + 1),
            Self::Local => {
                let mut whole = 0;
                while let Framed::Entry(_, length) = local::first(bytes.get(whole..).unwrap_or_default()) {
                    whole += length;
                }
                whole
            }
        }
    }
}

impl LogLine {
    pub(super) fn is_of(&self, stdout: bool, stderr: bool) -> bool {
        match self.stream {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        }
    }
}
