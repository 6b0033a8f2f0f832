//! The first use of an empty volume: what the image has at that place is copied into it, with owners, modes,
//! times, attributes, links and devices.
//!
//! A marker beside the volume's content says that a copy is under way. Every file appears under its name only
//! when it is complete, so a copy that was cut off is gone on with, and nothing a container wrote meanwhile is
//! overwritten. The volume may be mounted in a running container while this happens: every step is relative to
//! a directory descriptor and follows no link in the volume. In the image, links lead where a process with the
//! image's root would see them lead.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use sys::beneath::{list_sorted, resolve_in_root};

use crate::VolumeError;

/// Fills the volume's directory from `path` in the image whose root directory is `image`. Whether there was
/// anything to do: the volume was empty, and the image has a directory there.
pub fn copy_up(volume: &Path, image: BorrowedFd<'_>, path: &str) -> Result<bool, VolumeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = match resolve_in_root(image, path, flags, Mode::empty()) {
        Ok(source) => source,
        Err(error) if is_absent(&error) => return Ok(false),
        Err(cause) => return Err(VolumeError::at("open in the image", Path::new(path), cause)),
    };
    let failed = |cause: io::Error| VolumeError::at("copy the image's content to", volume, cause);
    let target = openat(CWD, volume, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
    let marker = volume.parent().unwrap_or(Path::new("/")).join("copying");
    let unfinished = marker.exists();
    if !unfinished && !list_sorted(target.as_fd()).map_err(failed)?.is_empty() {
        return Ok(false);
    }
    File::create(&marker).map_err(|cause| VolumeError::at("create", &marker, cause))?;
    store::copy_tree(source.as_fd(), target.as_fd()).map_err(failed)?;
    fs::remove_file(&marker).map_err(|cause| VolumeError::at("remove", &marker, cause))?;
    Ok(true)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}
