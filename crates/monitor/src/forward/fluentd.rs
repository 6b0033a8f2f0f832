//! Fluentd's forward protocol (version 1, without a handshake): batches of entries as MessagePack.
//!
//! `[tag, [[time, record], …], {"size": n, "chunk": id}]`; with `fluentd-request-ack` the other end answers
//! `{"ack": id}` when it has stored the batch, and what it does not acknowledge is sent again.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::config::{Forward, Transport};
use super::message::Message;
use super::transport::Connection;

pub(super) struct Fluentd {
    pub(super) connection: Connection,
    tag: String,
    sub_second: bool,
    request_ack: bool,
    /// What all records say.
    fields: BTreeMap<String, String>,
    chunks: u64,
}

impl Fluentd {
    pub(super) fn new(
        transport: &Transport,
        [write, read]: [Option<Duration>; 2],
        sub_second: bool,
        request_ack: bool,
        forward: &Forward,
    ) -> Self {
        let mut fields = forward.attributes.clone();
        fields.insert("container_id".to_owned(), forward.source.id.clone());
        fields.insert("container_name".to_owned(), format!("/{}", forward.source.name));
        Self {
            connection: Connection::new(transport).with_timeouts(write, read),
            tag: forward.source.tag.clone(),
            sub_second,
            request_ack,
            fields,
            chunks: 0,
        }
    }

    pub(super) fn send(&mut self, messages: &[Message], done: &mut usize) -> io::Result<()> {
        self.chunks += 1;
        let chunk = format!("{}-{}", std::process::id(), self.chunks);
        let bytes = self.batch(messages, &chunk);
        self.connection.send(&bytes)?;
        if self.request_ack {
            let mut wanted = Vec::new();
            map(1, &mut wanted);
            text(b"ack", &mut wanted);
            text(chunk.as_bytes(), &mut wanted);
            let mut answer = Vec::new();
            while answer.len() < wanted.len() {
                let mut part = [0u8; 256];
                let room = wanted.len() - answer.len();
                let count = self
                    .connection
                    .receive(part.get_mut(..room.min(256)).unwrap_or_default())?;
                answer.extend_from_slice(part.get(..count).unwrap_or_default());
            }
            if answer != wanted {
                return Err(io::Error::other(
                    "the collector acknowledged something that was not sent",
                ));
            }
        }
        *done += messages.len();
        Ok(())
    }

    fn batch(&self, messages: &[Message], chunk: &str) -> Vec<u8> {
        let mut out = Vec::new();
        array(3, &mut out);
        text(self.tag.as_bytes(), &mut out);
        array(messages.len(), &mut out);
        for message in messages {
            array(2, &mut out);
            let (seconds, nanoseconds) = (message.time / 1_000_000_000, message.time % 1_000_000_000);
            let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
            if self.sub_second {
                out.extend_from_slice(&[0xd7, 0]);
                out.extend_from_slice(&word(seconds));
                out.extend_from_slice(&word(nanoseconds));
            } else {
                out.push(0xce);
                out.extend_from_slice(&word(seconds));
            }
            let partial = message.partial.as_ref();
            map(self.fields.len() + 2 + partial.map_or(0, |_| 4), &mut out);
            let mut pair = |key: &str, value: &[u8]| {
                text(key.as_bytes(), &mut out);
                text(value, &mut out);
            };
            for (key, value) in &self.fields {
                pair(key, value.as_bytes());
            }
            pair("source", message.stream.name().as_bytes());
            pair("log", &message.text);
            if let Some(partial) = partial {
                pair("partial_message", b"true");
                pair("partial_id", partial.id.as_bytes());
                pair("partial_ordinal", partial.ordinal.to_string().as_bytes());
                pair("partial_last", partial.last.to_string().as_bytes());
            }
        }
        map(1 + usize::from(self.request_ack), &mut out);
        text(b"size", &mut out);
        out.push(0xce);
        out.extend_from_slice(&u32::try_from(messages.len()).unwrap_or(u32::MAX).to_be_bytes());
        if self.request_ack {
            text(b"chunk", &mut out);
            text(chunk.as_bytes(), &mut out);
        }
        out
    }
}

/// Appends a length in the shortest of the forms a kind of MessagePack has: within the first byte (up to `most`), or
/// after a byte of its own.
fn length(count: usize, fixed: u8, most: usize, byte: Option<u8>, words: [u8; 2], out: &mut Vec<u8>) {
    let short = u8::try_from(count);
    match (short, byte, u16::try_from(count)) {
        (Ok(short), ..) if count <= most => out.push(fixed | short),
        (Ok(short), Some(byte), _) => out.extend_from_slice(&[byte, short]),
        (_, _, Ok(count)) => {
            out.push(words[0]);
            out.extend_from_slice(&count.to_be_bytes());
        }
        _ => {
            out.push(words[1]);
            out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

fn text(bytes: &[u8], out: &mut Vec<u8>) {
    length(bytes.len(), 0xa0, 31, Some(0xd9), [0xda, 0xdb], out);
    out.extend_from_slice(bytes);
}

fn array(count: usize, out: &mut Vec<u8>) {
    length(count, 0x90, 15, None, [0xdc, 0xdd], out);
}

fn map(count: usize, out: &mut Vec<u8>) {
    length(count, 0x80, 15, None, [0xde, 0xdf], out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_the_shortest_form() {
        let head = |count: usize| {
            let mut out = Vec::new();
            text(&vec![b'x'; count], &mut out);
            out.truncate(out.len() - count);
            out
        };
        assert_eq!(head(0), [0xa0]);
        assert_eq!(head(31), [0xbf]);
        assert_eq!(head(32), [0xd9, 32]);
        assert_eq!(head(255), [0xd9, 255]);
        assert_eq!(head(256), [0xda, 1, 0]);
        assert_eq!(head(65_536), [0xdb, 0, 1, 0, 0]);
        let mut out = Vec::new();
        array(15, &mut out);
        array(16, &mut out);
        map(300, &mut out);
        assert_eq!(out, [0x9f, 0xdc, 0, 16, 0xde, 1, 44]);
    }
}
