//! Digests of file contents, remembered by what `stat` says.
//!
//! A file with the same device, inode, size, change time and modification time as when it was read has the
//! same content; the change time can not be set by programs. The memory is bounded and lives as long as the
//! builder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use rustix::fs::Stat;
use spec::{Digest, Hasher};

/// How many files are remembered before all are forgotten.
const MAX_FILES: usize = 200_000;

#[derive(PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    changed: (i64, i64),
    modified: (i64, i64),
}

/// Remembers digests of files.
#[derive(Default)]
pub struct FileDigests {
    known: Mutex<HashMap<Identity, Digest>>,
}

impl FileDigests {
    /// The digest of the content of `file`, whose `stat` was taken from the same open file.
    pub fn digest(&self, file: &mut File, stat: &Stat) -> io::Result<Digest> {
        let identity = Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
        };
        if let Some(digest) = self.lock().get(&identity) {
            return Ok(digest.clone());
        }
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        let digest = hasher.finish();
        let mut known = self.lock();
        if known.len() >= MAX_FILES {
            known.clear();
        }
        known.insert(identity, digest.clone());
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
