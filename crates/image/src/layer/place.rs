//! Making one entry of an archive in a directory that is held open.
//!
//! The order is fixed by what each step undoes: owner first (it clears setuid bits and capabilities), then mode,
//! then attributes, then times. A directory's times are the caller's to set, once nothing is put into it any
//! more.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{
    AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, chmod, chownat, fchmod, fchown,
    fstat, ftruncate, futimens, major, makedev, minor, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;
use sys::beneath::{set_file_xattr, set_xattr};

use super::error::NoDevices;
use super::is_overlay_xattr;
use super::tar::{Content, Entry, Kind, Time};

/// How an entry is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Owner of everything instead of the archive's.
    pub(crate) owner: Option<(u32, u32)>,
    /// Attributes that can not be set are passed over.
    pub(crate) lenient_xattrs: bool,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    /// Complete, with this many bytes of content.
    Done(u64),
    /// Something of this name is there already. Nothing was read of the content, nothing was changed.
    Exists,
}

/// Makes the entry, which is no hard link, as `name` in `dir`. A directory that exists is taken as it is and
/// given the entry's metadata.
pub(crate) fn place<R: Read>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    content: &mut Content<'_, R>,
    buffer: &mut [u8],
    options: Options,
) -> io::Result<Made> {
    match entry.kind {
        Kind::File => return file(dir, name, entry, content, buffer, options),
        Kind::Directory => {
            match mkdirat(dir, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match openat(dir, name, flags, Mode::empty()) {
                Ok(made) => set_directory(made.as_fd(), entry, options)?,
                // Something else has the name: NOTDIR for a file, LOOP for a link.
                Err(Errno::NOTDIR | Errno::LOOP) => return Ok(Made::Exists),
                Err(error) => return Err(error.into()),
            }
            return Ok(Made::Done(0));
        }
        Kind::Symlink => match symlinkat(OsStr::from_bytes(&entry.link), dir, name) {
            Err(Errno::EXIST) => return Ok(Made::Exists),
            other => other?,
        },
        Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
            let (kind, device) = match entry.kind {
                Kind::CharDevice => (FileType::CharacterDevice, makedev(entry.major, entry.minor)),
                Kind::BlockDevice => (FileType::BlockDevice, makedev(entry.major, entry.minor)),
                _ => (FileType::Fifo, 0),
            };
            match make_node(dir, name, kind, Mode::RUSR, device) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Made::Exists),
                other => other?,
            }
        }
        Kind::HardLink => return Err(Errno::INVAL.into()),
    }
    set_special(dir, name, entry, options)?;
    Ok(Made::Done(0))
}

/// Makes a device or pipe. Where the kernel makes no devices for this process, the error is [`NoDevices`].
pub(crate) fn make_node(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    kind: FileType,
    mode: Mode,
    device: Dev,
) -> io::Result<()> {
    mknodat(dir, name, kind, mode, device).map_err(|error| {
        let kind = match kind {
            FileType::CharacterDevice => "character",
            FileType::BlockDevice => "block",
            _ => return error.into(),
        };
        match error {
            Errno::PERM => io::Error::new(
                io::ErrorKind::PermissionDenied,
                NoDevices {
                    kind,
                    major: major(device),
                    minor: minor(device),
                },
            ),
            error => error.into(),
        }
    })
}

fn file<R: Read>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    content: &mut Content<'_, R>,
    buffer: &mut [u8],
    options: Options,
) -> io::Result<Made> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match openat(dir, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(Errno::EXIST) => return Ok(Made::Exists),
        Err(error) => return Err(error.into()),
    };
    let written = match &entry.chunks {
        None => write(&file, 0, entry.size, content, buffer)?,
        Some(chunks) => {
            // The whole length first: a hole at the end has no part that would make it.
            ftruncate(&file, entry.size)?;
            let mut written = 0;
            for chunk in chunks {
                written += write(&file, chunk.offset, chunk.length, content, buffer)?;
            }
            written
        }
    };
    let (uid, gid) = owner(entry, options);
    fchown(&file, uid, gid)?;
    fchmod(&file, Mode::from_raw_mode(entry.mode))?;
    set_file_xattrs(file.as_fd(), &entry.xattrs, options)?;
    futimens(&file, &times(entry.mtime))?;
    Ok(Made::Done(written))
}

