//! The journal's native protocol: one datagram per entry, fields as Docker names them.
//!
//! <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>: `NAME=value\n`, or, for values with a newline, `NAME\n`, the length
//! in eight bytes little endian, value, `\n`. What is too large for a datagram goes as a sealed memory file.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::config::Forward;
use super::message::Message;

pub(super) struct Journald {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// What all entries say.
    fields: Vec<u8>,
    ordinal: u64,
}

impl Journald {
    pub(super) fn new(path: &Path, forward: &Forward) -> Self {
        let source = &forward.source;
        let short: String = source.id.chars().take(12).collect();
        let mut fields = Vec::new();
        let epoch = format!("{short}-{}", Timestamp::now().as_nanosecond());
        for (name, value) in [
            ("CONTAINER_ID", short.as_str()),
            ("CONTAINER_ID_FULL", &source.id),
            ("CONTAINER_NAME", &source.name),
            ("CONTAINER_TAG", &source.tag),
            ("IMAGE_NAME", &source.image),
            ("SYSLOG_IDENTIFIER", &source.tag),
            ("CONTAINER_LOG_EPOCH", &epoch),
        ] {
            field(name, value.as_bytes(), &mut fields);
        }
        for (name, value) in &forward.attributes {
            field(&field_name(name), value.as_bytes(), &mut fields);
        }
        Self {
            path: path.to_owned(),
            socket: None,
            fields,
            ordinal: 0,
        }
    }

    pub(super) fn connect(&mut self) -> io::Result<()> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&self.path).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!(
                        "journald is not enabled on this host: {}: {error}",
                        self.path.display()
                    ),
                )
            })?;
            self.socket = Some(socket);
        }
        Ok(())
    }

    pub(super) fn send(&mut self, messages: &[Message], done: &mut usize) -> io::Result<()> {
        for message in messages {
            let datagram = self.datagram(message);
            let Some(socket) = &self.socket else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let too_large = rustix::io::Errno::MSGSIZE.raw_os_error();
            let outcome = match socket.send(&datagram) {
                Err(error) if error.raw_os_error() == Some(too_large) => send_file(socket, &datagram),
                other => other.map(|_| ()),
            };
            if let Err(error) = outcome {
                self.socket = None;
                return Err(error);
            }
            *done += 1;
        }
        Ok(())
    }

    fn datagram(&mut self, message: &Message) -> Vec<u8> {
        self.ordinal += 1;
        let mut out = self.fields.clone();
        field("PRIORITY", message.severity().to_string().as_bytes(), &mut out);
        field(
            "CONTAINER_LOG_ORDINAL",
            self.ordinal.to_string().as_bytes(),
            &mut out,
        );
        if let Ok(time) = Timestamp::from_nanosecond(i128::from(message.time)) {
            field("SYSLOG_TIMESTAMP", time.to_string().as_bytes(), &mut out);
        }
        if let Some(partial) = &message.partial {
            field("CONTAINER_PARTIAL_MESSAGE", b"true", &mut out);
            field("CONTAINER_PARTIAL_ID", partial.id.as_bytes(), &mut out);
            let ordinal = partial.ordinal.to_string();
            field("CONTAINER_PARTIAL_ORDINAL", ordinal.as_bytes(), &mut out);
            field(
                "CONTAINER_PARTIAL_LAST",
                partial.last.to_string().as_bytes(),
                &mut out,
            );
        }
        field("MESSAGE", &message.text, &mut out);
        out
    }
}

fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A name the journal takes: capitals, digits and underscores, not an underscore first.
fn field_name(name: &str) -> String {
    let all: String = name
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    all.trim_start_matches('_').to_owned()
}

fn send_file(socket: &UnixDatagram, bytes: &[u8]) -> io::Result<()> {
    let file = sys::fd::sealed_memfd("journal-entry", bytes)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [file.as_fd()];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_journals() {
        assert_eq!(field_name("com.example/x-1"), "COM_EXAMPLE_X_1");
        assert_eq!(field_name("__a"), "A");
    }

    #[test]
    fn values_with_newlines_carry_their_length() {
        let mut out = Vec::new();
        field("A", b"x\ny", &mut out);
        assert_eq!(out, b"A\n\x03\0\0\0\0\0\0\0x\ny\n");
    }
}
