//! An entry on its way.

use crate::log::{Entry, Partial, Stream};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) stream: Stream,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) text: Vec<u8>,
    pub(super) partial: Option<Partial>,
}

impl From<&Entry<'_>> for Message {
    fn from(entry: &Entry<'_>) -> Self {
        Self {
            stream: entry.stream,
            time: entry.time,
            text: entry.text.to_vec(),
            partial: entry.partial.clone(),
        }
    }
}

impl Message {
    /// 6 for output and 3 for errors, as Docker's drivers say it (RFC 5424 §6.2.1).
    pub(super) fn severity(&self) -> u8 {
        match self.stream {
            Stream::Stdout => 6,
            Stream::Stderr => 3,
        }
    }

    /// What it counts against the buffer.
    pub(super) fn size(&self) -> u64 {
        self.text.len() as u64 + 64
    }

    /// The line that tells of others which were not delivered.
    pub(super) fn of_dropped(count: u64, time: u64) -> Self {
        let text =
            format!("berth: {count} log entries were dropped here: the collector did not take them in time");
        Self {
            stream: Stream::Stderr,
            time,
            text: text.into_bytes(),
            partial: None,
        }
    }
}
