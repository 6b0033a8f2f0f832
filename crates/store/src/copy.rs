//! A directory tree copied: owners, modes, times, attributes, links, devices, holes. Where the filesystem shares blocks
//! between files (btrfs, xfs) no data is copied.
//!
//! Every file appears under its name only when it is complete, so a copy that was cut off can be gone on with, and
//! nothing that somebody else wrote meanwhile is overwritten: the target may be in use. Every step is relative to a
//! directory descriptor and follows no link. A socket is copied as the name it is: that nobody listens shows alike.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fstat,
    ftruncate, futimens, ioctl_ficlone, linkat, mkdirat, mknodat, openat, readlinkat, renameat, seek, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sys::beneath::{
    DIRECTORY, file_xattrs, list_sorted, open_beneath_no_links, set_file_xattr, set_xattr, xattrs,
};

/// Copies what is in the directory `source`, and its own metadata, to the directory `target`.
pub fn copy_tree(source: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    Copy::new(source, target).run()
}

enum Step {
    Enter(PathBuf),
    /// All of it is copied: its own metadata can be set, which writing into it would change again.
    Leave(PathBuf),
}

struct Copy<'fd> {
    source: BorrowedFd<'fd>,
    target: BorrowedFd<'fd>,
    /// Where a file with several names was copied to first.
    links: HashMap<(u64, u64), PathBuf>,
    temporary: u64,
}

impl<'fd> Copy<'fd> {
    fn new(source: BorrowedFd<'fd>, target: BorrowedFd<'fd>) -> Copy<'fd> {
        Copy {
            source,
            target,
            links: HashMap::new(),
            temporary: 0,
        }
    }

    fn run(mut self) -> io::Result<()> {
        let mut steps = vec![Step::Enter(PathBuf::new())];
        while let Some(step) = steps.pop() {
            match step {
                Step::Leave(path) => {
                    let (from, to) = self.open(&path)?;
                    copy_metadata(from.as_fd(), to.as_fd())?;
                }
                Step::Enter(path) => {
                    let below = self.directory(&path)?;
                    steps.push(Step::Leave(path));
                    steps.extend(below.into_iter().rev().map(Step::Enter));
                }
            }
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
        let from = open_beneath_no_links(self.source, path, DIRECTORY, Mode::empty())?;
        let to = open_beneath_no_links(self.target, path, DIRECTORY, Mode::empty())?;
        Ok((from, to))
    }

    /// Copies what is directly in the directory; returns the directories in it, which were made.
    fn directory(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let (from, to) = self.open(path)?;
        let mut below = Vec::new();
        let names = list_sorted(from.as_fd())?;
        for name in &names {
            let stat = statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let entry = path.join(name);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => match mkdirat(&to, name, Mode::RWXU) {
                    Ok(()) => below.push(entry),
                    // Made by the copy that was cut off, or by a container: merged when it is a directory.
                    Err(Errno::EXIST) => {
                        let there = statat(&to, name, AtFlags::SYMLINK_NOFOLLOW)?;
                        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                            below.push(entry);
                        }
                    }
                    Err(error) => return Err(error.into()),
                },
                _ => self.entry(from.as_fd(), to.as_fd(), name, &names, &stat, entry)?,
            }
        }
        Ok(below)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
        names: &[OsString],
        stat: &Stat,
        path: PathBuf,
    ) -> io::Result<()> {
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.link(first, to, name);
            }
            self.links.insert(inode, path);
        }
        let temporary = self.temporary(to, names)?;
        let result =
            copy_entry(from, to, name, stat, &temporary).and_then(|()| publish(to, &temporary, name));
        if result.is_err() {
            // The first error is the one to tell.
            let _ = unlinkat(to, &temporary, AtFlags::empty());
        }
        result
    }

    fn link(&self, first: &Path, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let parent = first.parent().unwrap_or(Path::new(""));
        let dir = open_beneath_no_links(self.target, parent, DIRECTORY, Mode::empty())?;
        let first = first.file_name().unwrap_or(OsStr::new(""));
        match linkat(&dir, first, to, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A name that is free in the directory and none of `names`, those the copy will have, in order. What a copy that was
    /// cut off left there goes: the next one of the same tree comes by the same names.
    fn temporary(&mut self, to: BorrowedFd<'_>, names: &[OsString]) -> io::Result<OsString> {
        let name = loop {
            self.temporary += 1;
            let name = OsString::from(format!(".copying-{}", self.temporary));
            if names.binary_search(&name).is_err() {
                break name;
            }
        };
        match unlinkat(to, &name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(name),
            Err(error) => Err(error.into()),
        }
    }
}

/// Gives the finished file its name, unless something has it already.
fn publish(dir: BorrowedFd<'_>, temporary: &OsStr, name: &OsStr) -> io::Result<()> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(renameat(dir, temporary, dir, name)?),
        Ok(_) => Ok(unlinkat(dir, temporary, AtFlags::empty())?),
        Err(error) => Err(error.into()),
    }
}

