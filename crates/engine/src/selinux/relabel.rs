//! Giving all files of a tree one label, for `:z` and `:Z` and for what the engine itself makes.
//!
//! The tree is its users': every directory is opened without following links, so that a link that is put there meanwhile
//! leads nowhere, and what is removed meanwhile needs no label. Only what has another label is written to. The topmost
//! directory comes last: after an interruption the next start does the rest.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use sys::beneath;
use sys::selinux::ATTRIBUTE;

use crate::error::{Error, Result};

/// Directories whose files belong to the system: with a container's label it would not come up again.
const SYSTEM: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Labels a file, or a directory with all that is in it. A filesystem that has no labels of its own is left as it is.
pub(crate) fn relabel(path: &Path, label: &str) -> Result<()> {
    let path = std::fs::canonicalize(path)
        .map_err(|error| Error::internal(format!("cannot find {}: {error}", path.display())))?;
    if SYSTEM.iter().any(|system| path == Path::new(system)) {
        return Err(Error::invalid(format!(
            "SELinux relabeling of {} is not allowed",
            path.display()
        )));
    }
    match tree(&path, label) {
        Ok(()) => Ok(()),
        Err((_, error)) if error.raw_os_error() == Some(Errno::NOTSUP.raw_os_error()) => Ok(()),
        Err((at, error)) => Err(Error::internal(format!(
            "cannot give {} the SELinux label {label}: {error}",
            path.join(at).display()
        ))),
    }
}

/// The same for a directory of the engine's, where it is there and has another label itself.
pub(super) fn relabel_once(path: &Path, label: &str) -> Result<()> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let present = open(CWD, above).and_then(|above| beneath::get_xattr(above.as_fd(), name, ATTRIBUTE));
    match present {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(Some(present)) if bare(&present) == label.as_bytes() => Ok(()),
        _ => relabel(path, label),
    }
}

/// The kernel ends labels with a null byte.
fn bare(label: &[u8]) -> &[u8] {
    label.strip_suffix(b"\0").unwrap_or(label)
}

fn tree(path: &Path, label: &str) -> std::result::Result<(), (PathBuf, io::Error)> {
    let here = |error: io::Error| (PathBuf::new(), error);
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let above = open(CWD, above).map_err(here)?;
    match beneath::open_beneath_no_links(above.as_fd(), name, beneath::DIRECTORY, Mode::empty()) {
        Ok(top) => below(&top, label)?,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
        Err(error) => return Err(here(error)),
    }
    set(above.as_fd(), name, label).map_err(here)
}

fn open(at: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(
        at,
        path,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Everything in `top`, but not itself. Directories are kept by name: a tree may be deeper than descriptors are many.
fn below(top: &OwnedFd, label: &str) -> std::result::Result<(), (PathBuf, io::Error)> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let opened =
            beneath::open_beneath_no_links(top.as_fd(), &directory, beneath::DIRECTORY, Mode::empty());
        let listed = opened.and_then(|opened| beneath::list(opened.as_fd()).map(|names| (opened, names)));
        let (opened, names) = match listed {
            Ok(listed) => listed,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err((directory, error)),
        };
        for (name, kind) in names {
            if matches!(kind, FileType::Directory | FileType::Unknown) {
                waiting.push(directory.join(&name));
            }
            match set(opened.as_fd(), &name, label) {
                Err(error) if !is_gone(&error) => return Err((directory.join(name), error)),
                _ => {}
            }
        }
    }
    Ok(())
}

fn set(directory: BorrowedFd<'_>, name: &OsStr, label: &str) -> io::Result<()> {
    let present = beneath::get_xattr(directory, name, ATTRIBUTE)?;
    if present.as_deref().map(bare) == Some(label.as_bytes()) {
        return Ok(());
    }
    beneath::set_xattr(directory, name, OsStr::new(ATTRIBUTE), label.as_bytes())
}

/// Removed meanwhile, or no directory (any more).
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    #[test]
    fn the_systems_directories_keep_their_labels() {
        for path in ["/usr", "/usr/../etc", "/"] {
            let error = relabel(Path::new(path), LABEL).unwrap_err();
            assert!(
                error.message.contains("is not allowed"),
                "{path}: {}",
                error.message
            );
        }
        assert!(relabel(Path::new("/no/such/place"), LABEL).is_err());
    }

    /// A kernel without SELinux keeps the attribute as it is given, to root.
    #[test]
    fn all_of_a_tree_and_nothing_that_a_link_leads_to() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(tree.join("a/b/file"), "").unwrap();
        std::fs::write(outside.join("file"), "").unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("link")).unwrap();
        relabel(&tree, LABEL).unwrap();
        let label = |path: PathBuf| {
            let parent = open(CWD, path.parent().unwrap()).unwrap();
            let value = beneath::get_xattr(parent.as_fd(), path.file_name().unwrap(), ATTRIBUTE).unwrap();
            let text = value.map(|value| String::from_utf8(value).unwrap());
            text.map(|text| text.trim_end_matches('\0').to_owned())
        };
        for path in ["", "a", "a/b", "a/b/file", "link"] {
            let path = tree.join(path).components().collect();
            assert_eq!(label(path).as_deref(), Some(LABEL));
        }
        assert_ne!(label(outside.join("file")).as_deref(), Some(LABEL));
        assert_ne!(label(outside).as_deref(), Some(LABEL));
        relabel(&tree.join("a/b/file"), "system_u:object_r:container_file_t:s0").unwrap();
        assert_eq!(
            label(tree.join("a/b/file")).as_deref(),
            Some("system_u:object_r:container_file_t:s0")
        );
    }
}
