//! The tar format as container images use it: POSIX ustar with PAX extensions, read together with the GNU
//! extensions (long names, base-256 numbers, sparse files) and what libarchive and star add (attributes).
//!
//! An archive is hostile: every length is bounded before memory is taken for it, checksums are verified, and an
//! error names the entry. Names are bytes; nothing here interprets a path, that is for whoever places entries.
//!
//! Sources: POSIX.1-2017 pax(1), "ustar Interchange Format" and "pax Extended Header"; GNU tar manual,
//! "Basic Tar Format" and "Storing Sparse Files"; libarchive tar(5).

mod header;
mod pax;
mod read;
mod sparse;
mod write;

use std::ffi::OsString;
use std::io;

pub(crate) use read::{Content, Reader};
pub(crate) use write::Writer;

pub(crate) const BLOCK: usize = 512;
/// The longest extension of one entry, in as many headers as it comes: names and attributes. The reference implementation in Go
/// has the same for one header.
pub(crate) const MAX_EXTENSION: u64 = 1024 * 1024;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// A point in time, in seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

/// A part of a sparse file that has content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One entry with everything its extensions say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// As written, a directory's without its trailing slash.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    /// Of a symbolic or hard link.
    pub(crate) link: Vec<u8>,
    /// Of a device.
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Of a file, holes included.
    pub(crate) size: u64,
    /// The parts that are in the archive, in order; `None`: all of it.
    pub(crate) chunks: Option<Vec<Chunk>>,
    pub(crate) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// An archive can not be read.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// It ends in the middle of something.
    #[error("the archive ends early, in {entry}")]
    Truncated { entry: String },
    /// Something in it makes no sense.
    #[error("the archive is broken at {entry}: {reason}")]
    Broken { entry: String, reason: &'static str },
    /// It is well formed, but cannot be unpacked here.
    #[error("the archive cannot be used because of {entry}: {reason}")]
    Unsupported { entry: String, reason: &'static str },
    /// Reading it failed.
    #[error("cannot read the archive at {entry}: {cause}")]
    Read { entry: String, cause: io::Error },
}

/// A name for error texts: quoted, and cut where it is long.
pub(crate) fn display(path: &[u8]) -> String {
    const MAX: usize = 200;
    let shown = String::from_utf8_lossy(path.get(..MAX).unwrap_or(path));
    let dots = if path.len() > MAX { "…" } else { "" };
    format!("{:?}{dots}", shown)
}
