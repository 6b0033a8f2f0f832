//! How a snapshot lies on disk: the two drivers.
//!
//! | driver | a snapshot's own directory holds | its root filesystem is |
//! |---|---|---|
//! | `overlay` | what it changes, with overlayfs' marks for what it deletes | an overlay of it and those below |
//! | `vfs` | everything: a copy of what is below, changed | the directory itself |
//!
//! The store's driver makes new snapshots; each row says whose it is, so that a store whose driver was changed goes on
//! with what it has. What lies below a snapshot that holds everything counts no more.
//!
//! Call order: `make`, then `fill` unless nothing is below, then `mount` as often as wanted. A new driver passes the
//! suite in `crates/image/tests/drivers`.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use sys::mount::Overlay;

use super::create::{ROOT_MODE, copy_root, make};
use crate::copy::copy_tree;
use crate::failure::{Context, PathError};

/// Which driver makes a store's snapshots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StorageDriver {
    /// `overlay` where the data root's filesystem carries it, else `vfs`.
    #[default]
    Auto,
    Overlay,
    Vfs,
}

impl FromStr for StorageDriver {
    type Err = String;

    /// Docker's names mean the same.
    fn from_str(name: &str) -> Result<StorageDriver, String> {
        match name {
            "" | "auto" => Ok(StorageDriver::Auto),
            "overlay" | "overlay2" | "overlayfs" => Ok(StorageDriver::Overlay),
            "vfs" => Ok(StorageDriver::Vfs),
            _ => Err("the storage drivers of this engine are overlay and vfs; auto chooses".to_owned()),
        }
    }
}

/// What lies below a snapshot, as its root filesystem.
pub(super) struct Below {
    /// The directory of the layer directly below.
    pub(super) top: PathBuf,
    pub(super) tree: Overlay,
}

pub(super) trait Driver: Send + Sync {
    /// As the API tells it.
    fn name(&self) -> &'static str;
    /// Whether a snapshot holds everything, not only what it changes.
    fn whole(&self) -> bool;
    /// Makes the directories of a new snapshot in `home`, which is there and empty. Quick: nobody writes meanwhile.
    fn make(&self, home: &Path, top: Option<&Path>) -> Result<(), PathError>;
    /// Puts in what the snapshot has of those below; when it was done, by the filesystem's clock in nanoseconds.
    fn fill(&self, home: &Path, below: &Below) -> Result<i64, PathError>;
    /// What to mount to see it. `lower` are the directories of those below, top first, never none.
    fn mount(&self, home: &Path, lower: Vec<PathBuf>, writable: bool) -> Overlay;
}

/// The driver of a snapshot.
pub(super) fn of(whole: bool) -> &'static dyn Driver {
    if whole { &Vfs } else { &Layered }
}

/// The snapshot's own directory.
pub(super) fn fs_in(home: &Path) -> PathBuf {
    home.join("fs")
}

/// The overlay's work directory; only writable snapshots have one.
pub(super) fn work_in(home: &Path) -> PathBuf {
    home.join("work")
}

struct Layered;

impl Driver for Layered {
    fn name(&self) -> &'static str {
        "overlayfs"
    }

    fn whole(&self) -> bool {
        false
    }

    fn make(&self, home: &Path, top: Option<&Path>) -> Result<(), PathError> {
        make_root(home, top)?;
        make(&work_in(home), 0o700)
    }

    fn fill(&self, _home: &Path, _below: &Below) -> Result<i64, PathError> {
        Ok(0)
    }

    fn mount(&self, home: &Path, mut lower: Vec<PathBuf>, writable: bool) -> Overlay {
        if !writable {
            lower.insert(0, fs_in(home));
        }
        Overlay {
            lower,
            upper: writable.then(|| fs_in(home)),
            work: writable.then(|| work_in(home)),
            read_only: !writable,
            ..Overlay::default()
        }
    }
}

struct Vfs;

impl Driver for Vfs {
    fn name(&self) -> &'static str {
        "vfs"
    }

    fn whole(&self) -> bool {
        true
    }

    fn make(&self, home: &Path, top: Option<&Path>) -> Result<(), PathError> {
        make_root(home, top)
    }

    fn fill(&self, home: &Path, below: &Below) -> Result<i64, PathError> {
        let fs = fs_in(home);
        let from = tree(&below.tree).at("open", &below.top)?;
        let to = directory(&fs).at("open", &fs)?;
        copy_tree(from.as_fd(), to.as_fd()).at("copy the layers below to", &fs)?;
        // A change of status of the directory around it gets the filesystem's own idea of now.
        fs::set_permissions(home, Permissions::from_mode(0o700)).at("protect", home)?;
        let home_fd = directory(home).at("open", home)?;
        let stat = fstat(&home_fd).at("read", home)?;
        Ok(nanoseconds(stat.st_ctime, stat.st_ctime_nsec as _))
    }

    fn mount(&self, home: &Path, _lower: Vec<PathBuf>, writable: bool) -> Overlay {
        match writable {
            true => Overlay {
                upper: Some(fs_in(home)),
                ..Overlay::default()
            },
            false => Overlay {
                lower: vec![fs_in(home)],
                read_only: true,
                ..Overlay::default()
            },
        }
    }
}

/// A time as [`Part::changed_after`](super::Part::changed_after) compares it.
pub(super) fn nanoseconds(seconds: i64, nanos: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

fn make_root(home: &Path, top: Option<&Path>) -> Result<(), PathError> {
    let fs = fs_in(home);
    make(&fs, ROOT_MODE)?;
    match top {
        Some(top) => copy_root(top, &fs),
        // Against an unusual umask.
        None => fs::set_permissions(&fs, Permissions::from_mode(ROOT_MODE)).at("set the mode of", &fs),
    }
}

/// One directory needs no mount, and no privilege to make one.
fn tree(overlay: &Overlay) -> io::Result<OwnedFd> {
    match overlay.single() {
        Some((only, false)) => directory(only),
        _ => overlay.mount_detached(),
    }
}

fn directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}
