//! The streams of one process, the container's first or an additional one: its pipes or terminal on one side,
//! listeners on the other.
//!
//! Input: bytes of any listener go to the process in the order they come; while the process does not take them, no
//! listener is read. Output: every chunk goes to the log (the first process's only) and to every listener that asked;
//! while a consumer's backlog is full, nothing is read, so the process waits as at any full pipe.
//! When the process has ended, what it wrote is still read; after the last of it, listeners are let go.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::EventFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::backlog::Backlog;
use super::listener::{Input, Listener};
use super::poller::{Part, Poller, Token};
use crate::log::Stream;
use crate::protocol::AttachStreams;

/// The monitor's ends.
#[derive(Debug)]
pub(super) enum Ends {
    Pipes {
        stdin: Option<OwnedFd>,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    Terminal(OwnedFd),
    /// Nobody listens and nothing is recorded.
    None,
}

#[derive(Debug)]
pub(super) struct Session {
    number: u32,
    /// Where backlogs of listeners are kept.
    dir: Rc<Path>,
    terminal: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// The end of a listener's input ends the process's.
    close_on_end: bool,
    /// Input that the process has not taken yet.
    input: Vec<u8>,
    /// Close standard input when `input` is empty.
    closing: bool,
    listeners: BTreeMap<u32, Listener>,
    next_listener: u32,
    /// How many began to miss output since this was last told.
    missing: usize,
    process_ended: bool,
}

impl Session {
    pub(super) fn new(number: u32, ends: Ends, close_on_end: bool, dir: Rc<Path>) -> io::Result<Self> {
        let mut session = Self {
            number,
            dir,
            terminal: None,
            stdin: None,
            stdout: None,
            stderr: None,
            close_on_end,
            input: Vec::new(),
            closing: false,
            listeners: BTreeMap::new(),
            next_listener: 0,
            missing: 0,
            process_ended: false,
        };
        match ends {
            Ends::Pipes {
                stdin,
                stdout,
                stderr,
            } => {
                (session.stdin, session.stdout, session.stderr) = (stdin, Some(stdout), Some(stderr));
            }
            Ends::Terminal(terminal) => session.terminal = Some(terminal),
            Ends::None => {}
        }
        for fd in [
            &session.terminal,
            &session.stdin,
            &session.stdout,
            &session.stderr,
        ]
        .into_iter()
        .flatten()
        {
            let flags = rustix::fs::fcntl_getfl(fd)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(session)
    }

    /// Gives a session that is not known to the poller yet its number.
    pub(super) fn set_number(&mut self, number: u32) {
        self.number = number;
    }

    /// Output waits for a consumer, and for nobody else.
    pub(super) fn attach(&mut self, socket: OwnedFd, streams: AttachStreams, raw: bool, is_consumer: bool) {
        self.next_listener += 1;
        let backlog = Backlog::new(self.dir.clone());
        let mut listener = Listener::new(socket, streams, raw, is_consumer, backlog);
        if self.process_ended && self.output_ended() {
            listener.close();
        }
        self.listeners.insert(self.next_listener, listener);
    }

    pub(super) fn is_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    pub(super) fn resize(&self, rows: u16, cols: u16) -> io::Result<()> {
        match &self.terminal {
            Some(terminal) => sys::terminal::resize(terminal, rows, cols),
            None => Err(io::Error::other("the process has no terminal")),
        }
    }

    /// Every way out is at its end.
    pub(super) fn output_ended(&self) -> bool {
        self.terminal.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        self.process_ended && self.output_ended() && self.listeners.is_empty()
    }

    pub(super) fn has_listeners(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// The process is gone: input is pointless, and output no longer waits for listeners.
    pub(super) fn end_process(&mut self, poller: &mut Poller) {
        self.process_ended = true;
        self.input = Vec::new();
        self.close_stdin(poller);
    }

    /// Lets listeners go once they have everything. Output that other processes still write is read and dropped.
    pub(super) fn release_listeners(&mut self) {
        for listener in self.listeners.values_mut() {
            listener.close();
        }
    }

    /// Gives up on output that has not ended.
    pub(super) fn close_output(&mut self, poller: &mut Poller) {
        for part in [Part::Terminal, Part::Stdout, Part::Stderr] {
            self.close_part(part, poller);
        }
    }

    /// Reads one chunk of output and hands it on. Says how the read went.
    pub(super) fn read_output(
        &mut self,
        part: Part,
        buffer: &mut Vec<u8>,
        poller: &mut Poller,
        mut record: impl FnMut(Stream, &[u8]),
    ) -> Read {
        let (fd, stream) = match part {
            Part::Terminal => (&self.terminal, Stream::Stdout),
            Part::Stdout => (&self.stdout, Stream::Stdout),
            Part::Stderr => (&self.stderr, Stream::Stderr),
            Part::Stdin | Part::Listener(_) => return Read::Nothing,
        };
        let Some(fd) = fd else { return Read::End };
        let outcome = loop {
            buffer.clear();
            match rustix::io::read(fd, spare_capacity(buffer)) {
                Err(Errno::INTR) => {}
                other => break other,
            }
        };
        match outcome {
            Ok(count) if count > 0 => {
                record(stream, buffer);
                for listener in self.listeners.values_mut() {
                    self.missing += usize::from(listener.hear(stream, buffer));
                }
                Read::Something
            }
            Err(Errno::AGAIN) => Read::Nothing,
            // A terminal that nobody holds any more says EIO.
            _ => {
                self.close_part(part, poller);
                Read::End
            }
        }
    }

    /// Handles what epoll told of a listener.
    pub(super) fn listener_ready(
        &mut self,
        number: u32,
        flags: EventFlags,
        buffer: &mut Vec<u8>,
        poller: &mut Poller,
    ) {
        let Some(listener) = self.listeners.get_mut(&number) else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            listener.flush();
        }
        let hung_up = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if hung_up {
            listener.hang_up();
        }
        if listener.input_open() && self.input.is_empty() && (hung_up || flags.contains(EventFlags::IN)) {
            match listener.read(buffer) {
                Input::Bytes => self.feed(buffer, poller),
                Input::End => self.input_ended(poller),
                Input::Nothing => {}
            }
        }
    }

    /// Passes input on; what the process does not take now is kept.
    fn feed(&mut self, bytes: &[u8], poller: &mut Poller) {
        let taken = self.write_input(bytes, poller);
        self.input
            .extend_from_slice(bytes.get(taken..).unwrap_or_default());
    }

    /// The process takes input again.
    pub(super) fn input_ready(&mut self, poller: &mut Poller) {
        let input = std::mem::take(&mut self.input);
        let taken = self.write_input(&input, poller);
        if taken < input.len() {
            self.input = input.get(taken..).unwrap_or_default().to_vec();
        } else if self.closing {
            self.close_stdin(poller);
        }
    }

    /// Number of bytes that are dealt with. Without anyone to take them they are thrown away, so that whoever sends
    /// them is not held up.
    fn write_input(&mut self, bytes: &[u8], poller: &mut Poller) -> usize {
        let mut done = 0;
        while done < bytes.len() {
            let Some(fd) = self.terminal.as_ref().or(self.stdin.as_ref()) else {
                return bytes.len();
            };
            match rustix::io::write(fd, bytes.get(done..).unwrap_or_default()) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return done,
                Err(_) => {
                    self.close_stdin(poller);
                    return bytes.len();
                }
            }
        }
        done
    }

