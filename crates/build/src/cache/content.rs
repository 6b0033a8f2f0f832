//! Digests of file contents, remembered by what `stat` says.
//!
//! A file with the same device, inode, size, change time and modification time as when it was read has the same content:
//! programs cannot set the change time. It counts in ticks of the kernel's clock (`current_time`), though, so a file that
//! is written twice within one tick has one time for two contents. What was changed in the tick in which it was looked at is
//! therefore read and not remembered. The memory is bounded and lives as long as the builder.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Stat, fstat};
use rustix::time::{ClockId, clock_gettime};
use spec::{Digest, Hasher};

/// How many files are remembered before all are forgotten.
const MAX_FILES: usize = 200_000;
/// The coarsest ticks of filesystems that keep no parts of seconds, in seconds.
const COARSE: i64 = 2;

/// Seconds and nanoseconds since 1970.
type Time = (i64, i64);

#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    changed: Time,
    modified: Time,
}

impl Identity {
    fn of(stat: &Stat) -> Identity {
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec as i64),
            modified: (stat.st_mtime, stat.st_mtime_nsec as i64),
        }
    }

    /// Whether another content would have another identity, if the file is changed at `now` or later.
    fn is_settled(&self, now: Time) -> bool {
        match self.changed {
            (second, 0) => second < now.0.saturating_sub(COARSE),
            changed => changed < now,
        }
    }
}

/// Remembers digests of files.
#[derive(Default)]
pub struct FileDigests {
    known: Mutex<HashMap<Identity, Digest>>,
}

impl FileDigests {
    /// The digest of the content of `file`, which was opened for this and is read from its beginning.
    pub fn digest(&self, file: &mut File) -> io::Result<Digest> {
        // First the time, from the clock that files get theirs of: what happens to the file from here on has this time or
        // a later one.
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let identity = Identity::of(&fstat(&*file)?);
        self.of(&identity, (now.tv_sec, now.tv_nsec), file)
    }

    fn of(&self, identity: &Identity, now: Time, content: &mut impl Read) -> io::Result<Digest> {
        if let Some(digest) = self.lock().get(identity) {
            return Ok(digest.clone());
        }
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        let digest = hasher.finish();
        if !identity.is_settled(now) {
            return Ok(digest);
        }
        let mut known = self.lock();
        if known.len() >= MAX_FILES {
            known.clear();
        }
        known.insert(identity.clone(), digest.clone());
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn identity(changed: Time) -> Identity {
        Identity {
            device: 1,
            inode: 2,
            size: 3,
            changed,
            modified: (100, 500),
        }
    }

    #[test]
    fn one_identity_may_have_two_contents_in_the_tick_of_its_change_and_one_afterwards() {
        for (changed, now, remembered) in [
            ((100, 500), (100, 500), false),
            ((100, 500), (100, 501), true),
            // The clock was set back.
            ((100, 500), (90, 0), false),
            // A filesystem that keeps seconds only, or every other one.
            ((100, 0), (100, 900), false),
            ((100, 0), (102, 900), false),
            ((100, 0), (103, 0), true),
        ] {
            let digests = FileDigests::default();
            let identity = identity(changed);
            let first = digests.of(&identity, now, &mut &b"one"[..]).unwrap();
            let second = digests.of(&identity, now, &mut &b"two"[..]).unwrap();
            assert_eq!(first, Digest::sha256(b"one"));
            let expected: &[u8] = if remembered { b"one" } else { b"two" };
            assert_eq!(second, Digest::sha256(expected), "{changed:?} at {now:?}");
        }
    }

    #[test]
    fn a_file_that_is_rewritten_over_and_over_never_has_an_old_digest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let digests = FileDigests::default();
        for round in 0..5_000u32 {
            // The same size, and mostly the same tick.
            let content = round.to_le_bytes();
            fs::write(&path, content).unwrap();
            let found = digests.digest(&mut File::open(&path).unwrap()).unwrap();
            assert_eq!(found, Digest::sha256(&content), "round {round}");
        }
    }
}
