//! Content-addressed blobs: `content/blobs/<algorithm>/<hex>`.
//!
//! A blob is written under `content/ingest/`, hashed on the way, synced, and only then renamed to its digest;
//! the directory is synced after the rename. Several are synced at once ([`Content::publish`]). So a blob that can be seen has the digest it is named after, and
//! stays after a power cut.

mod away;
mod damage;
mod ingest;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use spec::{Digest, ErrorClass};

use crate::failure::{Context, PathError};
use crate::room::Room;
use crate::trash::{Discarded, Trash};

pub use away::{Away, Bring, NotBrought};
pub use ingest::{Ingest, IngestError, Sealed};

/// How long the beginning of a blob is kept for a download to be resumed.
const PARTIAL_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often a blob is brought for one reading of it.
const BRINGS: usize = 3;
/// The algorithms a digest can have, each with its directory.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// A blob could not be read or removed.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// No such blob.
    #[error("content {0} not found")]
    NotFound(Digest),
    /// Bigger than the reader allows for.
    #[error("content {digest} has {size} bytes, at most {max} are read here")]
    TooLarge { digest: Digest, size: u64, max: u64 },
    /// Its bytes are not on the disk and could not be had again.
    #[error(transparent)]
    Away(#[from] NotBrought),
    /// Whoever wanted it read says that it is no longer wanted.
    #[error("the reading of content {0} was given up")]
    GivenUp(Digest),
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
}

impl ContentError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            ContentError::NotFound(_) => ErrorClass::NotFound,
            ContentError::TooLarge { .. } => ErrorClass::Invalid,
            ContentError::Away(error) => error.class,
            ContentError::GivenUp(_) => ErrorClass::Unavailable,
            ContentError::Io(error) => error.class(),
        }
    }
}

/// The blobs of a store.
pub struct Content {
    blobs: PathBuf,
    ingests: PathBuf,
    trash: Trash,
    room: Room,
    aways: away::Aways,
}

impl Content {
    /// `dir` exists; its directories are made here.
    pub(crate) fn create(dir: &Path, trash: Trash, room: Room) -> Result<Content, PathError> {
        let content = Content {
            blobs: dir.join("blobs"),
            ingests: dir.join("ingest"),
            trash,
            room,
            aways: away::Aways::default(),
        };
        for algorithm in ALGORITHMS {
            let path = content.blobs.join(algorithm);
            fs::create_dir_all(&path).at("create directory", &path)?;
        }
        let path = &content.ingests;
        fs::create_dir_all(path).at("create directory", path)?;
        content.forget_stale_ingests()?;
        Ok(content)
    }

    /// Whether the blob is here, or can be had again.
    pub fn has(&self, digest: &Digest) -> bool {
        self.size(digest).is_some()
    }

