//! From an entry of a directory to an entry of a tar.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, major, minor, openat, readlinkat};
use rustix::io::Errno;
use store::SharedFiles;
use sys::beneath::{file_xattrs, xattrs};

use super::tar::{Entry, Kind, Time, Writer};
use crate::archive::Ids;

use super::{Found, LayerError, holes, is_overlay_xattr};

/// Attributes that say something about the machine, not about the file.
const HOST_XATTRS: [&str; 4] = [
    "security.selinux",
    "security.ima",
    "security.evm",
    "security.apparmor",
];

/// A tar being written from directories.
pub(crate) struct Emitter<W> {
    writer: Writer<W>,
    nanoseconds: bool,
    /// No time is later, in seconds since 1970.
    latest: Option<i64>,
    ids: Option<Ids>,
    /// Whether holes in files are left out.
    sparse: bool,
    /// Where the content of files is that have none of their own.
    shared: Option<SharedFiles>,
    /// Where files with several names went first.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl<W: Write> Emitter<W> {
    pub(crate) fn new(out: W, nanoseconds: bool) -> Emitter<W> {
        Emitter {
            writer: Writer::new(out),
            nanoseconds,
            latest: None,
            ids: None,
            sparse: false,
            shared: None,
            links: HashMap::new(),
        }
    }

    /// Writes owners as a user namespace has them.
    pub(crate) fn with_ids(mut self, ids: Option<&Ids>) -> Emitter<W> {
        self.ids = ids.cloned();
        self
    }

    /// Leaves holes in files out. Not for layers: whether a file has holes is no property of its content.
    pub(crate) fn with_holes(mut self) -> Emitter<W> {
        self.sparse = true;
        self
    }

    /// Reads directories of layers, which may share their files.
    pub(crate) fn with_shared(mut self, shared: Option<SharedFiles>) -> Emitter<W> {
        self.shared = shared;
        self
    }

    /// Writes no time later than this.
    pub(crate) fn with_latest(mut self, latest: Option<i64>) -> Emitter<W> {
        self.latest = latest;
        self
    }

    pub(crate) fn finish(self) -> Result<W, LayerError> {
        self.writer.finish().map_err(LayerError::Output)
    }

    /// Writes an entry under the name `path`. What has vanished meanwhile, and sockets (nothing without the
    /// process that bound them), are passed over.
    pub(crate) fn add(&mut self, found: &Found<'_>, path: &[u8]) -> Result<(), LayerError> {
        match self.try_add(found, path) {
            Err(Failure::Source(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(Failure::Source(error)) => Err(LayerError::entry("read", path, error)),
            Err(Failure::Layer(error)) => Err(error),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a directory that is held open.
    pub(crate) fn add_open_directory(&mut self, dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
        let failed = |cause| LayerError::entry("read", path, cause);
        let stat = fstat(dir).map_err(|error| failed(error.into()))?;
        let mut entry = self.entry(path, Kind::Directory, &stat);
        entry.xattrs = wanted(file_xattrs(dir).map_err(failed)?);
        self.write(&entry, io::empty())
    }

    /// Writes an empty file that stands for something, with the metadata of an entry.
    pub(crate) fn add_mark(&mut self, path: &[u8], stat: &Stat) -> Result<(), LayerError> {
        let mut entry = self.entry(path, Kind::File, stat);
        (entry.size, entry.mode) = (0, 0);
        self.write(&entry, io::empty())
    }

    fn try_add(&mut self, found: &Found<'_>, path: &[u8]) -> Result<(), Failure> {
        let stat = found.stat;
        let kind = match found.kind() {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(()),
        };
        let mut entry = self.entry(path, kind, stat);
        if kind != Kind::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                entry.kind = Kind::HardLink;
                entry.link = first.clone();
                entry.size = 0;
                return Ok(self.write(&entry, io::empty())?);
            }
        }
        match kind {
            Kind::File => self.file(found, entry)?,
            _ => {
                entry.size = 0;
                if kind == Kind::Symlink {
                    entry.link = readlinkat(found.dir, found.name, Vec::new())?.into_bytes();
                }
                if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                    entry.major = major(stat.st_rdev);
                    entry.minor = minor(stat.st_rdev);
                }
                entry.xattrs = wanted(xattrs(found.dir, found.name)?);
                self.write(&entry, io::empty())?;
            }
        }
        if kind != Kind::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            self.links.insert(inode, path.to_vec());
        }
        Ok(())
    }

    fn file(&mut self, found: &Found<'_>, mut entry: Entry) -> Result<(), Failure> {
        let file = open_file(found.dir, found.name)?;
        // What was opened counts, not what was looked at before.
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        entry.size = u64::try_from(stat.st_size).unwrap_or(0);
        entry.xattrs = wanted(file_xattrs(file.as_fd())?);
        let file = content(self.shared.as_ref(), file)?;
        if self.sparse {
            entry.chunks = holes::parts(&file, &stat)?;
        }
        match entry.chunks.clone() {
            Some(chunks) => Ok(self.write(&entry, holes::Parts::new(file, chunks))?),
            None => Ok(self.write(&entry, file)?),
        }
    }

    fn entry(&self, path: &[u8], kind: Kind, stat: &Stat) -> Entry {
        let late = self.latest.filter(|latest| stat.st_mtime >= *latest);
        let (seconds, nanos) = match late {
            Some(latest) => (latest, 0),
            None => (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        };
        let owner = (stat.st_uid, stat.st_gid);
        let (uid, gid) = self.ids.as_ref().map_or(owner, |ids| ids.inside(owner));
        Entry {
            path: path.to_vec(),
            kind,
            mode: stat.st_mode & 0o7777,
            uid,
            gid,
            mtime: Time {
                seconds,
                nanos: if self.nanoseconds { nanos } else { 0 },
            },
            link: Vec::new(),
            major: 0,
            minor: 0,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            chunks: None,
            xattrs: Vec::new(),
        }
    }

    fn write(&mut self, entry: &Entry, content: impl io::Read) -> Result<(), LayerError> {
        self.writer.append(entry, content).map_err(LayerError::Output)
    }
}

enum Failure {
    /// Of the directory.
    Source(io::Error),
    Layer(LayerError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Source(error)
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Failure {
        Failure::Source(error.into())
    }
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Failure {
        Failure::Layer(error)
    }
}

/// Opens a regular file for reading; does not hang on a pipe that took its place.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?.into())
}

/// The file to read for what is in `file`.
pub(super) fn content(shared: Option<&SharedFiles>, file: File) -> io::Result<File> {
    match shared {
        Some(shared) => shared.content(file),
        None => Ok(file),
    }
}

fn wanted(mut xattrs: Vec<(OsString, Vec<u8>)>) -> Vec<(OsString, Vec<u8>)> {
    xattrs.retain(|(key, _)| {
        !is_overlay_xattr(key) && !HOST_XATTRS.iter().any(|host| key == Path::new(host).as_os_str())
    });
    xattrs
}
