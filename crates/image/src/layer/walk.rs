//! Walking a directory tree in a fixed order, parents before what is in them, names by their bytes.
//!
//! The tree may belong to a running container that changes it meanwhile: every step is relative to a
//! descriptor and follows no link, and what has vanished is passed over. Only the innermost directories are
//! held open, so depth costs no descriptors.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, statat};
use rustix::io::Errno;
use sys::beneath::{list_sorted, open_beneath_no_links};

use super::LayerError;

/// How many directories are held open.
const OPEN: usize = 24;

/// An entry that was come across.
pub(crate) struct Found<'a> {
    /// The directory it is in.
    pub(crate) dir: BorrowedFd<'a>,
    pub(crate) name: &'a OsStr,
    /// From the top of the tree.
    pub(crate) path: &'a Path,
    pub(crate) stat: &'a Stat,
}

impl Found<'_> {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

struct Frame {
    path: PathBuf,
    names: std::vec::IntoIter<OsString>,
    dir: Option<OwnedFd>,
}

/// Calls `visit` for everything below `root`.
pub(crate) fn walk(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&Found<'_>) -> Result<(), LayerError>,
) -> Result<(), LayerError> {
    let mut frames = Vec::new();
    frames.extend(enter(root, PathBuf::new())?);
    while let Some(frame) = frames.last_mut() {
        let Some(name) = frame.names.next() else {
            frames.pop();
            continue;
        };
        if frame.dir.is_none() {
            match open(root, &frame.path) {
                Ok(dir) => frame.dir = Some(dir),
                Err(error) if is_gone(&error) => {
                    frames.pop();
                    continue;
                }
                Err(error) => return Err(failed(&frame.path, error)),
            }
        }
        let Some(dir) = &frame.dir else { continue };
        let path = frame.path.join(&name);
        let stat = match statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(failed(&path, error.into())),
        };
        let found = Found {
            dir: dir.as_fd(),
            name: &name,
            path: &path,
            stat: &stat,
        };
        visit(&found)?;
        if found.kind() == FileType::Directory {
            frames.extend(enter(root, path)?);
            if let Some(outer) = frames.len().checked_sub(OPEN + 1)
                && let Some(frame) = frames.get_mut(outer)
            {
                frame.dir = None;
            }
        }
    }
    Ok(())
}

fn enter(root: BorrowedFd<'_>, path: PathBuf) -> Result<Option<Frame>, LayerError> {
    let opened = open(root, &path).and_then(|dir| Ok((list_sorted(dir.as_fd())?, dir)));
    match opened {
        Ok((names, dir)) => Ok(Some(Frame {
            path,
            names: names.into_iter(),
            dir: Some(dir),
        })),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(failed(&path, error)),
    }
}

fn open(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    open_beneath_no_links(root, path, flags, Mode::empty())
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

fn failed(path: &Path, cause: io::Error) -> LayerError {
    LayerError::entry("read", path.as_os_str().as_bytes(), cause)
}
