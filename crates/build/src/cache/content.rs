//! Digests of file contents, remembered by what `stat` says, and the files' extended attributes with them.
//!
//! A file with the same device, inode, size, change time and modification time as when it was read has the same content and the
//! same attributes: programs cannot set the change time, and whoever sets an attribute changes it. So a file that is known need not
//! even be opened. The change time counts in ticks of the kernel's clock (`current_time`), though, so a file that
//! is written twice within one tick has one time for two contents. What was changed in the tick in which it was looked at is
//! therefore read and not remembered. The memory is bounded and lives as long as the builder.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Stat, fstat};
use rustix::time::{ClockId, clock_gettime};
use spec::{Digest, Hasher};
use sys::beneath::file_xattrs;

/// How many files are remembered before all are forgotten.
const MAX_FILES: usize = 200_000;
/// The coarsest ticks of filesystems that keep no parts of seconds, in seconds.
const COARSE: i64 = 2;
/// How much of a file is read at once.
const PIECE: usize = 256 << 10;

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

/// What is remembered of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContent {
    pub digest: Digest,
    /// All extended attributes, sorted by name.
    pub attributes: Arc<[(OsString, Vec<u8>)]>,
}

/// Remembers digests of files.
#[derive(Default)]
pub struct FileDigests {
    known: Mutex<HashMap<Identity, FileContent>>,
}

impl FileDigests {
    /// What is remembered of the file that `stat` is of.
    pub fn known(&self, stat: &Stat) -> Option<FileContent> {
        self.lock().get(&Identity::of(stat)).cloned()
    }

    /// Whether so many files more can be remembered.
    pub fn has_room_for(&self, more: usize) -> bool {
        self.lock().len() + more < MAX_FILES
    }

    /// The digest of the content of `file`, which was opened for this and is read from its beginning, and its attributes.
    pub fn read(&self, file: &mut File) -> io::Result<FileContent> {
        // First the time, from the clock that files get theirs of: what happens to the file from here on has this time or
        // a later one.
        let now = clock_gettime(ClockId::RealtimeCoarse);
        let identity = Identity::of(&fstat(&*file)?);
        let attributes = file_xattrs(file.as_fd())?;
        self.of(&identity, (now.tv_sec, now.tv_nsec), attributes, file)
    }

    fn of(
        &self,
        identity: &Identity,
        now: Time,
        attributes: Vec<(OsString, Vec<u8>)>,
        content: &mut impl Read,
    ) -> io::Result<FileContent> {
        if let Some(known) = self.lock().get(identity) {
            return Ok(known.clone());
        }
        // Most files are small, and a large buffer costs more than reading them.
        let size = usize::try_from(identity.size).unwrap_or(0);
        let mut buffer = vec![0; size.saturating_add(1).clamp(512, PIECE)];
        let mut hasher = Hasher::new();
        loop {
            match content.read(&mut buffer)? {
                0 => break,
                read => hasher.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        let content = FileContent {
            digest: hasher.finish(),
            attributes: attributes.into(),
        };
        if !identity.is_settled(now) {
            return Ok(content);
        }
        let mut known = self.lock();
        if known.len() >= MAX_FILES {
            known.clear();
        }
        known.insert(identity.clone(), content.clone());
        Ok(content)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, FileContent>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

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
            let first = digests.of(&identity, now, Vec::new(), &mut &b"one"[..]).unwrap();
            let second = digests.of(&identity, now, Vec::new(), &mut &b"two"[..]).unwrap();
            assert_eq!(first.digest, Digest::sha256(b"one"));
            let expected: &[u8] = if remembered { b"one" } else { b"two" };
            assert_eq!(second.digest, Digest::sha256(expected), "{changed:?} at {now:?}");
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
            let found = look(&digests, &path);
            assert_eq!(found.digest, Digest::sha256(&content), "round {round}");
        }
    }

    /// As who wants a file's digest does it.
    fn look(digests: &FileDigests, path: &Path) -> FileContent {
        let stat = rustix::fs::stat(path).unwrap();
        let known = digests.known(&stat);
        known.unwrap_or_else(|| digests.read(&mut File::open(path).unwrap()).unwrap())
    }

    #[test]
    fn an_attribute_that_is_set_is_seen_and_a_known_file_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "content").unwrap();
        // Beyond the tick of its making.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let digests = FileDigests::default();
        let before = look(&digests, &path);
        let stat = rustix::fs::stat(&path).unwrap();
        assert_eq!(digests.known(&stat), Some(before.clone()));
        let set = rustix::fs::setxattr(&path, "user.colour", b"red", rustix::fs::XattrFlags::empty());
        if set == Err(rustix::io::Errno::NOTSUP) {
            eprintln!("SKIPPED: the filesystem has no attributes of users");
            return;
        }
        set.unwrap();
        let after = look(&digests, &path);
        assert_eq!(after.digest, before.digest);
        assert!(
            after
                .attributes
                .iter()
                .any(|(key, value)| key == "user.colour" && value == b"red")
        );
    }
}
