//! What lies in a directory, as it is told to the other end.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;

use bollard_buildkit_proto::fsutil::types::Stat as Entry;
use rustix::fs::{AtFlags, FileType, Stat, readlinkat, statat};
use sys::beneath::xattrs;

use super::mode;

/// What `stat` says, told under `path`.
pub fn entry(stat: &Stat, path: String) -> Entry {
    let major = |device| i64::from(rustix::fs::major(device));
    let minor = |device| i64::from(rustix::fs::minor(device));
    let kind = FileType::from_raw_mode(stat.st_mode);
    let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
    Entry {
        path,
        mode: mode::of_stat(stat.st_mode),
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: if kind == FileType::RegularFile {
            stat.st_size
        } else {
            0
        },
        mod_time: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        devmajor: if device { major(stat.st_rdev) } else { 0 },
        devminor: if device { minor(stat.st_rdev) } else { 0 },
        ..Entry::default()
    }
}

/// The entry `name` of the directory `dir`, told under `path`; and what `stat` says about it.
pub fn entry_of(dir: BorrowedFd<'_>, name: &OsStr, path: String) -> io::Result<(Entry, Stat)> {
    let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut entry = entry(&stat, path);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Symlink => {
            let goal = readlinkat(dir, name, Vec::new())?;
            entry.linkname = goal.to_string_lossy().into_owned();
        }
        FileType::RegularFile | FileType::Directory => {
            for (key, value) in xattrs(dir, name)? {
                let key = key.to_string_lossy();
                if key.starts_with("user.") || key == "security.capability" {
                    entry.xattrs.insert(key.into_owned(), value);
                }
            }
        }
        _ => {}
    }
    Ok((entry, stat))
}