fn copy_entry(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &OsStr,
    stat: &Stat,
    temporary: &OsStr,
) -> io::Result<()> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut source = File::from(openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mut target = File::from(openat(to, temporary, flags, Mode::RUSR)?);
            copy_content(&mut source, &mut target, stat)?;
            return copy_metadata(source.as_fd(), target.as_fd());
        }
        FileType::Symlink => {
            let value = readlinkat(from, name, Vec::new())?;
            symlinkat(&*value, to, temporary)?;
        }
        _ => {
            let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
            mknodat(to, temporary, kind, mode, stat.st_rdev)?;
        }
    }
    let (uid, gid) = owner(stat);
    chownat(to, temporary, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        // A name of ours in a directory that a container may write to: not followed, and checked to be what
        // was just made before its mode is changed.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(to, temporary, flags, Mode::empty())?;
        if FileType::from_raw_mode(fstat(&made)?.st_mode) != kind {
            return Err(Errno::STALE.into());
        }
        let path = format!("/proc/self/fd/{}", made.as_raw_fd());
        rustix::fs::chmod(&path, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    }
    for (key, value) in xattrs(from, name)? {
        tolerate(&key, set_xattr(to, temporary, &key, &value))?;
    }
    utimensat(to, temporary, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Shares the blocks, or copies what is no hole.
fn copy_content(source: &mut File, target: &mut File, stat: &Stat) -> io::Result<()> {
    if ioctl_ficlone(&*target, &*source).is_ok() {
        return Ok(());
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512) >= size {
        return io::copy(source, target).map(drop);
    }
    ftruncate(&*target, size)?;
    let mut at = 0;
    while at < size {
        at = match seek(&*source, SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(&*source, SeekFrom::Hole(at))?;
        seek(&*source, SeekFrom::Start(at))?;
        seek(&*target, SeekFrom::Start(at))?;
        io::copy(&mut (&*source).take(end - at), target)?;
        at = end;
    }
    Ok(())
}

/// Owner before mode (which a change of owner strips of its setuid bit), time last.
fn copy_metadata(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(from)?;
    let (uid, gid) = owner(&stat);
    rustix::fs::fchown(to, uid, gid)?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (key, value) in file_xattrs(from)? {
        tolerate(&key, set_file_xattr(to, &key, &value))?;
    }
    Ok(futimens(to, &times(&stat))?)
}

/// Attributes of the filesystem itself or of a security module that labels on its own are not carried over
/// where they are not wanted; losing a file's capabilities would be an error.
fn tolerate(key: &OsStr, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if error.kind() == io::ErrorKind::Unsupported
                || key.as_bytes().starts_with(b"trusted.overlay.")
                || key.as_bytes().starts_with(b"security.selinux") =>
        {
            tracing::debug!(attribute = ?key, %error, "not copied");
            Ok(())
        }
        other => other,
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds, nanos| Timespec {
        tv_sec: seconds,
        tv_nsec: nanos as _,
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}
