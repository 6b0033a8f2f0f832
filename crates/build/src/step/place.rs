//! Writing what a COPY takes into the tree of a snapshot.
//!
//! Rules: a file replaces a file or a link of the same name, never through the link; a directory that exists
//! keeps its own permissions and owner, also when it is reached through a link that leads to a directory; a
//! file never replaces a directory nor the reverse. Everything is looked up beneath the root of the tree.
//!
//! Files for directories that are made on the way may be left to be put there when the tree is no longer mounted
//! (`fresh`), which is what large contexts are made of.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, fchmod, fchown, futimens, linkat,
    mkdirat, mknodat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sys::beneath::{file_xattrs, open_beneath_no_links, resolve_dir_in_root, set_file_xattr};

use super::fresh::{Fresh, Waiting};
use super::mode::ModeChange;
use super::root::{give, is_dir, make_dirs};
use super::select::{Group, Item, real_path};

/// Whether an extended attribute goes along: not what a filesystem or a security module keeps for itself.
pub fn copied_attribute(key: &OsStr) -> bool {
    let key = key.to_string_lossy();
    !key.starts_with("trusted.overlay.") && !key.starts_with("user.overlay.") && key != "security.selinux"
}

/// Who owns what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ownership {
    Keep,
    Give(u32, u32),
}

/// Writes files into a tree.
pub struct Placer<'a> {
    root: BorrowedFd<'a>,
    ownership: Ownership,
    mode: Option<&'a ModeChange>,
    /// Where a file with several names was put first.
    linked: HashMap<(u64, u64), PathBuf>,
    /// Times of directories that were made, to be set when nothing more is put into them.
    times: Vec<(PathBuf, Timestamps)>,
    /// The directory that was written to last, since neighbours come after each other.
    parent: Option<(PathBuf, OwnedFd)>,
    /// A directory takes the place of a link of its name instead of going where the link leads.
    pub over_links: bool,
    /// Where files for directories that are made here wait, if they may.
    fresh: Option<Fresh>,
}

