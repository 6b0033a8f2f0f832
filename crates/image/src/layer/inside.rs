//! Applying a layer to a copy of what is below it: what is the layer's own, and what was there before.
//!
//! The outcome shows what an overlay of the layer over those below would show. A whiteout is about the layers below,
//! wherever in the archive it stands, so what the layer brought itself stays; directories in which the layer only adds or
//! deletes keep their times; and links of the layers below lead nowhere, since the layer's archive was not made with them
//! in mind.
//!
//! What is the layer's own is known by inode: nothing else is made here meanwhile, so a number that is given out again
//! is the layer's, too.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timestamps, fremovexattr, fstat, futimens, openat, statat,
    unlinkat,
};
use rustix::io::Errno;
use sys::beneath::{DIRECTORY, file_xattrs, list, open_beneath_no_links, remove_tree};

use super::LayerError;
use super::apply::stat_times;

pub(super) struct Inside {
    /// Where the directory is, to tell paths in it.
    top: PathBuf,
    root: u64,
    own: HashSet<u64>,
    /// Directories of those below that hold something of the layer's own, or lead to it.
    leading: HashSet<u64>,
    /// Directories of those below in which something was changed, as they were.
    touched: Vec<(PathBuf, u64, Timestamps)>,
    /// The inodes of those.
    seen: HashSet<u64>,
}

impl Inside {
    pub(super) fn new(root: BorrowedFd<'_>) -> io::Result<Inside> {
        Ok(Inside {
            top: path_of(root)?,
            root: fstat(root)?.st_ino,
            own: HashSet::new(),
            leading: HashSet::new(),
            touched: Vec::new(),
            seen: HashSet::new(),
        })
    }

    pub(super) fn is_own(&self, stat: &Stat) -> bool {
        self.own.contains(&stat.st_ino)
    }

    pub(super) fn note_own(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        self.own
            .insert(statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino);
        Ok(())
    }

    /// Before something in `dir` is made, replaced or deleted.
    pub(super) fn before(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let stat = fstat(dir)?;
        if self.is_own(&stat) || !self.seen.insert(stat.st_ino) {
            return Ok(());
        }
        let path = path_of(dir)?;
        let below = path.strip_prefix(&self.top).unwrap_or(Path::new("")).to_owned();
        self.touched.push((below, stat.st_ino, stat_times(&stat)));
        self.lead(dir.try_clone_to_owned()?, stat.st_ino)
    }

    /// Notes the directory and those it is in.
    fn lead(&mut self, mut dir: OwnedFd, mut inode: u64) -> io::Result<()> {
        while self.leading.insert(inode) && inode != self.root {
            dir = openat(
                &dir,
                "..",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            inode = fstat(&dir)?.st_ino;
        }
        Ok(())
    }

    /// A directory that the layer has as well takes nothing over from the one below.
    pub(super) fn undress(&mut self, dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<()> {
        if self.is_own(stat) {
            return Ok(());
        }
        let below = openat(dir, name, DIRECTORY, Mode::empty())?;
        // What is in it is told apart by what leads there.
        self.lead(below.try_clone()?, stat.st_ino)?;
        strip(below.as_fd())
    }

    /// The layer has the root.
    pub(super) fn take_root(&mut self, root: BorrowedFd<'_>) -> io::Result<()> {
        if self.own.insert(self.root) {
            strip(root)?;
        }
        Ok(())
    }

    /// What a whiteout of `name` says.
    pub(super) fn delete(&self, dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => self.delete_entry(dir, name, &stat).map(drop),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What an opaque directory says: what was in it goes. Whether something of the layer's own stays.
    pub(super) fn clear(&self, dir: BorrowedFd<'_>) -> io::Result<bool> {
        let mut stays = false;
        for (name, _) in list(dir)? {
            let stat = statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            stays |= self.delete_entry(dir, &name, &stat)?;
        }
        Ok(stays)
    }

    fn delete_entry(&self, dir: BorrowedFd<'_>, name: &OsStr, stat: &Stat) -> io::Result<bool> {
        let own = self.is_own(stat);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            if !own {
                unlinkat(dir, name, AtFlags::empty())?;
            }
            return Ok(own);
        }
        if own || self.leading.contains(&stat.st_ino) {
            let within = openat(dir, name, DIRECTORY, Mode::empty())?;
            if self.clear(within.as_fd())? || own {
                return Ok(true);
            }
        }
        remove_tree(dir, name)?;
        Ok(false)
    }

    pub(super) fn restore_times(self, root: BorrowedFd<'_>) -> Result<(), LayerError> {
        for (path, inode, times) in &self.touched {
            let restored = open_beneath_no_links(root, path, DIRECTORY, Mode::empty()).and_then(|dir| {
                match fstat(&dir)?.st_ino == *inode {
                    true => Ok(futimens(&dir, times)?),
                    false => Ok(()),
                }
            });
            match restored {
                // Deleted or replaced meanwhile.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {}
                Err(cause) => {
                    let path = path.as_os_str().as_bytes();
                    return Err(LayerError::entry("set the time of", path, cause));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

fn strip(dir: BorrowedFd<'_>) -> io::Result<()> {
    for (key, _) in file_xattrs(dir)? {
        match fremovexattr(dir, &key) {
            // Labels that the filesystem or a security module gives on its own stay.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn path_of(dir: BorrowedFd<'_>) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd()))
}
