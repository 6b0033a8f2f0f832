//! Someone who is attached to a process's streams.
//!
//! Output is sent at once when the socket takes it, else kept in a [`Backlog`]. What happens when that is full depends on
//! who listens. A consumer was there from the start, as the client of `run` or of an exec is: it is the other end of the
//! process's pipe, and as with any pipe the process waits for it, but not for ever: one that takes nothing at all for
//! [`PATIENCE`] is waited for no longer. Who came later only watches, and is never waited for. Either then misses whole
//! chunks, and is told how many bytes, once it has taken what was kept.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::backlog::Backlog;
use crate::log::Stream;
use crate::protocol::AttachStreams;

/// How long output waits for a listener that takes nothing.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what is kept waits for a listener when nothing waits for it any more: a pager may be looked at for long.
const LEFT_ALONE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Listener {
    socket: OwnedFd,
    streams: AttachStreams,
    /// Without frames, for a terminal.
    raw: bool,
    backlog: Backlog,
    /// The process waits for it.
    is_consumer: bool,
    /// Bytes that it misses and has not been told of.
    missed: u64,
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
    pub(super) fn new(
        socket: OwnedFd,
        streams: AttachStreams,
        raw: bool,
        is_consumer: bool,
        backlog: Backlog,
    ) -> Self {
        Self {
            socket,
            streams,
            raw,
            backlog,
            is_consumer,
            missed: 0,
            input_open: streams.stdin,
            deaf: false,
            closing: false,
            last_progress: Instant::now(),
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Hands over output of a stream, if it was asked for. Says whether it begins to miss some.
    pub(super) fn hear(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let asked = match stream {
            Stream::Stdout => self.streams.stdout,
            Stream::Stderr => self.streams.stderr,
        };
        if !asked || self.deaf || self.closing || bytes.is_empty() {
            return false;
        }
        if self.missed > 0 || (self.backlog.is_full() && !self.is_consumer) {
            let begins = self.missed == 0;
            self.missed += bytes.len() as u64;
            return begins;
        }
        let header = header(stream, bytes);
        let header: &[u8] = if self.raw { &[] } else { &header };
        let mut sent = 0;
        if self.backlog.is_empty() {
            let Some(count) = self.transmit(&[IoSlice::new(header), IoSlice::new(bytes)]) else {
                self.deaf = true;
                return false;
            };
            sent = count;
            self.last_progress = Instant::now();
        }
        for part in [header, bytes] {
            let skip = sent.min(part.len());
            self.backlog.push(part.get(skip..).unwrap_or_default());
            sent -= skip;
        }
        false
    }

    /// Sends what is kept, as far as the socket takes it.
    pub(super) fn flush(&mut self) {
        while !self.deaf && !self.backlog.is_empty() {
            match self.transmit(&[IoSlice::new(self.backlog.head())]) {
                Some(0) => break,
                Some(sent) => {
                    self.last_progress = Instant::now();
                    // A frame whose rest cannot be read any more is the end.
                    self.deaf = self.backlog.take(sent).is_err();
                }
                None => self.deaf = true,
            }
        }
        if self.backlog.is_empty() {
            self.tell_what_is_missing();
        }
    }

    /// Behind what came before the gap, a word about it; on standard error, where one is asked for or not, since
    /// standard output is somebody's data.
    fn tell_what_is_missing(&mut self) {
        let missed = std::mem::take(&mut self.missed);
        if missed == 0 {
            return;
        }
        let word = format!(
            "berth: {missed} bytes of output are missing here, since this client did not take them\r\n"
        );
        if self.raw {
            self.backlog.push(b"\r\n");
        } else {
            self.backlog.push(&header(Stream::Stderr, word.as_bytes()));
        }
        self.backlog.push(word.as_bytes());
    }

    /// None: nothing can be sent any more.
    fn transmit(&self, parts: &[IoSlice<'_>]) -> Option<usize> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::sendmsg(&self.socket, parts, &mut SendAncillaryBuffer::default(), flags) {
                Ok(count) => return Some(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Some(0),
                Err(_) => return None,
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
        self.tell_what_is_missing();
        self.closing = true;
    }

    /// The other side is gone for good.
    pub(super) fn hang_up(&mut self) {
        self.deaf = true;
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The process waits until it has taken more.
    pub(super) fn holds_output(&self) -> bool {
        self.is_consumer && !self.deaf && self.backlog.is_full()
    }

    /// When it will have tried the patience of those who wait for it.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if self.closing {
            return self.has_pending().then(|| self.last_progress + LEFT_ALONE);
        }
        self.holds_output().then(|| self.last_progress + PATIENCE)
    }

    /// Its deadline has passed: it is waited for no longer.
    pub(super) fn give_up(&mut self) {
        if self.closing {
            self.deaf = true;
        } else {
            self.is_consumer = false;
        }
    }

    /// Nothing is to be had from it or for it.
    pub(super) fn is_done(&self) -> bool {
        (self.closing && (self.deaf || self.backlog.is_empty())) || (self.deaf && !self.input_open)
    }
}

/// The head of a frame.
fn header(stream: Stream, bytes: &[u8]) -> [u8; 8] {
    let mut header = [0u8; 8];
    header[0] = stream.number();
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    header[4..].copy_from_slice(&length.to_be_bytes());
    header
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_consumer_that_takes_nothing_for_too_long_is_waited_for_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let streams = AttachStreams {
            stdin: false,
            stdout: true,
            stderr: false,
        };
        let mut listener = Listener::new(ours.into(), streams, true, true, Backlog::new(dir.path().into()));
        let chunk = vec![b'x'; 1 << 20];
        let mut heard = 0;
        while !listener.holds_output() {
            assert_eq!(listener.deadline(), None);
            assert!(!listener.hear(Stream::Stdout, &chunk));
            heard += chunk.len();
        }
        assert_eq!(listener.deadline(), Some(listener.last_progress + PATIENCE));
        listener.give_up();
        assert!(!listener.holds_output());
        assert!(listener.hear(Stream::Stdout, b"lost"));
        assert!(!listener.hear(Stream::Stdout, b", too"));
        let reader = std::thread::spawn(move || {
            let mut all = String::new();
            theirs.read_to_string(&mut all).map(|_| all)
        });
        while listener.has_pending() {
            listener.flush();
        }
        listener.hear(Stream::Stdout, b"and on");
        listener.close();
        while !listener.is_done() {
            listener.flush();
        }
        drop(listener);
        let all = reader.join().unwrap().unwrap();
        let word = "\r\nberth: 9 bytes of output are missing here, since this client did not take them\r\n";
        assert!(all[..heard].bytes().all(|byte| byte == b'x'));
        assert_eq!(&all[heard..], format!("{word}and on"));
    }
}
