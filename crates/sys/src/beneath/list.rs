//! Reading directories by descriptor.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{Dir, FileType, Mode, OFlags, Stat, openat};

/// As many names as [`Names::some`] gives at once.
const SOME: usize = 4096;

/// The names in a directory, some at a time: there may be any number of them. What is put into the directory or taken out of it
/// meanwhile shows or does not.
pub struct Names {
    /// Until the end was reached.
    dir: Option<Dir>,
}

impl Names {
    pub fn of(dir: BorrowedFd<'_>) -> io::Result<Names> {
        // A descriptor of its own: the offset is not shared with the caller's, and an O_PATH one can be read too.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = openat(dir, c".", flags, Mode::empty())?;
        Ok(Names {
            dir: Some(Dir::new(own)?),
        })
    }

    /// The next names without `.` and `..`, with the type the directory itself records (`Unknown` on filesystems that do not
    /// record it); none at the end. Of a directory with few of them nothing is held open any more.
    pub fn some(&mut self) -> io::Result<Vec<(OsString, FileType)>> {
        let mut names = Vec::new();
        while names.len() < SOME
            && let Some(dir) = &mut self.dir
        {
            let Some(entry) = dir.next() else {
                self.dir = None;
                break;
            };
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push((OsString::from_vec(name.to_vec()), entry.file_type()));
            }
        }
        Ok(names)
    }
}

/// All names in `dir` at once, as [`Names`] gives them.
pub fn list(dir: BorrowedFd<'_>) -> io::Result<Vec<(OsString, FileType)>> {
    let mut names = Names::of(dir)?;
    let mut all = names.some()?;
    loop {
        match names.some()? {
            more if more.is_empty() => return Ok(all),
            more => all.extend(more),
        }
    }
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
