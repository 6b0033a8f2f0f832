//! A blob being written: appended to, hashed on the way, then renamed to its digest.
//!
//! The file of a download is named after its key, so that another attempt finds what the first one got. Its
//! lock keeps a second writer out. What a power cut tore is found by the digest, and then thrown away.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use spec::{Digest, ErrorClass, Hasher};

use super::Content;
use crate::failure::{Context, PathError, is_no_space};
use crate::room::Gate;

/// What files are called that nobody can come back for.
const SCRATCH: &str = "scratch-";
/// Step of reading back what an earlier attempt wrote.
const CHUNK: usize = 256 * 1024;
/// How many files are synced at once.
const SYNCING: usize = 16;
/// After how many bytes the disk is set to work on them, so that who waits for it in the end waits for the last of them.
const BEGUN: u64 = 16 << 20;

/// A blob could not be stored. Whatever the reason, nothing became visible.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The bytes are not those that were asked for.
    #[error("content of {key} has digest {actual}, expected {expected}")]
    DigestMismatch {
        key: String,
        expected: Digest,
        actual: Digest,
    },
    /// More or fewer bytes than announced.
    #[error("content of {key} has {actual} bytes, expected {expected}")]
    SizeMismatch { key: String, expected: u64, actual: u64 },
    /// The same key is being written by somebody else.
    #[error("content of {0} is being written already")]
    Busy(String),
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl IngestError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            IngestError::DigestMismatch { .. } | IngestError::SizeMismatch { .. } => ErrorClass::Invalid,
            IngestError::Busy(_) => ErrorClass::Unavailable,
            IngestError::Io(error) => error.class(),
        }
    }
}

/// A blob being written. Dropping it keeps what was written, for another attempt with the same key.
pub struct Ingest {
    key: String,
    path: PathBuf,
    blobs: PathBuf,
    file: File,
    hasher: Hasher,
    offset: u64,
    /// How many bytes the disk was not set to work on.
    waiting: u64,
    gate: Gate,
    /// Nothing can come of the file any more: it goes when this is dropped.
    doomed: bool,
}

impl Ingest {
    pub(super) fn open(content: &Content, key: &str) -> Result<Ingest, IngestError> {
        let name = Digest::sha256(key.as_bytes());
        let path = content.ingests.join(name.hex());
        let file = lock_current(&path)?.ok_or_else(|| IngestError::Busy(key.to_owned()))?;
        let mut ingest = Ingest {
            key: key.to_owned(),
            path,
            blobs: content.blobs.clone(),
            file,
            hasher: Hasher::new(),
            offset: 0,
            waiting: 0,
            gate: content.room.gate(),
            doomed: false,
        };
        ingest.take_in_earlier()?;
        Ok(ingest)
    }

    /// One that nobody can resume.
    pub(super) fn scratch(content: &Content) -> Result<Ingest, IngestError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{SCRATCH}{}-{count}", std::process::id());
        let path = content.ingests.join(&name);
        let file = lock_current(&path)?.ok_or(IngestError::Busy(name.clone()))?;
        file.set_len(0).at("truncate", &path)?;
        Ok(Ingest {
            key: name,
            path,
            blobs: content.blobs.clone(),
            file,
            hasher: Hasher::new(),
            offset: 0,
            waiting: 0,
            gate: content.room.gate(),
            doomed: false,
        })
    }

    /// How many bytes are there already: where a download goes on.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The file being written.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file opened once more from its beginning, to read what was written while more is being written. Stays
    /// readable after the commit; unverified until then.
    pub fn reader(&self) -> Result<File, IngestError> {
        Ok(File::open(&self.path).at("open", &self.path)?)
    }

    /// Forgets what was written, to begin again from zero (the server can not resume).
    pub fn restart(&mut self) -> Result<(), IngestError> {
        self.file.set_len(0).at("truncate", &self.path)?;
        self.hasher = Hasher::new();
        self.offset = 0;
        Ok(())
    }

    /// Gives up and removes what was written.
    pub fn abort(mut self) {
        self.doomed = true;
    }

    /// Checks what was written and makes it visible under its digest, durably.
    pub fn commit(
        self,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
    ) -> Result<Digest, IngestError> {
        let sealed = self.seal(expected, expected_size)?;
        let digest = sealed.digest.clone();
        publish(vec![sealed])?;
        Ok(digest)
    }

    /// Checks what was written, which is still to be made visible: [`Content::publish`].
    pub fn seal(
        mut self,
        expected: Option<&Digest>,
        expected_size: Option<u64>,
    ) -> Result<Sealed, IngestError> {
        if let Some(size) = expected_size
            && size != self.offset
        {
            // Too short may be gone on with; too long never becomes right.
            self.doomed = self.offset > size;
            return Err(IngestError::SizeMismatch {
                key: self.key.clone(),
                expected: size,
                actual: self.offset,
            });
        }
        self.doomed = true;
        let actual = self.digest(expected)?;
        if let Some(expected) = expected
            && *expected != actual
        {
            return Err(IngestError::DigestMismatch {
                key: self.key.clone(),
                expected: expected.clone(),
                actual,
            });
        }
        sys::fd::begin_writing_back(&self.file);
        Ok(Sealed {
            digest: actual,
            ingest: self,
        })
    }

    /// The digest in the expected one's algorithm. The running hash is sha256; anything else is read again.
    fn digest(&mut self, expected: Option<&Digest>) -> Result<Digest, PathError> {
        match expected {
            Some(expected) if expected.algorithm() != "sha256" => {
                let mut hasher = Hasher::like(expected);
                read_all(&self.path, |bytes| hasher.update(bytes))?;
                Ok(hasher.finish())
            }
            _ => Ok(std::mem::take(&mut self.hasher).finish()),
        }
    }

    fn take_in_earlier(&mut self) -> Result<(), PathError> {
        let mut length = 0;
        let hasher = &mut self.hasher;
        read_all(&self.path, |bytes| {
            hasher.update(bytes);
            length += bytes.len() as u64;
        })?;
        self.offset = length;
        Ok(())
    }
}

