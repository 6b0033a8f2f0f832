//! What a stack of layer directories shows, without mounting it.
//!
//! The rules are overlayfs': the topmost entry wins; a whiteout hides what is below it; a directory merges with
//! the directories below it unless it is opaque, and anything else hides them (Linux,
//! Documentation/filesystems/overlayfs.rst).

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, openat, statat};
use rustix::io::Errno;
use store::SharedFiles;
use sys::beneath::{get_xattr, is_whiteout, list};

use super::emit::{content, open_file};
use super::{LayerError, OPAQUE_XATTR};

/// A stack of layer directories, top first.
pub(super) struct Lowers {
    dirs: Vec<OwnedFd>,
    shared: Option<SharedFiles>,
}

/// The topmost entry of a path that is visible.
pub(super) struct Visible {
    /// The directory it is in, and its name there.
    pub(super) dir: OwnedFd,
    pub(super) name: OsString,
    pub(super) stat: Stat,
}

impl Visible {
    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Directory
    }
}

/// What one layer says about a path.
enum Says {
    Nothing,
    /// Nothing, and no layer below counts.
    Hidden,
    Entry(Visible, /* whether layers below may add to it */ bool),
}

impl Lowers {
    pub(super) fn open(paths: &[PathBuf]) -> Result<Lowers, LayerError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            openat(CWD, path, flags, Mode::empty())
                .map_err(|error| LayerError::path("open layer", path, error.into()))
        };
        let shared = match paths.first() {
            Some(top) => {
                SharedFiles::beside(top).map_err(|error| LayerError::path("open layer", top, error))?
            }
            None => None,
        };
        Ok(Lowers {
            shared,
            dirs: paths.iter().map(open).collect::<Result<_, _>>()?,
        })
    }

    /// Opens a file that one of the layers has, to read what is in it.
    pub(super) fn open_file(&self, found: &Visible) -> io::Result<File> {
        content(self.shared.as_ref(), open_file(found.dir.as_fd(), &found.name)?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.dirs.is_empty()
    }

    /// The entry at `path`, which has only plain components; links in it are not followed.
    pub(super) fn find(&self, path: &Path) -> io::Result<Option<Visible>> {
        for dir in &self.dirs {
            match look(dir.as_fd(), path)? {
                Says::Nothing => {}
                Says::Hidden => return Ok(None),
                Says::Entry(found, _) => return Ok(Some(found)),
            }
        }
        Ok(None)
    }

    /// Whether a directory is visible at `path`.
    pub(super) fn has_directory(&self, path: &Path) -> io::Result<bool> {
        Ok(self.find(path)?.is_some_and(|found| found.is_directory()))
    }

    /// The names that are visible in the directory at `path`.
    pub(super) fn names(&self, path: &Path) -> io::Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        let mut hidden = BTreeSet::new();
        for root in &self.dirs {
            let (found, more) = match look(root.as_fd(), path)? {
                Says::Nothing => continue,
                Says::Hidden => break,
                Says::Entry(found, more) => (found, more),
            };
            if !found.is_directory() {
                break;
            }
            let dir = open_directory(found.dir.as_fd(), &found.name)?;
            for (name, _) in list(dir.as_fd())? {
                if hidden.contains(&name) {
                    continue;
                }
                if is_whiteout(&statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                    hidden.insert(name);
                } else {
                    hidden.insert(name.clone());
                    names.insert(name);
                }
            }
            if !more {
                break;
            }
        }
        Ok(names)
    }
}

fn look(root: BorrowedFd<'_>, path: &Path) -> io::Result<Says> {
    let mut dir = open_directory(root, OsStr::new("."))?;
    let mut merges = true;
    let mut components = path.iter().peekable();
    if components.peek().is_none() {
        let stat = statat(&dir, c".", AtFlags::empty())?;
        let name = OsString::from(".");
        return Ok(Says::Entry(Visible { dir, name, stat }, true));
    }
    while let Some(name) = components.next() {
        let stat = match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) if merges => return Ok(Says::Nothing),
            Err(Errno::NOENT) => return Ok(Says::Hidden),
            Err(error) => return Err(error.into()),
        };
        if is_whiteout(&stat) {
            return Ok(Says::Hidden);
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && is_opaque(dir.as_fd(), name)? {
            merges = false;
        }
        if components.peek().is_none() {
            let name = name.to_owned();
            let more = merges && is_directory;
            return Ok(Says::Entry(Visible { dir, name, stat }, more));
        }
        if !is_directory {
            return Ok(Says::Hidden);
        }
        dir = open_directory(dir.as_fd(), name)?;
    }
    Ok(Says::Nothing)
}

/// Whether a directory hides what lower layers have in its place.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    Ok(get_xattr(dir, name, OPAQUE_XATTR)?.is_some_and(|value| value == b"y"))
}

fn open_directory(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::empty())?)
}