/// Writes a file's content into the regular file that is there, which keeps its owner, mode and attributes: they are
/// those of whoever put it there.
pub(crate) fn overwrite<R: Read>(
    dir: BorrowedFd<'_>,
    name: &OsStr,
    entry: &Entry,
    content: &mut Content<'_, R>,
    buffer: &mut [u8],
) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(dir, name, flags, Mode::empty())?);
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::BUSY.into());
    }
    ftruncate(&file, 0)?;
    match &entry.chunks {
        None => {
            write(&file, 0, entry.size, content, buffer)?;
        }
        Some(chunks) => {
            ftruncate(&file, entry.size)?;
            for chunk in chunks {
                write(&file, chunk.offset, chunk.length, content, buffer)?;
            }
        }
    }
    Ok(futimens(&file, &times(entry.mtime))?)
}

fn write<R: Read>(
    file: &File,
    mut offset: u64,
    length: u64,
    content: &mut Content<'_, R>,
    buffer: &mut [u8],
) -> io::Result<u64> {
    let mut left = length;
    while left > 0 {
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..limit).unwrap_or_default();
        let filled = match content.read(part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        file.write_all_at(part.get(..filled).unwrap_or_default(), offset)?;
        offset += filled as u64;
        left -= filled as u64;
    }
    Ok(length)
}

/// Gives a directory all of the entry's metadata but its times.
pub(crate) fn set_directory(dir: BorrowedFd<'_>, entry: &Entry, options: Options) -> io::Result<()> {
    let (uid, gid) = owner(entry, options);
    fchown(dir, uid, gid)?;
    fchmod(dir, Mode::from_raw_mode(entry.mode))?;
    set_file_xattrs(dir, &entry.xattrs, options)
}

/// Metadata of what can not be opened: links and devices.
fn set_special(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry, options: Options) -> io::Result<()> {
    let (uid, gid) = owner(entry, options);
    chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if entry.kind != Kind::Symlink {
        chmod_special(dir, name, entry.mode)?;
    }
    for (key, value) in &entry.xattrs {
        if !is_overlay_xattr(key) {
            tolerate(set_xattr(dir, name, key, value), options)?;
        }
    }
    utimensat(dir, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Sets the mode of a device or pipe without opening or following anything: where a container may exchange the
/// entry for a link meanwhile, the descriptor still is what was looked at.
fn chmod_special(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made: OwnedFd = openat(dir, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&made)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    let path = format!("/proc/self/fd/{}", made.as_raw_fd());
    Ok(chmod(path, Mode::from_raw_mode(mode))?)
}

fn set_file_xattrs(file: BorrowedFd<'_>, xattrs: &[(OsString, Vec<u8>)], options: Options) -> io::Result<()> {
    for (key, value) in xattrs {
        if !is_overlay_xattr(key) {
            tolerate(set_file_xattr(file, key, value), options)?;
        }
    }
    Ok(())
}

/// A filesystem that can not hold an attribute (a label of a security module that is not there) goes without.
fn tolerate(result: io::Result<()>, options: Options) -> io::Result<()> {
    match result {
        Err(error)
            if error.kind() == io::ErrorKind::Unsupported
                || options.lenient_xattrs && error.kind() == io::ErrorKind::PermissionDenied =>
        {
            tracing::debug!(%error, "an extended attribute was passed over");
            Ok(())
        }
        other => other,
    }
}

fn owner(entry: &Entry, options: Options) -> (Option<Uid>, Option<Gid>) {
    let (uid, gid) = options.owner.unwrap_or((entry.uid, entry.gid));
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Access and modification both: an archive says nothing worth keeping about the first.
pub(crate) fn times(time: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
