//! One daemon per data root: an exclusive flock(2) on `ROOT/lock`, which also tells who holds it.
//!
//! The kernel drops the lock with the process, however it ends, so a stale lock can not exist. The file stays:
//! removing it would let two daemons hold locks on two files of the same name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::{Context, PathError};
use crate::open::OpenError;

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
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
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
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
