//! From a path in a root filesystem to a tar.
//!
//! Entries are named after what was asked for: `/etc` gives `etc/…`, `/etc/.` gives `./…`, and the root gives
//! `/…`; clients take the first component off or rename it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use sys::beneath::{resolve_dir_in_root, resolve_in_root};

use super::path::asked;
use super::stat::raw_stat;
use super::{ArchiveError, Ids};
use crate::layer::{Emitter, Found, LayerError, walk};

/// Writes `path`, and when it is a directory everything below it, as an uncompressed tar. Owners are written as `ids`
/// has them inside.
pub fn pack(
    root: BorrowedFd<'_>,
    path: &str,
    ids: Option<&Ids>,
    out: impl Write,
) -> Result<(), ArchiveError> {
    let asked = asked(path);
    let stat = raw_stat(root, &asked)?;
    let failed = |cause| ArchiveError::at("read", &asked.whole, cause);
    let mut emitter = Emitter::new(out, false).with_ids(ids);
    let name = asked.name.as_bytes();
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        let dir = resolve_dir_in_root(root, &asked.dir).map_err(failed)?;
        let last = asked.last.as_deref().unwrap_or(OsStr::new(""));
        let found = Found {
            dir: dir.as_fd(),
            name: last,
            path: Path::new(last),
            stat: &stat,
        };
        emitter.add(&found, name)?;
        return Ok(emitter.finish().map(|_| ())?);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    // A directory, looked at just now: a link in its place by now is not what was asked for.
    let flags = match asked.last {
        Some(_) => flags | OFlags::NOFOLLOW,
        None => flags,
    };
    let top = resolve_in_root(root, &asked.whole, flags, Mode::empty()).map_err(failed)?;
    Ok(write_tree(emitter, top.as_fd(), name)?)
}

/// Writes a directory with everything below it, under names that begin with `./`, times to the nanosecond and without
/// the holes in files.
pub fn pack_tree(top: BorrowedFd<'_>, out: impl Write) -> Result<(), ArchiveError> {
    Ok(write_tree(Emitter::new(out, true).with_holes(), top, b".")?)
}

fn write_tree<W: Write>(mut emitter: Emitter<W>, top: BorrowedFd<'_>, name: &[u8]) -> Result<(), LayerError> {
    emitter.add_open_directory(top, name)?;
    let prefix: &[u8] = if name == b"/" { b"" } else { name };
    walk(top, |found| {
        let path = [prefix, b"/", found.path.as_os_str().as_bytes()].concat();
        emitter.add(found, &path)
    })?;
    emitter.finish().map(|_| ())
}
