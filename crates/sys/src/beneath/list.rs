//! Reading directories by descriptor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, openat};

/// The names in `dir` without `.` and `..`, with the type the directory itself records (`Unknown` on
/// filesystems that do not record it).
pub fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(OsString, FileType)>> {
    // A descriptor of its own: the offset is not shared with the caller's, and an O_PATH one can be read too.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let own = openat(dir, c".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::new(own)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsString::from_vec(name.to_vec()), entry.file_type()));
        }
    }
    Ok(names)
}

/// The names in `dir` in the order of their bytes.
pub fn list_sorted(dir: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    let mut names: Vec<OsString> = list(dir)?.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable_by(|a, b| OsStr::as_bytes(a).cmp(OsStr::as_bytes(b)));
    Ok(names)
}

/// Whether an entry is overlayfs' mark for "deleted here": a character device 0/0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}