/// A blob that is whole and not visible yet. Dropping it gives it up.
pub struct Sealed {
    digest: Digest,
    ingest: Ingest,
}

impl Sealed {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn size(&self) -> u64 {
        self.ingest.offset
    }

    fn sync(&self) -> Result<(), PathError> {
        self.ingest.file.sync_all().at("sync", &self.ingest.path)
    }
}

/// Makes blobs visible, each after it is on the disk, and returns when their names are there as well.
pub(super) fn publish(sealed: Vec<Sealed>) -> Result<(), PathError> {
    sync(&sealed)?;
    let mut directories = BTreeSet::new();
    for mut blob in sealed {
        let directory = blob.ingest.blobs.join(blob.digest.algorithm());
        let target = directory.join(blob.digest.hex());
        fs::rename(&blob.ingest.path, &target).at("rename to its digest", &blob.ingest.path)?;
        // What has its name now is another attempt's.
        blob.ingest.doomed = false;
        directories.insert(directory);
    }
    for directory in directories {
        let handle = File::open(&directory).at("open", &directory)?;
        handle.sync_all().at("sync", &directory)?;
    }
    Ok(())
}

/// Several wait for the disk at once, so that they share the commits of its journal; one after the other each would wait
/// for one of its own.
fn sync(sealed: &[Sealed]) -> Result<(), PathError> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(blob) = sealed.get(next.fetch_add(1, Ordering::Relaxed)) {
            blob.sync()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // A thread that cannot be had leaves its work to the others.
        let helpers = (1..sealed.len().min(SYNCING))
            .filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok());
        let helpers: Vec<_> = helpers.collect();
        let mut done = work();
        for helper in helpers {
            match helper.join() {
                Ok(other) => done = done.and(other),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.gate.pass(bytes.len()).and_then(|()| self.file.write(bytes)) {
            Ok(written) => {
                self.hasher.update(bytes.get(..written).unwrap_or(bytes));
                self.offset += written as u64;
                self.waiting += written as u64;
                if self.waiting >= BEGUN {
                    self.waiting = 0;
                    sys::fd::begin_writing_back(&self.file);
                }
                Ok(written)
            }
            Err(error) => {
                // A full disk gets its space back; another attempt begins anew.
                self.doomed |= is_no_space(&error);
                Err(error)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.doomed
            && let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "a partial download stays until the next start");
        }
    }
}

/// Whether a file in the ingest directory can be of use to nobody.
pub(super) fn is_scratch(name: &OsStr) -> bool {
    name.as_bytes().starts_with(SCRATCH.as_bytes())
}

/// Opens the file for appending and locks it; `None` when somebody else holds it.
fn lock_current(path: &Path) -> Result<Option<File>, PathError> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .at("open", path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error).at("lock", path),
        }
        // The holder before us may have renamed the file to its digest between our open and our lock: then this
        // is a finished blob, which must not be written to.
        if is_same_file(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Locks an existing file that nobody is writing.
pub(super) fn lock_idle(path: &Path) -> Result<Option<File>, PathError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open", path),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if is_same_file(&file, path)? => Ok(Some(file)),
        Ok(()) | Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error).at("lock", path),
    }
}

fn is_same_file(file: &File, path: &Path) -> Result<bool, PathError> {
    let held = file.metadata().at("read", path)?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("read", path),
    }
}

fn read_all(path: &Path, mut take: impl FnMut(&[u8])) -> Result<(), PathError> {
    let mut file = File::open(path).at("open", path)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => take(buffer.get(..length).unwrap_or(&buffer)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).at("read", path),
        }
    }
}
