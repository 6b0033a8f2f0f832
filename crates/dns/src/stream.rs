//! Messages over a byte stream: two bytes of length, then the message (RFC 1035 §4.2.2, RFC 7766). Used towards
//! askers and towards upstream servers. Never blocks; both buffers are bounded.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// The longest message the length field can announce, with the field.
const LONGEST: usize = 2 + 65535;
/// An asker that does not read its answers is dropped beyond this.
const MOST_UNSENT: usize = 4 * LONGEST;

#[derive(Debug)]
pub(crate) struct Framed {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Framed {
    /// `stream` must be non-blocking.
    pub(crate) fn new(stream: TcpStream) -> Framed {
        Framed {
            stream,
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Reads what has come; false at the end of the stream.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let mut chunk = [0u8; 4096];
        while self.input.len() < LONGEST {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(length) => self
                    .input
                    .extend_from_slice(chunk.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes the next whole message.
    pub(crate) fn next_message(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(self.input.get(..2)?.try_into().ok()?));
        let message = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(message)
    }

    /// Puts a message in the way out; false when too much waits there.
    pub(crate) fn queue(&mut self, message: &[u8]) -> bool {
        let Ok(length) = u16::try_from(message.len()) else {
            return false;
        };
        if self.output.len() + message.len() > MOST_UNSENT {
            return false;
        }
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(message);
        true
    }

    /// Writes what the other side takes; true when nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
