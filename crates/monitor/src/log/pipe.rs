//! The way to the forwarder: a process of its own, started when a driver needs one, so that the network's waiting,
//! its libraries and their memory are no part of the monitor.
//!
//! ```text
//!   monitor ── Forward (a line of JSON) ──> forwarder
//!           <── Report::Ready or Failed ──
//!           ── framed entries … ──────────>           the socket's end is the end of the log
//!           <── Report … ─────────────────
//! ```
//!
//! The socket never blocks the monitor. What the forwarder has not taken waits here, within bounds.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};

use super::lines::Entry;
use super::local;
use crate::forward::Forward;
use crate::wire::{self, Filled, Lines};

/// Output waits when this much does.
const HIGH_WATER: usize = 256 * 1024;
/// How long the first connection may take.
const FIRST_ANSWER: Duration = Duration::from_secs(30);
/// Between two attempts to start a forwarder that died.
const AGAIN: Duration = Duration::from_secs(1);

/// What a forwarder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    Ready,
    /// It cannot do its work.
    Failed(String),
    /// The other end cannot be reached; entries wait or are dropped. The first of a streak.
    Unreachable(String),
    /// Entries that were not delivered.
    Dropped {
        entries: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Pipe {
    forward: Forward,
    socket: Option<UnixStream>,
    lines: Lines,
    pending: Vec<u8>,
    sent: usize,
    /// Entries that came while there was no forwarder.
    lost: u64,
    next_try: Instant,
    reports: Vec<Report>,
    starts: u32,
}

impl Pipe {
    pub(super) fn open(forward: &Forward) -> io::Result<Self> {
        let mut pipe = Self {
            forward: forward.clone(),
            socket: None,
            lines: Lines::default(),
            pending: Vec::new(),
            sent: 0,
            lost: 0,
            next_try: Instant::now(),
            reports: Vec::new(),
            starts: 0,
        };
        pipe.start(forward.connect_first).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("failed to initialize logging driver: {error}"),
            )
        })?;
        Ok(pipe)
    }

    fn start(&mut self, connect_first: bool) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        // Our own binary, also when its file has been replaced. The root directory is the monitor's already.
        Command::new("/proc/self/exe")
            .arg(crate::forward::ROLE)
            .arg(self.forward.source.id.chars().take(12).collect::<String>())
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        ours.set_read_timeout(Some(FIRST_ANSWER))?;
        let told = Forward {
            connect_first,
            ..self.forward.clone()
        };
        wire::send(&ours, &told, &[])?;
        let mut lines = Lines::default();
        match lines.receive::<Report>(&ours)?.0 {
            Report::Failed(message) => return Err(io::Error::other(message)),
            Report::Ready => {}
            other => self.reports.push(other),
        }
        ours.set_read_timeout(None)?;
        ours.set_nonblocking(true)?;
        self.lines = lines;
        self.socket = Some(ours);
        self.starts += 1;
        Ok(())
    }

    pub(super) fn add(&mut self, entry: &Entry<'_>) {
        if self.socket.is_none() {
            self.lost += 1;
        } else {
            local::append(entry, &mut self.pending);
        }
    }

    pub(super) fn flush(&mut self) {
        if self.socket.is_none() {
            self.try_again();
        }
        self.read_reports();
        while let (Some(socket), Some(rest)) = (
            &self.socket,
            self.pending.get(self.sent..).filter(|rest| !rest.is_empty()),
        ) {
            match rustix::net::send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.sent += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    self.pending.drain(..self.sent);
                    self.sent = 0;
                    return;
                }
                Err(error) => {
                    self.died(&error.to_string());
                    return;
                }
            }
        }
        self.sent = 0;
        self.pending = Vec::new();
    }

    fn read_reports(&mut self) {
        while let Some(socket) = &self.socket {
            match self.lines.fill(socket) {
                Ok(Filled::Something) => {}
                Ok(Filled::Nothing) => break,
                Ok(Filled::End) => self.died("it has ended"),
                Err(error) => self.died(&error.to_string()),
            }
        }
        while let Ok(Some((report, _))) = self.lines.next::<Report>() {
            self.reports.push(report);
        }
    }

    fn died(&mut self, reason: &str) {
        self.socket = None;
        self.pending = Vec::new();
        self.sent = 0;
        self.next_try = Instant::now() + AGAIN;
        self.reports
            .push(Report::Failed(format!("the forwarder is gone: {reason}")));
    }

    fn try_again(&mut self) {
        if Instant::now() < self.next_try {
            return;
        }
        self.next_try = Instant::now() + AGAIN;
        if self.start(false).is_ok() && self.lost > 0 {
            self.reports.push(Report::Dropped {
                entries: std::mem::take(&mut self.lost),
            });
        }
    }

    pub(super) fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.len() - self.sent >= HIGH_WATER
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// With the number of the forwarder it belongs to.
    pub(super) fn descriptor(&self) -> Option<(u32, BorrowedFd<'_>)> {
        Some((self.starts, self.socket.as_ref()?.as_fd()))
    }
}
