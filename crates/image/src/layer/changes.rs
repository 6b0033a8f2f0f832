//! What a snapshot changes in those below it, entry by entry, as `docker diff` tells it: an overlay's upper directory by
//! what it holds, a whole copy by what differs.
//!
//! A directory that only holds changes is told as modified; a deleted directory is told without what was in
//! it; a file that was copied up and is the same is not told.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat, readlinkat};
use serde::{Serialize, Serializer};
use store::{Part, SharedFiles};
use sys::beneath::{is_whiteout, list, xattrs};

use super::emit::{content, open_file};
use super::lowers::{Lowers, Visible, is_opaque};
use super::{Found, LayerError, is_overlay_xattr, walk};

/// What happened to an entry. The numbers are those of Docker's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Modified = 0,
    Added = 1,
    Deleted = 2,
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// One entry that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// Absolute, in the container.
    pub path: PathBuf,
    pub kind: Kind,
}

/// What a snapshot changes, by path.
pub fn changes(part: &Part) -> Result<Vec<Change>, LayerError> {
    let comparison = compare(part)?;
    let absolute = |(path, kind)| Change {
        path: Path::new("/").join(path),
        kind,
    };
    Ok(comparison.found.into_iter().map(absolute).collect())
}

pub(super) fn compare(part: &Part) -> Result<Comparison<'_>, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, &part.dir, flags, Mode::empty())
        .map_err(|error| LayerError::path("open", &part.dir, error.into()))?;
    let mut comparison = Comparison {
        part,
        lowers: Lowers::open(&part.below)?,
        shared: shared(part)?,
        found: BTreeMap::new(),
        touched: Vec::new(),
    };
    let failed =
        |path: &Path, cause: io::Error| LayerError::entry("compare", path.as_os_str().as_bytes(), cause);
    if part.is_whole() {
        let own = list(root.as_fd()).map_err(|cause| failed(Path::new("."), cause))?;
        comparison
            .missing(Path::new(""), own)
            .map_err(|cause| failed(Path::new("."), cause))?;
    }
    walk(root.as_fd(), |found| {
        comparison
            .entry(found)
            .map_err(|cause| failed(found.path, cause))?;
        Ok(())
    })?;
    Ok(comparison)
}

pub(super) struct Comparison<'a> {
    part: &'a Part,
    lowers: Lowers,
    /// Of the snapshot itself, where it is a layer.
    shared: Option<SharedFiles>,
    pub(super) found: BTreeMap<PathBuf, Kind>,
    /// Directories of a whole one whose time alone differs.
    pub(super) touched: Vec<PathBuf>,
}

