//! Space on the disk that pulls, loads and builds leave free.
//!
//! A disk that is full hurts everybody on the machine: containers, their databases, the engine. So whatever brings in
//! data asks now and then whether there is still more free than the configured minimum, and stops with an error that says
//! so while there is still room to clean up in. Containers that run are not held back, and removals never are.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use spec::ErrorClass;

/// How many bytes may be written between two looks at the disk.
const STEP: u64 = 16 << 20;

/// How much is to stay free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinFree {
    Bytes(u64),
    /// Of the whole filesystem.
    Percent(u8),
}

impl Default for MinFree {
    fn default() -> MinFree {
        MinFree::Bytes(0)
    }
}

impl FromStr for MinFree {
    type Err = &'static str;

    /// `10%`, or a number of bytes.
    fn from_str(text: &str) -> Result<MinFree, &'static str> {
        match text.strip_suffix('%') {
            Some(number) => match number.trim().parse() {
                Ok(percent) if percent < 100 => Ok(MinFree::Percent(percent)),
                _ => Err("expected less than 100%"),
            },
            None => text
                .parse()
                .map(MinFree::Bytes)
                .map_err(|_| "expected bytes or a percentage"),
        }
    }
}

/// There is less free than is to stay free.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{free} bytes are free on the disk of {}, and min-free keeps {kept} for others: remove something \
     (system prune) or lower min-free", root.display()
)]
pub struct NoRoom {
    pub root: PathBuf,
    pub free: u64,
    pub kept: u64,
}

impl NoRoom {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Unavailable
    }
}

/// The minimum of one data root. Clones share it.
#[derive(Clone)]
pub struct Room {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    least: Mutex<MinFree>,
}

impl Room {
    pub(crate) fn new(root: &Path) -> Room {
        Room {
            inner: Arc::new(Inner {
                root: root.to_owned(),
                least: Mutex::default(),
            }),
        }
    }

    /// From now on this much is to stay free.
    pub fn keep(&self, least: MinFree) {
        *self.inner.least.lock().unwrap_or_else(PoisonError::into_inner) = least;
    }

    /// Whether there is more free than is to stay free. A disk that cannot be asked has room.
    pub fn check(&self) -> Result<(), NoRoom> {
        self.compare(*self.inner.least.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is more free than is to stay free, and at least so many percent of the disk.
    pub fn has(&self, percent: u8) -> bool {
        self.check().is_ok() && self.compare(MinFree::Percent(percent)).is_ok()
    }

    fn compare(&self, least: MinFree) -> Result<(), NoRoom> {
        if least == MinFree::default() {
            return Ok(());
        }
        let Ok(disk) = rustix::fs::statvfs(&self.inner.root) else {
            return Ok(());
        };
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let kept = match least {
            MinFree::Bytes(bytes) => bytes,
            MinFree::Percent(percent) => bytes(disk.f_blocks) / 100 * u64::from(percent),
        };
        let free = bytes(disk.f_bavail);
        match free < kept {
            true => Err(NoRoom {
                root: self.inner.root.clone(),
                free,
                kept,
            }),
            false => Ok(()),
        }
    }

    /// Something that writes much.
    pub fn gate(&self) -> Gate {
        Gate {
            room: self.clone(),
            // Looked at before the first byte.
            unseen: STEP,
        }
    }
}

/// Asks the disk once in a while.
pub struct Gate {
    room: Room,
    unseen: u64,
}

impl Gate {
    /// To be asked before `bytes` are written.
    pub fn pass(&mut self, bytes: usize) -> io::Result<()> {
        self.unseen += bytes as u64;
        if self.unseen >= STEP {
            self.room
                .check()
                .map_err(|error| io::Error::new(io::ErrorKind::StorageFull, error))?;
            self.unseen = 0;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_stay_free_does() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::new(dir.path());
        assert_eq!(room.check(), Ok(()));
        room.keep(MinFree::Percent(99));
        let refused = room.check().unwrap_err();
        assert!(
            refused.free < refused.kept && refused.to_string().contains("min-free"),
            "{refused}"
        );
        assert_eq!(
            room.gate().pass(1).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        room.keep(MinFree::Bytes(1));
        let mut gate = room.gate();
        assert!(gate.pass(1).is_ok());
        room.keep(MinFree::Bytes(u64::MAX));
        // Not at every byte.
        assert!(gate.pass(1000).is_ok() && gate.pass(usize::try_from(STEP).unwrap()).is_err());
    }

    #[test]
    fn minimums_are_read() {
        assert_eq!("10%".parse(), Ok(MinFree::Percent(10)));
        assert_eq!("1000".parse(), Ok(MinFree::Bytes(1000)));
        for wrong in ["", "%", "100%", "-1", "x"] {
            assert!(wrong.parse::<MinFree>().is_err(), "{wrong}");
        }
    }
}
