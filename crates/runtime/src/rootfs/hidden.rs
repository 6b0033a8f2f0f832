//! What a container must not see or must not change: masked and read-only paths.
//!
//! A masked file is covered by the null device, a masked directory by an empty read-only tmpfs (one for all).
//! The null device is the host's, checked to be it: the container's could be a link to anywhere
//! (CVE-2025-31133). A path that does not exist on this kernel needs no hiding.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, makedev};
use sys::mount::{Attributes, Filesystem, Propagation, Tree};

use super::target;
use crate::error::{LaunchError, reason};

pub(crate) fn mask(root: BorrowedFd<'_>, paths: &[PathBuf], label: Option<&str>) -> Result<(), LaunchError> {
    if paths.is_empty() {
        return Ok(());
    }
    let mut cover = Cover::new(label).map_err(|error| failed("mask", Path::new("/dev/null"), &error))?;
    for path in paths {
        cover
            .mask(root, path)
            .map_err(|error| failed("mask", path, &error))?;
    }
    Ok(())
}

struct Cover<'a> {
    null: std::os::fd::OwnedFd,
    /// Of the directory that covers others.
    label: Option<&'a str>,
    empty: Option<Tree>,
}

impl<'a> Cover<'a> {
    fn new(label: Option<&'a str>) -> io::Result<Cover<'a>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let null = rustix::fs::openat(CWD, c"/dev/null", flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&null)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::CharacterDevice || stat.st_rdev != makedev(1, 3)
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not the null device",
            ));
        }
        Ok(Cover {
            null,
            label,
            empty: None,
        })
    }

    fn mask(&mut self, root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        let Some(found) = target::existing(root, path)? else {
            return Ok(());
        };
        if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Directory {
            let tree = Tree::of(self.null.as_fd(), false)?;
            tree.set(
                Attributes {
                    propagation: Some(Propagation::Private),
                    ..Attributes::default()
                },
                false,
            )?;
            return tree.attach(found.as_fd());
        }
        if let Some(empty) = &self.empty {
            return Tree::of(empty.as_fd(), false)?.attach(found.as_fd());
        }
        let fs = Filesystem::new("tmpfs")?;
        fs.string("size", "0k")?;
        fs.string("nr_inodes", "2")?;
        fs.string("mode", "755")?;
        if let Some(label) = self.label {
            fs.string(sys::selinux::MOUNT_OPTION, label)?;
        }
        let nothing = Attributes::NO_SUID | Attributes::NO_DEV | Attributes::NO_EXEC;
        let empty = fs.mount(Attributes::READ_ONLY | nothing)?;
        empty.attach(found.as_fd())?;
        self.empty = Some(empty);
        Ok(())
    }
}

pub(crate) fn make_read_only(root: BorrowedFd<'_>, paths: &[PathBuf]) -> Result<(), LaunchError> {
    for path in paths {
        read_only(root, path).map_err(|error| failed("make read-only", path, &error))?;
    }
    Ok(())
}

fn read_only(root: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let Some(found) = target::existing(root, path)? else {
        return Ok(());
    };
    let tree = Tree::of(found.as_fd(), true)?;
    tree.set(
        Attributes {
            set: Attributes::READ_ONLY,
            ..Attributes::default()
        },
        true,
    )?;
    tree.attach(found.as_fd())
}

fn failed(what: &str, path: &Path, error: &io::Error) -> LaunchError {
    LaunchError::Setup {
        step: format!("{what} {}", path.display()),
        reason: reason(error),
        errno: error.raw_os_error(),
    }
}