impl Comparison<'_> {
    fn entry(&mut self, found: &Found<'_>) -> io::Result<()> {
        let below = self.lowers.find(found.path)?;
        if self.part.is_whole() {
            return self.entry_of_whole(found, below);
        }
        let Some(below) = below else {
            // A whiteout of nothing is what is left of something that was made and deleted again.
            if !is_whiteout(found.stat) {
                self.note(found.path, Kind::Added);
            }
            return Ok(());
        };
        if is_whiteout(found.stat) {
            self.note(found.path, Kind::Deleted);
            return Ok(());
        }
        if found.kind() != FileType::Directory {
            if !self.is_same(found, &below, None)? {
                self.note(found.path, Kind::Modified);
            }
            return Ok(());
        }
        if !below.is_directory() || !has_same_metadata(found, &below)? {
            self.note(found.path, Kind::Modified);
        }
        if below.is_directory() && is_opaque(found.dir, found.name)? {
            self.note(found.path, Kind::Modified);
            self.hidden(found)?;
        }
        Ok(())
    }

    /// What an opaque directory hides is deleted, unless it is there anew.
    fn hidden(&mut self, found: &Found<'_>) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(found.dir, found.name, flags, Mode::empty())?;
        self.missing(found.path, list(dir.as_fd())?)
    }

    /// What the layers below have in the directory `path` and `own` lacks.
    fn missing(&mut self, path: &Path, own: Vec<(OsString, FileType)>) -> io::Result<()> {
        let own: HashSet<OsString> = own.into_iter().map(|(name, _)| name).collect();
        for name in self.lowers.names(path)? {
            if !own.contains(&name) {
                self.note(&path.join(name), Kind::Deleted);
            }
        }
        Ok(())
    }

    fn entry_of_whole(&mut self, found: &Found<'_>, below: Option<Visible>) -> io::Result<()> {
        let Some(below) = below else {
            self.note(found.path, Kind::Added);
            return Ok(());
        };
        if found.kind() != FileType::Directory {
            if below.is_directory() || !self.is_same(found, &below, Some(self.part))? {
                self.note(found.path, Kind::Modified);
            }
            return Ok(());
        }
        if !below.is_directory() {
            self.note(found.path, Kind::Modified);
            return Ok(());
        }
        if !has_same_metadata(found, &below)? {
            self.note(found.path, Kind::Modified);
        } else if !has_same_time(found, &below) {
            self.touched.push(found.path.to_owned());
        }
        self.hidden(found)
    }

    /// A file that overlayfs copied up keeps its time, so one with the same metadata is the same; where times have
    /// no fraction, the content decides. In a whole one it decides unless the file was not touched since it was copied.
    fn is_same(&self, found: &Found<'_>, below: &Visible, whole: Option<&Part>) -> io::Result<bool> {
        let (a, b) = (found.stat, &below.stat);
        if FileType::from_raw_mode(b.st_mode) != found.kind() || !has_same_metadata(found, below)? {
            return Ok(false);
        }
        match found.kind() {
            FileType::Symlink => {
                let own = readlinkat(found.dir, found.name, Vec::new())?;
                Ok(own == readlinkat(&below.dir, &below.name, Vec::new())?)
            }
            FileType::RegularFile => {
                if a.st_size != b.st_size || !has_same_time(found, below) {
                    return Ok(false);
                }
                let known = match whole {
                    Some(part) => !part.changed_after(a),
                    None => a.st_mtime_nsec != 0,
                };
                Ok(known
                    || has_same_content(
                        content(self.shared.as_ref(), open_file(found.dir, found.name)?)?,
                        self.lowers.open_file(below)?,
                    )?)
            }
            _ => Ok(a.st_rdev == b.st_rdev),
        }
    }

    pub(super) fn note(&mut self, path: &Path, kind: Kind) {
        self.found.insert(path.to_owned(), kind);
        for parent in path.ancestors().skip(1) {
            if parent.as_os_str().is_empty() {
                break;
            }
            self.found.entry(parent.to_owned()).or_insert(Kind::Modified);
        }
    }
}

/// Where the content of files is that a layer's directory has without.
pub(super) fn shared(part: &Part) -> Result<Option<SharedFiles>, LayerError> {
    match part.is_layer() {
        true => SharedFiles::beside(&part.dir).map_err(|error| LayerError::path("open", &part.dir, error)),
        false => Ok(None),
    }
}

fn has_same_time(found: &Found<'_>, below: &Visible) -> bool {
    let (a, b) = (found.stat, &below.stat);
    (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}

fn has_same_metadata(found: &Found<'_>, below: &Visible) -> io::Result<bool> {
    let (a, b) = (found.stat, &below.stat);
    if (a.st_mode, a.st_uid, a.st_gid) != (b.st_mode, b.st_uid, b.st_gid) {
        return Ok(false);
    }
    let own = own_xattrs(found.dir, found.name)?;
    Ok(own == own_xattrs(below.dir.as_fd(), &below.name)?)
}

fn own_xattrs(dir: BorrowedFd<'_>, name: &std::ffi::OsStr) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut found = xattrs(dir, name)?;
    found.retain(|(key, _)| !is_overlay_xattr(key));
    Ok(found)
}

fn has_same_content(mut a: impl Read, mut b: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let length = fill(&mut a, &mut left)?;
        if length != fill(&mut b, &mut right)? || left.get(..length) != right.get(..length) {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
