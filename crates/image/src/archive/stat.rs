//! What a path in a root filesystem is, in the terms of Go's `os.FileMode`, which Docker's API carries.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Stat, fstat, statat};
use serde::{Deserialize, Serialize};
use sys::beneath::resolve_dir_in_root;

use super::ArchiveError;
use super::path::{Asked, asked, follow};

/// Go's bits beside the nine permission bits (package `io/fs`).
const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const NAMED_PIPE: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;

/// What `X-Docker-Container-Path-Stat` says about a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStat {
    /// The last component, as asked.
    pub name: String,
    pub size: u64,
    /// Go's `os.FileMode`.
    pub mode: u32,
    pub mtime: Timestamp,
    /// Of a link: where it leads in the container, absolute.
    pub link_target: String,
}

impl PathStat {
    /// Whether it is a directory itself, not a link to one.
    pub fn is_dir(&self) -> bool {
        self.mode & DIRECTORY != 0
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.mode & SYMLINK != 0
    }
}

/// What `path` in the root filesystem is.
pub fn stat(root: BorrowedFd<'_>, path: &str) -> Result<PathStat, ArchiveError> {
    let asked = asked(path);
    let stat = raw_stat(root, &asked)?;
    let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let target = if link {
        follow(root, &asked.whole).map_err(|cause| ArchiveError::at("follow", &asked.whole, cause))?
    } else {
        PathBuf::new()
    };
    let nanos = i32::try_from(stat.st_mtime_nsec).unwrap_or(0);
    Ok(PathStat {
        name: asked.name,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: go_mode(stat.st_mode),
        mtime: Timestamp::new(stat.st_mtime, nanos).unwrap_or_default(),
        link_target: target.to_string_lossy().into_owned(),
    })
}

pub(super) fn raw_stat(root: BorrowedFd<'_>, asked: &Asked) -> Result<Stat, ArchiveError> {
    let failed = |cause| ArchiveError::at("look at", &asked.whole, cause);
    let dir = resolve_dir_in_root(root, &asked.dir).map_err(failed)?;
    let stat = match &asked.last {
        Some(last) => statat(&dir, last, AtFlags::SYMLINK_NOFOLLOW),
        None => fstat(&dir),
    };
    stat.map_err(|error| failed(error.into()))
}

fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => DIRECTORY,
        FileType::Symlink => SYMLINK,
        FileType::BlockDevice => DEVICE,
        FileType::CharacterDevice => DEVICE | CHAR_DEVICE,
        FileType::Fifo => NAMED_PIPE,
        FileType::Socket => SOCKET,
        _ => 0,
    };
    let special = [(0o4000, SETUID), (0o2000, SETGID), (0o1000, STICKY)]
        .into_iter()
        .filter(|(bit, _)| mode & bit != 0)
        .fold(0, |bits, (_, go)| bits | go);
    kind | special | (mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 420);
        assert_eq!(go_mode(0o040_755), 2_147_484_141);
        assert_eq!(go_mode(0o041_777), DIRECTORY | STICKY | 0o777);
        assert_eq!(go_mode(0o120_777), 134_218_239);
        assert_eq!(go_mode(0o104_755), SETUID | 0o755);
        assert_eq!(go_mode(0o020_666), DEVICE | CHAR_DEVICE | 0o666);
    }
}