    /// A listener has no more input. A terminal has no end of input of its own; the process stays at its prompt.
    fn input_ended(&mut self, poller: &mut Poller) {
        if !self.close_on_end || self.is_terminal() {
            return;
        }
        if self.input.is_empty() {
            self.close_stdin(poller);
        } else {
            self.closing = true;
        }
    }

    fn close_stdin(&mut self, poller: &mut Poller) {
        self.close_part(Part::Stdin, poller);
    }

    fn close_part(&mut self, part: Part, poller: &mut Poller) {
        let slot = match part {
            Part::Terminal => &mut self.terminal,
            Part::Stdin => &mut self.stdin,
            Part::Stdout => &mut self.stdout,
            Part::Stderr => &mut self.stderr,
            Part::Listener(_) => return,
        };
        if let Some(fd) = slot.take() {
            let _ = poller.want(Token::Session(self.number, part), &fd, None);
        }
    }

    /// Drops listeners that are done with, waits no longer for those that have tried everyone's patience, and tells the
    /// poller what is wanted now. With `held_back`, output waits for somebody else too. Returns how many began to miss
    /// output.
    pub(super) fn settle(&mut self, now: Instant, held_back: bool, poller: &mut Poller) -> io::Result<usize> {
        if self.process_ended && self.output_ended() {
            self.release_listeners();
        }
        let number = self.number;
        self.listeners.retain(|id, listener| {
            if listener.deadline().is_some_and(|deadline| deadline <= now) {
                listener.give_up();
            }
            let keep = !listener.is_done();
            if !keep {
                let _ = poller.want(
                    Token::Session(number, Part::Listener(*id)),
                    listener.socket(),
                    None,
                );
            }
            keep
        });
        self.tell(held_back, poller)?;
        Ok(std::mem::take(&mut self.missing))
    }

    fn tell(&self, held_back: bool, poller: &mut Poller) -> io::Result<()> {
        let blocked =
            !self.process_ended && (held_back || self.listeners.values().any(Listener::holds_output));
        let reads = (!blocked).then_some(EventFlags::IN);
        let writes = (!self.input.is_empty()).then_some(EventFlags::OUT);
        let token = |part| Token::Session(self.number, part);
        if let Some(terminal) = &self.terminal {
            let both = match (reads, writes) {
                (None, None) => None,
                (reads, writes) => {
                    Some(reads.unwrap_or(EventFlags::empty()) | writes.unwrap_or(EventFlags::empty()))
                }
            };
            poller.want(token(Part::Terminal), terminal, both)?;
        }
        if let Some(stdin) = &self.stdin {
            poller.want(token(Part::Stdin), stdin, writes)?;
        }
        for (part, fd) in [(Part::Stdout, &self.stdout), (Part::Stderr, &self.stderr)] {
            if let Some(fd) = fd {
                poller.want(token(part), fd, reads)?;
            }
        }
        for (id, listener) in &self.listeners {
            let mut wanted = EventFlags::empty();
            if listener.has_pending() {
                wanted |= EventFlags::OUT;
            }
            let mut held_back = false;
            if listener.input_open() {
                if self.input.is_empty() {
                    wanted |= EventFlags::IN;
                } else {
                    // A hang-up would be told over and over while the input cannot be read.
                    held_back = true;
                }
            }
            let wanted = (!(held_back && wanted.is_empty())).then_some(wanted);
            poller.want(token(Part::Listener(*id)), listener.socket().as_fd(), wanted)?;
        }
        Ok(())
    }

    /// When [`Session::settle`] has something to do even though nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.listeners.values().filter_map(Listener::deadline).min()
    }
}

/// What a read of output brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Something,
    Nothing,
    End,
}
