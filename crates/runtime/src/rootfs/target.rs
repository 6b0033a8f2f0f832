//! Where mounts and device nodes go inside the container's root: found, and made when missing.
//!
//! The image is hostile: any component may be a link, may point outside, or may change while it is looked at
//! (another container may share a volume). A path that exists is resolved by the kernel with the root as its
//! limit. A path that has to be made is walked component by component over descriptors, never following a link
//! by name: link texts are read and walked the same way, `..` goes back over the descriptors already held, so
//! the walk cannot come above the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sys::beneath::resolve_in_root;

/// As the kernel's limit of links in one lookup.
const MAX_LINKS: usize = 40;

/// Longer paths are refused by the kernel as well.
const MAX_COMPONENTS: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File,
}

const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// The file or directory at `path`; made (with its parents) as `kind` when there is none.
pub(crate) fn open_or_make(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let found = match resolve_in_root(root, path, LOOK, Mode::empty()) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => walk(root, path, kind)?,
        Err(error) => return Err(error),
    };
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) == FileType::Directory;
    if is_directory == (kind == Kind::Directory) {
        return Ok(found);
    }
    Err(io::Error::new(
        io::ErrorKind::NotADirectory,
        "not a directory: Are you trying to mount a directory onto a file (or vice-versa)? \
         Check if the specified host path exists and is the expected type",
    ))
}

/// The directory that is to hold the last component of `path`, made when missing, and that component.
pub(crate) fn parent(root: BorrowedFd<'_>, path: &Path) -> io::Result<(OwnedFd, OsString)> {
    let name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    Ok((open_or_make(root, directory, Kind::Directory)?, name.to_owned()))
}

/// As `open_or_make`, where the last component must not be a link: a place of the engine's own choosing, over which
/// an image may not lead it elsewhere (CVE-2025-52565).
pub(crate) fn open_or_make_last(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let (directory, name) = parent(root, path)?;
    let found = match rustix::fs::openat(&directory, &name, LOOK | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(found) => found,
        Err(Errno::NOENT) => make(directory.as_fd(), &name, kind)?,
        Err(error) => return Err(error.into()),
    };
    match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
        FileType::Symlink => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the image has a symbolic link in its place",
        )),
        _ => Ok(found),
    }
}

/// What exists at `path`, or nothing.
pub(crate) fn existing(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match resolve_in_root(root, path, LOOK, Mode::empty()) {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            _ => Err(error),
        },
    }
}

fn walk(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let mut rest = VecDeque::new();
    push_front(&mut rest, path);
    // The directories above the present one, without the root.
    let mut above: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            above.pop();
            continue;
        }
        let here = above.last().map_or(root, |directory| directory.as_fd());
        let last = rest.is_empty();
        let found = match rustix::fs::openat(here, &name, LOOK | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => make(here, &name, if last { kind } else { Kind::Directory })?,
            Err(error) => return Err(error.into()),
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Symlink {
            above.push(found);
            continue;
        }
        links += 1;
        if links > MAX_LINKS || rest.len() > MAX_COMPONENTS {
            return Err(Errno::LOOP.into());
        }
        let text = rustix::fs::readlinkat(here, &name, Vec::new())?;
        let text = Path::new(OsStr::from_bytes(text.to_bytes()));
        if text.is_absolute() {
            above.clear();
        }
        push_front(&mut rest, text);
    }
    match above.pop() {
        Some(found) => Ok(found),
        None => Ok(rustix::fs::openat(root, c".", LOOK, Mode::empty())?),
    }
}

fn push_front(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn make(at: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> io::Result<OwnedFd> {
    match kind {
        Kind::Directory => match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        },
        Kind::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(at, name, flags, Mode::from_raw_mode(0o644)) {
                Ok(_) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(rustix::fs::openat(
        at,
        name,
        LOOK | OFlags::NOFOLLOW,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    fn root() -> (tempfile::TempDir, PathBuf, OwnedFd) {
        let outside = tempfile::tempdir().unwrap();
        let root = outside.path().join("root");
        fs::create_dir(&root).unwrap();
        let fd = rustix::fs::open(&root, LOOK | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (outside, root, fd)
    }

    #[test]
    fn missing_parents_are_made() {
        let (_outside, root, fd) = root();
        open_or_make(fd.as_fd(), Path::new("/a/b/../c/file"), Kind::File).unwrap();
        assert!(root.join("a/c/file").is_file() && root.join("a/b").is_dir());
        open_or_make(fd.as_fd(), Path::new("/a/c/dir"), Kind::Directory).unwrap();
        assert!(root.join("a/c/dir").is_dir());
        open_or_make(fd.as_fd(), Path::new("/"), Kind::Directory).unwrap();
    }

    #[test]
    fn links_stay_inside() {
        let (outside, root, fd) = root();
        symlink("/missing/deep", root.join("absolute")).unwrap();
        symlink("../../../up", root.join("relative")).unwrap();
        symlink(outside.path(), root.join("out")).unwrap();
        open_or_make(fd.as_fd(), Path::new("/absolute/x"), Kind::Directory).unwrap();
        open_or_make(fd.as_fd(), Path::new("/relative/y"), Kind::Directory).unwrap();
        open_or_make(fd.as_fd(), Path::new("/out/z"), Kind::Directory).unwrap();
        assert!(root.join("missing/deep/x").is_dir());
        assert!(root.join("up/y").is_dir());
        assert!(!outside.path().join("z").exists() && !outside.path().join("up").exists());
        let inside = root.join(outside.path().strip_prefix("/").unwrap()).join("z");
        assert!(inside.is_dir());
    }

    #[test]
    fn a_circle_ends() {
        let (_outside, root, fd) = root();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        assert!(open_or_make(fd.as_fd(), Path::new("/a/x"), Kind::Directory).is_err());
    }

    #[test]
    fn kinds_do_not_mix() {
        let (_outside, root, fd) = root();
        fs::write(root.join("file"), "").unwrap();
        let error = open_or_make(fd.as_fd(), Path::new("/file"), Kind::Directory).unwrap_err();
        assert!(error.to_string().contains("vice-versa"), "{error}");
        assert!(open_or_make(fd.as_fd(), Path::new("/file/below"), Kind::File).is_err());
        assert!(existing(fd.as_fd(), Path::new("/file/below")).unwrap().is_none());
    }
}
