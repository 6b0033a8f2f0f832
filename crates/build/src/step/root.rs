//! Directories inside a root filesystem that somebody else made: looked up and created as a process with that
//! root would see them, never outside it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, mkdirat, readlinkat, statat};
use rustix::io::Errno;
use sys::beneath::{resolve_dir_in_root, resolve_in_root};

/// How many links a path may lead through.
const MAX_LINKS: usize = 40;

/// The cleaned parts of a path, `..` at the root staying there. Links are not looked at.
pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

/// What lies at `path`, following links inside the root; `None` where nothing does.
pub fn stat_in(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<Stat>> {
    match resolve_in_root(root, path, OFlags::PATH, Mode::empty()) {
        Ok(fd) => Ok(Some(rustix::fs::fstat(&fd)?)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether an error says that something on the way is not there.
pub fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether `stat` is of a directory.
pub fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Opens the directory `path`, making what is missing with mode 0755 and `owner`. A link that leads nowhere yet
/// has its goal made. Gives the directory and whether anything was made.
pub fn make_dirs(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: Option<(u32, u32)>,
) -> io::Result<(OwnedFd, bool)> {
    make(root, &clean(path), owner, 0)
}

fn make(
    root: BorrowedFd<'_>,
    path: &Path,
    owner: Option<(u32, u32)>,
    links: usize,
) -> io::Result<(OwnedFd, bool)> {
    match resolve_dir_in_root(root, path) {
        Ok(dir) => return Ok((dir, false)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let (dir, _) = make(root, parent, owner, links)?;
    match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            give(dir.as_fd(), name, owner)?;
            // Whatever the umask was.
            let made = resolve_dir_in_root(dir.as_fd(), Path::new(name))?;
            let own = rustix::fs::openat(&made, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::fchmod(&own, Mode::from_raw_mode(0o755))?;
            Ok((made, true))
        }
        Err(Errno::EXIST) => {
            let stat = statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            if links >= MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let goal = readlinkat(&dir, name, Vec::new())?;
            let goal = Path::new(OsStr::new(goal.to_str().map_err(|_| Errno::ILSEQ)?)).to_owned();
            let goal = if goal.is_absolute() {
                goal
            } else {
                parent.join(goal)
            };
            make(root, &clean(&goal), owner, links + 1)
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives an entry to `owner`, if there is one.
pub fn give(dir: BorrowedFd<'_>, name: &OsStr, owner: Option<(u32, u32)>) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}
