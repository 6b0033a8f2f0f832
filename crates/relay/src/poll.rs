//! Epoll with numbers that are never used twice, so that a late event of something that is gone finds nobody.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

/// Events taken at a time.
const BURST: usize = 64;

#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    next: u64,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            next: 0,
        })
    }

    /// The number of the next thing that is watched.
    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn watch(&self, number: u64, fd: impl AsFd, wanted: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(number), wanted)?)
    }

    pub(crate) fn change(&self, number: u64, fd: impl AsFd, wanted: EventFlags) {
        // It fails only for what is not watched.
        let _ = epoll::modify(&self.epoll, fd, EventData::new_u64(number), wanted);
    }

    /// To be called before a socket is closed that another process has open as well: the kernel goes on to watch it.
    pub(crate) fn forget(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// The numbers of what something happened to. An interrupted wait brings nothing.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<u64>> {
        let mut events: Vec<Event> = Vec::with_capacity(BURST);
        // Rounded up, or the last fraction of a wait would be many waits for nothing.
        let timeout = timeout.map(|timeout| match timeout {
            Duration::ZERO => timeout,
            later => later + Duration::from_millis(1),
        });
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(events.iter().map(|event| event.data.u64()).collect())
    }
}
