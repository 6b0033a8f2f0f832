//! Epoll with a memory: parts say what they want to hear of, and only differences reach the kernel.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Who an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Token {
    Signals,
    Listener,
    OutOfMemory,
    Dns,
    Relay,
    Log,
    Control(u32),
    Session(u32, Part),
}

/// Part of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Terminal,
    Stdin,
    Stdout,
    Stderr,
    Listener(u32),
}

#[derive(Debug)]
pub(super) struct Poller {
    epoll: OwnedFd,
    numbers: BTreeMap<Token, (u64, EventFlags)>,
    tokens: BTreeMap<u64, Token>,
    next: u64,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll,
            numbers: BTreeMap::new(),
            tokens: BTreeMap::new(),
            next: 0,
        })
    }

    /// Says what `token` wants to hear of `fd`; None takes it out. Empty flags still tell of hang-ups. A part is
    /// taken out before its descriptor is closed.
    pub(super) fn want(&mut self, token: Token, fd: impl AsFd, wanted: Option<EventFlags>) -> io::Result<()> {
        match (self.numbers.get(&token).copied(), wanted) {
            (None, None) => {}
            (Some((_, known)), Some(wanted)) if known == wanted => {}
            (Some((number, _)), Some(wanted)) => {
                epoll::modify(&self.epoll, fd, EventData::new_u64(number), wanted)?;
                self.numbers.insert(token, (number, wanted));
            }
            (None, Some(wanted)) => {
                // Numbers are never used twice, so a late event of a closed part finds nobody.
                self.next += 1;
                epoll::add(&self.epoll, fd, EventData::new_u64(self.next), wanted)?;
                self.numbers.insert(token, (self.next, wanted));
                self.tokens.insert(self.next, token);
            }
            (Some((number, _)), None) => {
                self.numbers.remove(&token);
                self.tokens.remove(&number);
                epoll::delete(&self.epoll, fd)?;
            }
        }
        Ok(())
    }

    /// Forgets a token whose descriptor is closed already.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some((number, _)) = self.numbers.remove(&token) {
            self.tokens.remove(&number);
        }
    }

    /// Waits. An interrupted wait brings nothing.
    pub(super) fn wait(
        &self,
        timeout: Option<Duration>,
        into: &mut Vec<(Token, EventFlags)>,
    ) -> io::Result<()> {
        into.clear();
        let mut events: Vec<Event> = Vec::with_capacity(32);
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        into.extend(events.iter().filter_map(|event| {
            let (number, flags) = (event.data.u64(), event.flags);
            self.tokens.get(&number).map(|token| (*token, flags))
        }));
        Ok(())
    }
}
