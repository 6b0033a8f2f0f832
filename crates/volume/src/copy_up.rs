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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use sys::beneath::{list_sorted, resolve_in_root};

use crate::VolumeError;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What is filled.
pub(crate) struct Place<'a> {
    /// The volume's content, or where it would be: the marker lies beside it.
    pub(crate) path: &'a Path,
    /// The content, where it is elsewhere.
    pub(crate) directory: Option<OwnedFd>,
}

/// Fills the volume's directory from `path` in the image whose root directory is `image`. Whether there was
/// anything to do: the volume was empty, and the image has a directory there.
pub fn copy_up(volume: &Path, image: BorrowedFd<'_>, path: &str) -> Result<bool, VolumeError> {
    let place = Place {
        path: volume,
        directory: None,
    };
    match content(image, path)? {
        Some(source) => fill(&place, source.as_fd()),
        None => Ok(false),
    }
}

/// The directory that the image has at `path`, if it has one.
pub(crate) fn content(image: BorrowedFd<'_>, path: &str) -> Result<Option<OwnedFd>, VolumeError> {
    match resolve_in_root(image, path, DIRECTORY, Mode::empty()) {
        Ok(source) => Ok(Some(source)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(cause) => Err(VolumeError::at("open in the image", Path::new(path), cause)),
    }
}

/// Copies the content of a directory to an empty volume, or goes on with that.
pub(crate) fn fill(place: &Place<'_>, source: BorrowedFd<'_>) -> Result<bool, VolumeError> {
    let failed = |cause: io::Error| VolumeError::at("copy the image's content to", place.path, cause);
    let opened;
    let target = match &place.directory {
        Some(directory) => directory.as_fd(),
        None => {
            opened =
                openat(CWD, place.path, DIRECTORY, Mode::empty()).map_err(|error| failed(error.into()))?;
            opened.as_fd()
        }
    };
    let marker = place.path.parent().unwrap_or(Path::new("/")).join("copying");
    let unfinished = marker.exists();
    if !unfinished && !list_sorted(target).map_err(failed)?.is_empty() {
        return Ok(false);
    }
    File::create(&marker).map_err(|cause| VolumeError::at("create", &marker, cause))?;
    store::copy_tree(source, target).map_err(failed)?;
    fs::remove_file(&marker).map_err(|cause| VolumeError::at("remove", &marker, cause))?;
    Ok(true)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    ) || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}
