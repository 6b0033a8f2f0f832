//! A little space kept for the day the disk is full: removing something writes to the database too, and a full disk that
//! nothing can be removed from stays full.
//!
//! `ROOT/reserve` is a file of [`SIZE`] bytes without content. It goes when a removal finds less than that free, and comes
//! back when there is plenty.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;

/// Bytes. A removal writes a few pages of 4 KiB to the database's log.
const SIZE: u64 = 1 << 20;
/// With this many times its size free the reserve is made again.
const PLENTY: u64 = 8;

pub(crate) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    /// Of the database at `db`.
    pub(crate) fn beside(db: &Path) -> Reserve {
        let reserve = Reserve {
            path: db.with_file_name("reserve"),
        };
        reserve.settle();
        reserve
    }

    /// Gives the space up, or takes it, as the disk is now. Never fails: without a reserve everything works but for a
    /// removal on a full disk, which then says so itself.
    pub(crate) fn settle(&self) {
        let Some(free) = self.free() else { return };
        let changed = if free < SIZE {
            fs::remove_file(&self.path)
        } else if free >= SIZE * PLENTY && !self.path.exists() {
            self.take()
        } else {
            return;
        };
        match changed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "the space kept for a full disk could not be changed");
            }
            _ => {}
        }
    }

    /// Bytes free on the disk.
    fn free(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(self.path.parent()?).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn take(&self) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.path)?;
        let taken = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE);
        if taken.is_err() {
            // A file without its blocks would pass for a reserve.
            fs::remove_file(&self.path)?;
        }
        Ok(taken?)
    }
}
