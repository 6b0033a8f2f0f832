//! Someone who is attached to a process's streams.
//!
//! Output is sent at once when the socket takes it, else kept; above [`HIGH_WATER`] the session stops reading the
//! process's output until the listener has caught up, and a listener that takes nothing at all for [`PATIENCE`]
//! meanwhile is dropped: it may slow the container down for a moment, never hold it up for good.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use crate::log::Stream;
use crate::protocol::AttachStreams;

/// Bytes kept for a listener before output waits for it.
pub(super) const HIGH_WATER: usize = 128 * 1024;
/// How long output waits for a listener that takes nothing.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    streams: AttachStreams,
    /// Without frames, for a terminal.
    raw: bool,
    pending: Vec<u8>,
    /// How much of `pending` is sent.
    sent: usize,
    /// Its input may still come.
    input_open: bool,
    /// Nothing can be sent any more.
    deaf: bool,
    /// Leaves when everything is sent.
    closing: bool,
    last_progress: Instant,
}

/// What reading a listener's input brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Input {
    Bytes,
    Nothing,
    End,
}

impl Listener {
    pub(super) fn new(socket: OwnedFd, streams: AttachStreams, raw: bool) -> Self {
        Self {
            socket,
            streams,
            raw,
            pending: Vec::new(),
            sent: 0,
            input_open: streams.stdin,
            deaf: false,
            closing: false,
            last_progress: Instant::now(),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hands over output of a stream, if it was asked for.
    pub(super) fn hear(&mut self, stream: Stream, bytes: &[u8]) {
        let asked = match stream {
            Stream::Stdout => self.streams.stdout,
            Stream::Stderr => self.streams.stderr,
        };
        if !asked || self.deaf || self.closing || bytes.is_empty() {
            return;
        }
        let mut header = [0u8; 8];
        header[0] = stream.number();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        header[4..].copy_from_slice(&length.to_be_bytes());
        let header: &[u8] = if self.raw { &[] } else { &header };
        if self.pending.is_empty() {
            let total = header.len() + bytes.len();
            let mut sent = self.transmit(&[IoSlice::new(header), IoSlice::new(bytes)]);
            if sent >= total || self.deaf {
                return;
            }
            for part in [header, bytes] {
                let skip = sent.min(part.len());
                self.pending
                    .extend_from_slice(part.get(skip..).unwrap_or_default());
                sent -= skip;
            }
            self.last_progress = Instant::now();
        } else {
            self.pending.extend_from_slice(header);
            self.pending.extend_from_slice(bytes);
        }
    }

    /// Sends what is kept, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        if self.deaf || self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let sent = self.transmit(&[IoSlice::new(pending.get(self.sent..).unwrap_or_default())]);
        self.pending = pending;
        if sent > 0 {
            self.sent += sent;
            self.last_progress = Instant::now();
        }
        if self.sent >= self.pending.len() || self.deaf {
            self.pending = Vec::new();
            self.sent = 0;
        }
    }

    fn transmit(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::sendmsg(&self.socket, parts, &mut SendAncillaryBuffer::default(), flags) {
                Ok(count) => return count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return 0,
                Err(_) => {
                    self.deaf = true;
                    return 0;
                }
            }
        }
    }

    /// Reads input once, into the buffer's capacity.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Input {
        loop {
            buffer.clear();
            match rustix::net::recv(&self.socket, spare_capacity(buffer), RecvFlags::DONTWAIT) {
                Ok((_, 0)) => break,
                Ok(_) => return Input::Bytes,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Input::Nothing,
                Err(_) => {
                    self.deaf = true;
                    break;
                }
            }
        }
        self.input_open = false;
        Input::End
    }

    pub(super) fn input_open(&self) -> bool {
        self.input_open
    }

    /// No more output will come: leave when all is sent.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// The other side is gone for good.
    pub(super) fn hang_up(&mut self) {
        self.deaf = true;
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.len() - self.sent.min(self.pending.len()) > HIGH_WATER
    }

    /// When it will have tried the patience of those who wait for it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        (self.is_full() || (self.closing && self.has_pending())).then(|| self.last_progress + PATIENCE)
    }

    /// Nothing is to be had from it or for it.
    pub(super) fn is_done(&self) -> bool {
        (self.closing && (self.deaf || self.pending.is_empty())) || (self.deaf && !self.input_open)
    }
}