    /// The blob's size in bytes.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        match fs::metadata(self.path(digest)) {
            Ok(meta) => Some(meta.len()),
            Err(_) => self.aways.size(digest),
        }
    }

    /// What its removal gives back; nothing when it is not here.
    pub fn disk_bytes(&self, digest: &Digest) -> u64 {
        fs::metadata(self.path(digest)).map_or(0, |meta| meta.blocks() * 512)
    }

    /// Where the blob is, or would be. Not to be written to.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.algorithm()).join(digest.hex())
    }

    /// Opens the blob for reading. One that is not on the disk is brought there first, which may take long.
    pub fn open(&self, digest: &Digest) -> Result<File, ContentError> {
        let path = self.path(digest);
        let mut brought = 0;
        loop {
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    // Where no lease holds it, what was brought may be let go again before it is open.
                    if brought == BRINGS {
                        return Err(ContentError::NotFound(digest.clone()));
                    }
                    self.bring(digest)?;
                    brought += 1;
                }
                other => return Ok(other.at("open", &path)?),
            }
        }
    }

    /// The whole blob, when it has at most `max` bytes.
    pub fn read(&self, digest: &Digest, max: u64) -> Result<Vec<u8>, ContentError> {
        let file = self.open(digest)?;
        let path = self.path(digest);
        let size = file.metadata().at("read", &path)?.len();
        if size > max {
            return Err(ContentError::TooLarge {
                digest: digest.clone(),
                size,
                max,
            });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.take(max).read_to_end(&mut bytes).at("read", &path)?;
        Ok(bytes)
    }

    /// Starts, or goes on with, the download that `key` names. Only one at a time per key.
    pub fn ingest(&self, key: &str) -> Result<Ingest, IngestError> {
        Ingest::open(self, key)
    }

    /// A blob whose digest nobody knows yet, so that nobody can go on with it: it goes with the process that writes it.
    pub fn scratch(&self) -> Result<Ingest, IngestError> {
        Ingest::scratch(self)
    }

    /// Stores bytes at hand.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, IngestError> {
        let digest = Digest::sha256(bytes);
        if let Some(sealed) = self.seal(bytes, &digest)? {
            self.publish(vec![sealed])?;
        }
        Ok(digest)
    }

    /// Bytes at hand, whose digest this is, as a blob to be made visible; nothing where it is here already.
    pub fn seal(&self, bytes: &[u8], digest: &Digest) -> Result<Option<Sealed>, IngestError> {
        if self.is_stored(digest) && self.size(digest) == Some(bytes.len() as u64) {
            return Ok(None);
        }
        let mut ingest = Ingest::scratch(self)?;
        if let Err(cause) = ingest.write_all(bytes) {
            let failure = PathError {
                action: "write",
                path: ingest.path().to_owned(),
                cause,
            };
            ingest.abort();
            return Err(failure.into());
        }
        let sealed = ingest.seal(Some(digest), Some(bytes.len() as u64))?;
        Ok(Some(sealed))
    }

    /// Makes blobs visible under their digests, durably. The disk is waited for once, however many they are.
    pub fn publish(&self, sealed: Vec<Sealed>) -> Result<(), IngestError> {
        Ok(ingest::publish(sealed)?)
    }

    /// Removes a blob; not an error when it is not here.
    pub fn remove(&self, digest: &Digest) -> Result<(), ContentError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Ok(Err(error).at("remove", &path)?),
            _ => Ok(()),
        }
    }

    /// All blobs with their sizes.
    pub fn list(&self) -> Result<Vec<(Digest, u64)>, ContentError> {
        let mut found = Vec::new();
        for algorithm in ALGORITHMS {
            let dir = self.blobs.join(algorithm);
            for entry in fs::read_dir(&dir).at("read", &dir)? {
                let entry = entry.at("read", &dir)?;
                let name = entry.file_name();
                let digest = name
                    .to_str()
                    .and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
                // Not ours, so neither listed nor removed.
                let Some(digest) = digest else { continue };
                match entry.metadata() {
                    Ok(meta) => found.push((digest, meta.len())),
                    // Removed since the directory was read.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Ok(Err(error).at("read", &entry.path())?),
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Takes a blob out of sight, for garbage collection.
    pub(crate) fn discard(&self, digest: &Digest) -> Result<Option<Discarded>, PathError> {
        self.trash.discard(&self.path(digest))
    }

    /// Removes scratch files of dead processes and partial downloads nobody came back for. Only at open, while
    /// nothing is under way.
    fn forget_stale_ingests(&self) -> Result<(), PathError> {
        let dir = &self.ingests;
        for entry in fs::read_dir(dir).at("read", dir)? {
            let entry = entry.at("read", dir)?;
            let scratch = ingest::is_scratch(&entry.file_name());
            let fresh = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|time| is_fresh(time, SystemTime::now()));
            if scratch || !fresh {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
            }
        }
        Ok(())
    }

    /// What [`Content::remove_partial`] would give back.
    pub fn partial_bytes(&self) -> Result<u64, ContentError> {
        self.each_partial(|_| Ok(()))
    }

    /// Removes every partial download that is not under way; returns the bytes given back.
    pub fn remove_partial(&self) -> Result<u64, ContentError> {
        self.each_partial(|path| Ok(fs::remove_file(path).at("remove", path)?))
    }

    /// Visits those that are not under way, and gives the bytes of them all.
    fn each_partial(&self, visit: impl Fn(&Path) -> Result<(), ContentError>) -> Result<u64, ContentError> {
        let dir = &self.ingests;
        let mut bytes = 0;
        for entry in fs::read_dir(dir).at("read", dir)? {
            let path = entry.at("read", dir)?.path();
            // Held over the visit: nobody goes on with it meanwhile.
            if let Some(file) = ingest::lock_idle(&path)? {
                bytes += file.metadata().at("read", &path)?.len();
                visit(&path)?;
            }
        }
        Ok(bytes)
    }
}

/// A file from the future (the clock was set back) is fresh.
fn is_fresh(modified: SystemTime, now: SystemTime) -> bool {
    now.duration_since(modified)
        .map_or(true, |age| age < PARTIAL_KEPT)
}
