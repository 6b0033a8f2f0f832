//! Paths that come from images, archives, clients or containers, opened relative to a directory descriptor.
//!
//! Two ways of resolving, both without magic links (openat2(2), Linux 5.6):
//! - *beneath*: the path must stay below the directory; `..` and links that lead out are errors. For paths that
//!   the engine made itself.
//! - *in root*: the directory is `/`; absolute links and `..` are clamped to it, as a process with that root
//!   would see them. For paths that somebody else wrote.
//!
//! Names (single components) are used with the `*at` calls of `rustix` directly. What those calls lack for
//! links and devices (extended attributes) goes through `/proc/self/fd/N/name` with the `l*xattr` family: the
//! first part is a descriptor we hold, and the last component is never followed.

mod list;
mod remove;
mod xattr;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

pub use list::{Names, is_whiteout, list, list_sorted};
pub use remove::{Removed, remove_tree};
pub use xattr::{file_xattrs, get_xattr, set_file_xattr, set_xattr, xattrs};

/// How a directory is opened whose entries are asked for: it, and never what a link of its name leads to.
pub const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How often a lookup that raced with a rename or a mount change is tried again before the error is given out.
const RACE_RETRIES: usize = 64;

/// Opens `path` below `dir`. A path that leaves `dir`, even through a link, fails with `EXDEV`.
pub fn open_beneath(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    open(dir, path.as_ref(), flags, mode, ResolveFlags::BENEATH)
}

/// Opens `path` below `dir` and refuses symbolic links anywhere in it (`ELOOP`).
pub fn open_beneath_no_links(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    open(dir, path.as_ref(), flags, mode, resolve)
}

/// Opens `path` below `dir` on the very mount that `dir` is on; one in the way is refused (`EXDEV`).
pub fn open_on_same_mount(
    dir: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
    open(dir, path.as_ref(), flags, mode, resolve)
}

/// Opens `path` as a process would see it whose root directory is `root`.
pub fn resolve_in_root(
    root: BorrowedFd<'_>,
    path: impl AsRef<Path>,
    flags: OFlags,
    mode: Mode,
) -> io::Result<OwnedFd> {
    open(root, path.as_ref(), flags, mode, ResolveFlags::IN_ROOT)
}

/// The directory at `path` as a process with the root `root` would see it, as a place to resolve from.
pub fn resolve_dir_in_root(root: BorrowedFd<'_>, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    resolve_in_root(root, path, flags, Mode::empty())
}

fn open(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACE_RETRIES {
        match openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// The path under which the entry `name` of the held directory `dir` can be given to calls that only take
/// paths. The caller must not let such a call follow the last component.
pub fn proc_path(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(name);
    path
}
