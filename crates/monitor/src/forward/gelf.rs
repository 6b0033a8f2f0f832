//! Graylog's extended format, version 1.1: JSON documents in datagrams, compressed and in chunks, or over TCP with a
//! zero byte after each.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Map, Value};

use super::config::{Forward, GelfCompression, Transport};
use super::message::Message;
use super::transport::Connection;

/// What a datagram holds at most, so that it crosses an Ethernet whole.
const CHUNK: usize = 1420;
/// Magic number, message id, number, count.
const HEADER: usize = 12;
/// The format's own limit.
const MOST_CHUNKS: usize = 128;

pub(super) struct Gelf {
    pub(super) connection: Connection,
    compression: GelfCompression,
    /// What all messages say.
    fields: Map<String, Value>,
}

impl Gelf {
    pub(super) fn new(transport: &Transport, compression: GelfCompression, forward: &Forward) -> Self {
        let source = &forward.source;
        let mut fields = Map::new();
        for (name, value) in [
            ("version", "1.1"),
            ("host", &source.hostname),
            ("_container_id", &source.id),
            ("_container_name", &source.name),
            ("_image_id", &source.image_id),
            ("_image_name", &source.image),
            ("_command", &source.command),
            ("_tag", &source.tag),
            ("_created", &source.created.to_string()),
        ] {
            fields.insert(name.to_owned(), value.into());
        }
        for (name, value) in &forward.attributes {
            let name = if name.starts_with('_') {
                name.clone()
            } else {
                format!("_{name}")
            };
            fields.insert(name, value.as_str().into());
        }
        Self {
            connection: Connection::new(transport),
            compression,
            fields,
        }
    }

    pub(super) fn send(&mut self, messages: &[Message], done: &mut usize) -> io::Result<()> {
        if self.connection.is_stream() {
            let mut all = Vec::new();
            for message in messages.iter().filter(|message| !message.text.is_empty()) {
                all.extend_from_slice(&self.document(message, message.text.len())?);
                all.push(0);
            }
            self.connection.send(&all)?;
            *done += messages.len();
            return Ok(());
        }
        for message in messages {
            // The format has no empty messages.
            if !message.text.is_empty() {
                for datagram in self.datagrams(message)? {
                    self.connection.send(&datagram)?;
                }
            }
            *done += 1;
        }
        Ok(())
    }

    /// The document with so much of the text.
    fn document(&self, message: &Message, length: usize) -> io::Result<Vec<u8>> {
        let mut fields = self.fields.clone();
        let text = message.text.get(..length).unwrap_or(&message.text);
        fields.insert("short_message".to_owned(), String::from_utf8_lossy(text).into());
        #[allow(clippy::cast_precision_loss)]
        fields.insert(
            "timestamp".to_owned(),
            ((message.time / 1_000_000) as f64 / 1000.0).into(),
        );
        fields.insert("level".to_owned(), message.severity().into());
        serde_json::to_vec(&fields).map_err(io::Error::from)
    }

    fn datagrams(&self, message: &Message) -> io::Result<Vec<Vec<u8>>> {
        let mut length = message.text.len();
        loop {
            let packed = self.compress(self.document(message, length)?)?;
            if packed.len() <= CHUNK {
                return Ok(vec![packed]);
            }
            let parts: Vec<&[u8]> = packed.chunks(CHUNK - HEADER).collect();
            if parts.len() > MOST_CHUNKS && length > CHUNK {
                // More than the format can say is cut.
                length /= 2;
                continue;
            }
            let mut id = [0u8; 8];
            // Without randomness the messages of this moment are told apart by the time.
            if rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty()).is_err() {
                id = crate::timestamp::now().to_be_bytes();
            }
            let count = u8::try_from(parts.len()).unwrap_or(u8::MAX);
            return Ok((0..count)
                .zip(parts)
                .map(|(number, part)| [&[0x1e, 0x0f][..], &id, &[number, count], part].concat())
                .collect());
        }
    }

    fn compress(&self, document: Vec<u8>) -> io::Result<Vec<u8>> {
        match self.compression {
            GelfCompression::None => Ok(document),
            GelfCompression::Gzip(level) => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
                encoder.write_all(&document)?;
                encoder.finish()
            }
            GelfCompression::Zlib(level) => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(level));
                encoder.write_all(&document)?;
                encoder.finish()
            }
        }
    }
}