impl<'a> Placer<'a> {
    pub fn new(root: BorrowedFd<'a>, ownership: Ownership, mode: Option<&'a ModeChange>) -> Placer<'a> {
        Placer {
            root,
            ownership,
            mode,
            linked: HashMap::new(),
            times: Vec::new(),
            parent: None,
            over_links: false,
            fresh: None,
        }
    }

    /// Has files for directories that are made here wait to be put into them later ([`Placer::finish_fresh`]). For what is
    /// one group, since nothing that comes after may take the place of a file that waits.
    pub fn with_fresh(self) -> Placer<'a> {
        Placer {
            fresh: Some(Fresh::default()),
            ..self
        }
    }

    /// Owner of directories that are made on the way.
    pub fn way_owner(&self) -> Option<(u32, u32)> {
        match self.ownership {
            Ownership::Keep => None,
            Ownership::Give(uid, gid) => Some((uid, gid)),
        }
    }

    /// Puts a group to `destination`, which is the directory for a directory's content and the file's own path
    /// for a file.
    pub fn put(&mut self, from: BorrowedFd<'_>, group: &Group, destination: &Path) -> io::Result<()> {
        if group.directory
            && let (dir, true) = make_dirs(self.root, destination, self.way_owner())?
        {
            self.note_made(destination, dir.as_fd(), None)?;
        }
        for item in &group.items {
            let target = destination.join(&item.target);
            self.put_item(from, item, &target).map_err(|error| {
                let text = format!("{} to /{}: {error}", item.source.display(), target.display());
                io::Error::new(error.kind(), text)
            })?;
        }
        Ok(())
    }

    /// Sets the times of directories.
    pub fn finish(self) -> io::Result<()> {
        self.finish_fresh().map(drop)
    }

    /// The same; what waits is to be put by the caller.
    pub fn finish_fresh(mut self) -> io::Result<Option<Fresh>> {
        while let Some((path, times)) = self.times.pop() {
            let dir = resolve_dir_in_root(self.root, &path)?;
            let own = openat(&dir, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            futimens(&own, &times)?;
        }
        Ok(self.fresh)
    }

    fn note_made(
        &mut self,
        target: &Path,
        made: BorrowedFd<'_>,
        times: Option<Timestamps>,
    ) -> io::Result<()> {
        if let Some(fresh) = &mut self.fresh {
            fresh.add_directory(target.to_owned(), real_path(self.root, made)?, times);
        }
        Ok(())
    }

    /// Has a file wait for its directory if that was made here.
    fn postpone(&mut self, item: &Item, target: &Path) -> bool {
        let (owner, mode) = (self.owner(&item.stat), self.mode_of(&item.stat));
        let parent = target.parent().unwrap_or(Path::new(""));
        match &mut self.fresh {
            Some(fresh) if fresh.has_directory(parent) => {
                fresh.add_file(Waiting {
                    source: item.source.clone(),
                    target: target.to_owned(),
                    stat: item.stat,
                    owner,
                    mode,
                });
                true
            }
            _ => false,
        }
    }

    fn dir_of(&mut self, target: &Path) -> io::Result<&OwnedFd> {
        let parent = target.parent().unwrap_or(Path::new("")).to_owned();
        let fresh = match self.parent.take().filter(|(path, _)| *path == parent) {
            Some(held) => held,
            None => {
                let (dir, _) = make_dirs(self.root, &parent, self.way_owner())?;
                (parent, dir)
            }
        };
        Ok(&self.parent.insert(fresh).1)
    }

    fn put_item(&mut self, from: BorrowedFd<'_>, item: &Item, target: &Path) -> io::Result<()> {
        let name = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let kind = FileType::from_raw_mode(item.stat.st_mode);
        match kind {
            FileType::Directory => return self.put_dir(from, item, target, &name),
            // Nobody listens behind a copied socket.
            FileType::Socket => return Ok(()),
            FileType::RegularFile if item.stat.st_nlink == 1 && self.postpone(item, target) => return Ok(()),
            _ => {}
        }
        let dir = self.dir_of(target)?.try_clone()?;
        clear(dir.as_fd(), &name)?;
        let several = item.stat.st_nlink > 1 && kind == FileType::RegularFile;
        let identity = (item.stat.st_dev, item.stat.st_ino);
        if several && let Some(first) = self.linked.get(&identity) {
            let first_dir = resolve_dir_in_root(self.root, first.parent().unwrap_or(Path::new("")))?;
            let first_name = first.file_name().unwrap_or_default();
            return Ok(linkat(&first_dir, first_name, &dir, &name, AtFlags::empty())?);
        }
        match kind {
            FileType::RegularFile => {
                self.put_file(from, item, dir.as_fd(), &name)?;
                if several {
                    self.linked.insert(identity, target.to_owned());
                }
                Ok(())
            }
            FileType::Symlink => {
                let parent = item.source.parent().unwrap_or(Path::new(""));
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let source = open_beneath_no_links(from, parent, flags, Mode::empty())?;
                let goal = readlinkat(&source, item.source.file_name().unwrap_or_default(), Vec::new())?;
                symlinkat(&goal, &dir, &name)?;
                give(dir.as_fd(), &name, Some(self.owner(&item.stat)))?;
                Ok(utimensat(
                    &dir,
                    &name,
                    &times(&item.stat),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
            _ => {
                let mode = Mode::from_raw_mode(self.mode_of(&item.stat));
                mknodat(&dir, &name, kind, mode, item.stat.st_rdev)?;
                give(dir.as_fd(), &name, Some(self.owner(&item.stat)))?;
                rustix::fs::chmodat(&dir, &name, mode, AtFlags::empty())?;
                Ok(utimensat(
                    &dir,
                    &name,
                    &times(&item.stat),
                    AtFlags::SYMLINK_NOFOLLOW,
                )?)
            }
        }
    }

    fn owner(&self, stat: &Stat) -> (u32, u32) {
        match self.ownership {
            Ownership::Keep => (stat.st_uid, stat.st_gid),
            Ownership::Give(uid, gid) => (uid, gid),
        }
    }

    fn mode_of(&self, stat: &Stat) -> u32 {
        let mode = stat.st_mode & 0o7777;
        self.mode.map_or(mode, |change| change.apply(mode, is_dir(stat)))
    }

    fn put_dir(&mut self, from: BorrowedFd<'_>, item: &Item, target: &Path, name: &OsStr) -> io::Result<()> {
        let dir = self.dir_of(target)?.try_clone()?;
        if self.over_links {
            match statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if !is_dir(&stat) => unlinkat(&dir, name, AtFlags::empty())?,
                _ => {}
            }
        }
        match mkdirat(&dir, name, Mode::from_raw_mode(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return match resolve_dir_in_root(self.root, target) {
                    Ok(_) => Ok(()),
                    Err(_) => Err(io::Error::new(
                        io::ErrorKind::NotADirectory,
                        "cannot copy a directory to something that is not a directory",
                    )),
                };
            }
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(&dir, name, flags, Mode::empty())?;
        let source = open_beneath_no_links(from, &item.source, flags, Mode::empty())?;
        self.dress(source.as_fd(), made.as_fd(), &item.stat)?;
        self.note_made(target, made.as_fd(), Some(times(&item.stat)))?;
        self.times.push((target.to_owned(), times(&item.stat)));
        Ok(())
    }

    fn put_file(
        &self,
        from: BorrowedFd<'_>,
        item: &Item,
        dir: BorrowedFd<'_>,
        name: &OsStr,
    ) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut source = File::from(open_beneath_no_links(from, &item.source, flags, Mode::empty())?);
        let mut made = File::from(create(dir, name)?);
        io::copy(&mut source, &mut made)?;
        self.dress(source.as_fd(), made.as_fd(), &item.stat)?;
        Ok(futimens(&made, &times(&item.stat))?)
    }

    /// Owner, permissions and attributes, in the order in which none undoes another.
    fn dress(&self, source: BorrowedFd<'_>, made: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = self.owner(stat);
        fchown(made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        fchmod(made, Mode::from_raw_mode(self.mode_of(stat)))?;
        for (key, value) in file_xattrs(source)? {
            if copied_attribute(&key) {
                match set_file_xattr(made, &key, &value) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// Puts a file with this content; `modified` is seconds since 1970.
    pub fn put_bytes(
        &mut self,
        content: &mut dyn io::Read,
        mode: u32,
        modified: i64,
        target: &Path,
    ) -> io::Result<()> {
        let name: OsString = target.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let dir = self.dir_of(target)?.try_clone()?;
        clear(dir.as_fd(), &name)?;
        let mut made = File::from(create(dir.as_fd(), &name)?);
        io::copy(content, &mut made)?;
        let (uid, gid) = self.way_owner().unwrap_or((0, 0));
        fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        let mode = self.mode.map_or(mode, |change| change.apply(mode, false));
        fchmod(&made, Mode::from_raw_mode(mode))?;
        let time = Timespec {
            tv_sec: modified,
            tv_nsec: 0,
        };
        Ok(futimens(
            &made,
            &Timestamps {
                last_access: time,
                last_modification: time,
            },
        )?)
    }
}

/// The time of what `stat` is of, as both times.
pub fn times(stat: &Stat) -> Timestamps {
    let time = Timespec {
        tv_sec: stat.st_mtime,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn create(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags, Mode::from_raw_mode(0o600))?)
}

/// Makes room for a file: what has its name goes, unless it is a directory.
fn clear(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(stat) if is_dir(&stat) => Err(io::Error::new(
            io::ErrorKind::IsADirectory,
            "cannot replace a directory with a file",
        )),
        Ok(_) => Ok(unlinkat(dir, name, AtFlags::empty())?),
    }
}
