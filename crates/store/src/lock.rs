//! One daemon per data root: an exclusive flock(2) on `ROOT/lock`, which also tells who holds it.
//!
//! The kernel drops the lock with the process, however it ends, so a stale lock can not exist. A child that the
//! process had just cloned, and that had not become another program yet, may hold it for a moment longer; then the
//! holder told in the file is gone already, and it is waited for. The file stays: removing it would let two daemons
//! hold locks on two files of the same name.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::{Context, PathError};
use crate::open::OpenError;

/// How long something of a process that is gone may still hold the lock.
const ORPHANED: Duration = Duration::from_secs(5);

/// The held lock.
pub(crate) struct RootLock {
    _file: File,
}

impl RootLock {
    pub(crate) fn take(root: &Path) -> Result<RootLock, OpenError> {
        let path = root.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        let deadline = Instant::now() + ORPHANED;
        let locked = loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) if Instant::now() < deadline && holder(&file).is_some_and(is_gone) => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                locked => break locked,
            }
        };
        match locked {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(OpenError::Locked {
                    root: root.to_owned(),
                    holder: holder(&file),
                });
            }
            Err(error) => {
                return Err(PathError {
                    action: "lock",
                    path,
                    cause: error.into(),
                }
                .into());
            }
        }
        // Who holds it is a courtesy to whoever is refused: not worth failing for when the disk is full.
        let _ = file.set_len(0);
        let _ = write!(file, "{}", std::process::id());
        Ok(RootLock { _file: file })
    }
}

/// The pid in the file: an answer of the holder's, so only digits of sane length count.
fn holder(file: &File) -> Option<u32> {
    let mut text = [0; 16];
    let length = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..length)?).ok()?.trim().parse().ok()
}

/// Whether the process has ended. One that nobody waited for yet has no command line.
fn is_gone(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |line| line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_that_is_gone_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let held = RootLock::take(root.path()).unwrap();
        // The holder lives: no waiting.
        assert!(matches!(
            RootLock::take(root.path()),
            Err(OpenError::Locked { holder: Some(_), .. })
        ));
        // As after a kill: the file names one who is gone, and something of his still has the lock.
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        std::fs::write(root.path().join("lock"), gone.id().to_string()).unwrap();
        let waiting = std::thread::spawn({
            let root = root.path().to_owned();
            move || RootLock::take(&root).is_ok()
        });
        std::thread::sleep(Duration::from_millis(50));
        drop(held);
        assert!(waiting.join().unwrap());
    }
}
