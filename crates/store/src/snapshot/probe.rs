//! Which driver the data root's filesystem carries: an overlay is mounted there, mounted nowhere that anyone sees, and
//! must hide what was deleted in it. Filesystems that cannot be its upper directory (another overlay, NFS) say so at the
//! mount; those that cannot hold its marks only by what it shows then.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};
use sys::beneath::list;
use sys::mount::Overlay;

use super::driver::{self, Driver, StorageDriver};
use super::{SnapshotError, Snapshots};
use crate::failure::Context;
use crate::objects;
use crate::open::Options;

impl Snapshots {
    /// The driver for `wanted` in the directory of the snapshots.
    pub(super) fn choose(dir: &Path, options: Options) -> Result<&'static dyn Driver, SnapshotError> {
        let driver = Snapshots::choose_driver(dir, options.driver)?;
        let place = dir.join("probe-dedup");
        if options.dedup.is_none() {
            objects::clear_probe(&place).at("remove", &place)?;
        } else {
            let able = match driver.whole() {
                true => Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "the storage driver vfs copies files and shares none",
                )),
                false => objects::probe(&place),
            };
            able.at("use store-dedup (leave it out to start without) in", dir)?;
        }
        Ok(driver)
    }

    fn choose_driver(dir: &Path, wanted: StorageDriver) -> Result<&'static dyn Driver, SnapshotError> {
        if wanted == StorageDriver::Vfs {
            return Ok(driver::of(true));
        }
        match probe(dir) {
            Ok(()) => Ok(driver::of(false)),
            // Whoever may not mount says nothing about the filesystem.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(driver::of(false)),
            Err(error) if wanted == StorageDriver::Auto && is_about_the_filesystem(&error) => {
                tracing::warn!(
                    %error, dir = %dir.display(),
                    "the data root's filesystem carries no overlay: layers are copied (storage driver vfs)"
                );
                Ok(driver::of(true))
            }
            Err(cause) => Ok(Err(cause).at("use the storage driver overlay (vfs is the other one) in", dir)?),
        }
    }
}

fn is_about_the_filesystem(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::NotFound
    ) || matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::NODEV.raw_os_error())
}

fn probe(dir: &Path) -> io::Result<()> {
    let place = dir.join("probe");
    let clear = || match fs::remove_dir_all(&place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    // What one that was killed left.
    clear()?;
    let outcome = try_overlay(&place);
    clear()?;
    outcome
}

fn try_overlay(place: &Path) -> io::Result<()> {
    for name in ["lower/dir/below", "upper", "work"] {
        fs::create_dir_all(place.join(name))?;
    }
    let overlay = Overlay {
        lower: vec![place.join("lower")],
        upper: Some(place.join("upper")),
        work: Some(place.join("work")),
        read_only: false,
        ..Overlay::default()
    };
    let root = overlay.mount_detached()?;
    let dir = |name: &str| -> io::Result<std::os::fd::OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(openat(&root, name, flags, Mode::empty())?)
    };
    unlinkat(dir("dir")?, "below", AtFlags::REMOVEDIR)?;
    unlinkat(&root, "dir", AtFlags::REMOVEDIR)?;
    mkdirat(&root, "dir", Mode::RWXU)?;
    match list(dir("dir")?.as_fd())?.is_empty() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the filesystem does not keep what overlayfs marks as deleted",
        )),
    }
}
