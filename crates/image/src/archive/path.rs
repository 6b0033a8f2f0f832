//! Paths as clients write them, and where links in a root filesystem lead.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, readlinkat, statat};
use rustix::io::Errno;
use sys::beneath::resolve_dir_in_root;

const MAX_LINKS: usize = 40;

/// A client's path, cut before its last component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// Absolute and plain.
    pub(super) whole: PathBuf,
    /// What is before the last component, or all of it when a trailing `/` or `/.` asks for a directory.
    pub(super) dir: PathBuf,
    /// `None`: the directory itself.
    pub(super) last: Option<OsString>,
    /// What clients call it: the last component, `.` for a path that ends so, `/` for the root.
    pub(super) name: String,
}

/// Takes a path apart. Absolute or not, it begins at the root; `..` goes back lexically, as Docker's clients
/// have it, and never above the root.
pub(super) fn asked(path: &str) -> Asked {
    let mut plain: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                plain.pop();
            }
            name => plain.push(name),
        }
    }
    let whole = Path::new("/").join(plain.join("/"));
    let ends_in_dot = path == "." || path.ends_with("/.");
    let name = match plain.last() {
        _ if ends_in_dot => ".".to_owned(),
        Some(name) => (*name).to_owned(),
        None => "/".to_owned(),
    };
    let directory = ends_in_dot || path.ends_with('/') || plain.is_empty();
    let last = if directory {
        None
    } else {
        whole.file_name().map(OsStr::to_owned)
    };
    let dir = match last {
        Some(_) => whole.parent().unwrap_or(Path::new("/")).to_owned(),
        None => whole.clone(),
    };
    Asked {
        whole,
        dir,
        last,
        name,
    }
}

/// The path without links, as a process with this root would find it. What does not exist is taken as written.
pub(super) fn follow(root: BorrowedFd<'_>, path: &Path) -> io::Result<PathBuf> {
    let mut left: VecDeque<OsString> = components(path.as_os_str().as_bytes());
    let mut at = PathBuf::from("/");
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let target = match resolve_dir_in_root(root, &at) {
            Ok(dir) => match statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    Some(readlinkat(&dir, &name, Vec::new())?.into_bytes())
                }
                Ok(_) | Err(Errno::NOENT) => None,
                Err(error) => return Err(error.into()),
            },
            Err(error) if is_absent(&error) => None,
            Err(error) => return Err(error),
        };
        let Some(target) = target else {
            at.push(name);
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if target.starts_with(b"/") {
            at = PathBuf::from("/");
        }
        let mut next = components(&target);
        next.append(&mut left);
        left = next;
    }
    Ok(at)
}

fn components(path: &[u8]) -> VecDeque<OsString> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        for (path, whole, dir, last, name) in [
            ("/etc/passwd", "/etc/passwd", "/etc", Some("passwd"), "passwd"),
            ("etc", "/etc", "/", Some("etc"), "etc"),
            ("/etc/", "/etc", "/etc", None, "etc"),
            ("/etc/.", "/etc", "/etc", None, "."),
            ("/", "/", "/", None, "/"),
            ("", "/", "/", None, "/"),
            (".", "/", "/", None, "."),
            ("/../../etc/../var//x", "/var/x", "/var", Some("x"), "x"),
        ] {
            let expected = Asked {
                whole: whole.into(),
                dir: dir.into(),
                last: last.map(OsString::from),
                name: name.into(),
            };
            assert_eq!(asked(path), expected, "{path}");
        }
    }
}
