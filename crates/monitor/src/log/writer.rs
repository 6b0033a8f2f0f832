//! Writing a log: every chunk of output becomes whole entries, at once.

use std::io;
use std::os::fd::BorrowedFd;

use super::config::LogConfig;
use super::lines::{Entry, Splitter, Stream};
use super::pipe::{Pipe, Report};
use super::sink::Sink;
use crate::timestamp;

/// A container's log, open for writing. Only one writer may exist.
#[derive(Debug)]
pub struct Writer {
    stdout: Splitter,
    stderr: Splitter,
    sink: Option<Sink>,
    pipe: Option<Pipe>,
    /// The files could not be written last time.
    failing: bool,
    troubles: Vec<Trouble>,
}

/// Something that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// Output is lost from the files until they can be written again. The first of a streak.
    Files(String),
    /// The forwarder has something to say.
    Forwarder(Report),
}

impl Writer {
    /// Opens the log; what is there already is kept and appended to. A forwarder is started, and has reached the
    /// other end if that is wanted.
    pub fn open(config: &LogConfig) -> io::Result<Self> {
        let sink = match &config.files {
            Some(files) => Some(Sink::open(files, &config.attributes).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot open the log {}: {error}", files.path.display()),
                )
            })?),
            None => None,
        };
        let pipe = match &config.forward {
            Some(forward) => Some(Pipe::open(forward)?),
            None => None,
        };
        Ok(Self {
            stdout: Splitter::new(Stream::Stdout, config.max_line),
            stderr: Splitter::new(Stream::Stderr, config.max_line),
            sink,
            pipe,
            failing: false,
            troubles: Vec::new(),
        })
    }

    /// Records output.
    pub fn push(&mut self, stream: Stream, chunk: &[u8]) {
        self.record(stream, |splitter, now, give| splitter.push(chunk, now, give));
    }

    /// The stream has ended: what has no newline is recorded as it is.
    pub fn finish(&mut self, stream: Stream) {
        self.record(stream, |splitter, now, give| splitter.finish(now, give));
    }

    fn record(&mut self, stream: Stream, split: impl FnOnce(&mut Splitter, u64, &mut dyn FnMut(&Entry<'_>))) {
        if self.sink.is_none() && self.pipe.is_none() {
            return;
        }
        let splitter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        let (sink, pipe) = (&mut self.sink, &mut self.pipe);
        let mut outcome = Ok(());
        split(splitter, timestamp::now(), &mut |entry| {
            if let Some(sink) = sink {
                let added = sink.add(entry);
                outcome = std::mem::replace(&mut outcome, Ok(())).and(added);
            }
            if let Some(pipe) = pipe {
                pipe.add(entry);
            }
        });
        if let Some(sink) = &mut self.sink {
            outcome = outcome.and(sink.flush());
        }
        if let Some(pipe) = &mut self.pipe {
            pipe.flush();
        }
        self.note(outcome);
    }

    fn note(&mut self, outcome: io::Result<()>) {
        match outcome {
            Ok(()) => self.failing = false,
            Err(error) => {
                if !self.failing {
                    self.troubles.push(Trouble::Files(error.to_string()));
                }
                self.failing = true;
            }
        }
    }

    /// What has gone wrong since the last call.
    pub fn troubles(&mut self) -> Vec<Trouble> {
        if let Some(pipe) = &mut self.pipe {
            self.troubles
                .extend(pipe.reports().into_iter().map(Trouble::Forwarder));
        }
        std::mem::take(&mut self.troubles)
    }

    /// The forwarder has not taken enough: nothing more should be pushed before it has.
    pub fn is_full(&self) -> bool {
        self.pipe.as_ref().is_some_and(Pipe::is_full)
    }

    /// Entries wait for the forwarder.
    pub fn has_pending(&self) -> bool {
        self.pipe.as_ref().is_some_and(Pipe::has_pending)
    }

    /// The forwarder's socket: readable when it reports, writable when it takes more. The number is another one for
    /// each forwarder.
    pub fn descriptor(&self) -> Option<(u32, BorrowedFd<'_>)> {
        self.pipe.as_ref().and_then(Pipe::descriptor)
    }

    /// The descriptor is ready.
    pub fn ready(&mut self) {
        if let Some(pipe) = &mut self.pipe {
            pipe.flush();
        }
    }

    /// When [`Writer::age`] has something to do, in nanoseconds since the boot.
    pub fn next_look(&self) -> Option<i64> {
        self.sink.as_ref().and_then(Sink::next_look)
    }

    /// Puts aside and removes what is older than it may become at `now`, in nanoseconds since the boot.
    pub fn age(&mut self, now: i64) {
        if let Some(sink) = &mut self.sink {
            let outcome = sink.age(now);
            self.note(outcome);
        }
    }
}
