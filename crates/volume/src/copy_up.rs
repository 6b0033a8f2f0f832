//! The first use of an empty volume: what the image has at that place is copied into it, with owners, modes,
//! times, attributes, links and devices.
//!
//! A marker beside the volume's content says that a copy is under way. Every file appears under its name only
//! when it is complete, so a copy that was cut off is gone on with, and nothing a container wrote meanwhile is
//! overwritten. The volume may be mounted in a running container while this happens: every step is relative to
//! a directory descriptor and follows no link in the volume. In the image, links lead where a process with the
//! image's root would see them lead.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chownat, fchmod, fstat,
    futimens, linkat, mkdirat, mknodat, openat, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use sys::beneath::{
    file_xattrs, list_sorted, open_beneath_no_links, resolve_in_root, set_file_xattr, set_xattr, xattrs,
};

use crate::VolumeError;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// Fills the volume's directory from `path` in the image whose root directory is `image`. Whether there was
/// anything to do: the volume was empty, and the image has a directory there.
pub fn copy_up(volume: &Path, image: BorrowedFd<'_>, path: &str) -> Result<bool, VolumeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = match resolve_in_root(image, path, flags, Mode::empty()) {
        Ok(source) => source,
        Err(error) if is_absent(&error) => return Ok(false),
        Err(cause) => return Err(VolumeError::at("open in the image", Path::new(path), cause)),
    };
    let failed = |cause: io::Error| VolumeError::at("copy the image's content to", volume, cause);
    let target = openat(CWD, volume, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let marker = volume.parent().unwrap_or(Path::new("/")).join("copying");
    let unfinished = marker.exists();
    if !unfinished && !list_sorted(target.as_fd()).map_err(failed)?.is_empty() {
        return Ok(false);
    }
    File::create(&marker).map_err(|cause| VolumeError::at("create", &marker, cause))?;
    Copy::new(source.as_fd(), target.as_fd()).run().map_err(failed)?;
    fs::remove_file(&marker).map_err(|cause| VolumeError::at("remove", &marker, cause))?;
    Ok(true)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
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
        for name in list_sorted(from.as_fd())? {
            let stat = statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let entry = path.join(&name);
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => match mkdirat(&to, &name, Mode::RWXU) {
                    Ok(()) => below.push(entry),
                    // Made by the copy that was cut off, or by a container: merged when it is a directory.
                    Err(Errno::EXIST) => {
                        let there = statat(&to, &name, AtFlags::SYMLINK_NOFOLLOW)?;
                        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                            below.push(entry);
                        }
                    }
                    Err(error) => return Err(error.into()),
                },
                // A socket is nothing without the process that bound it.
                FileType::Socket => {}
                _ => self.entry(from.as_fd(), to.as_fd(), &name, &stat, entry)?,
            }
        }
        Ok(below)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &OsStr,
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
        let temporary = self.temporary(to)?;
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

    /// A name that is free in the directory; what a copy that was cut off left there goes.
    fn temporary(&mut self, to: BorrowedFd<'_>) -> io::Result<OsString> {
        self.temporary += 1;
        let name = OsString::from(format!(".copying-{}", self.temporary));
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
            io::copy(&mut source, &mut target)?;
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
            tracing::debug!(attribute = ?key, %error, "not copied to a volume");
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
