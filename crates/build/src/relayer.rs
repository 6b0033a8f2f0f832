//! The new layers of an image made over before it gets them: all as one (`--squash`), or with no time later than
//! `SOURCE_DATE_EPOCH` (`--rewrite-timestamp`).
//!
//! A layer is read as its archive and unpacked on top of what is below it, so that what it deletes stays deleted. The
//! snapshots it came from stay as they are, for the cache.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::layer::{DiffOptions, Kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat};
use rustix::io::Errno;
use store::{Part, SnapshotId};
use sys::beneath::{DIRECTORY, get_xattr, is_whiteout, list_sorted, open_beneath_no_links, remove_tree};

use crate::error::BuildError;
use crate::step::{Build, Scratch};

/// What is to be done to layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayer {
    pub squash: bool,
    /// Seconds since 1970.
    pub latest: Option<i64>,
}

impl Relayer {
    fn is_needed(self, layers: &[SnapshotId]) -> bool {
        self.latest.is_some() || (self.squash && layers.len() > 1)
    }

    /// Makes `layers`, lowest first, over; they lie on `base`. Blocks.
    pub fn apply(
        self,
        build: &Build,
        layers: Vec<SnapshotId>,
        base: Option<SnapshotId>,
    ) -> Result<Vec<SnapshotId>, BuildError> {
        if !self.is_needed(&layers) {
            return Ok(layers);
        }
        let groups: Vec<&[SnapshotId]> = match self.squash {
            true => vec![&layers],
            false => layers.chunks(1).collect(),
        };
        let (mut below, mut made) = (base, Vec::new());
        for group in groups {
            let scratch = Scratch::create(&build.store, below, &build.id)?;
            for layer in group {
                self.copy(build, *layer, &scratch)?;
            }
            let layer = scratch.commit(|id| build.cache.hold(id))?;
            made.push(layer);
            below = Some(layer);
        }
        Ok(made)
    }

    /// Puts what `layer` changes into the snapshot `into`.
    fn copy(self, build: &Build, layer: SnapshotId, into: &Scratch) -> Result<(), BuildError> {
        let snapshots = build.store.snapshots();
        let (from, goal) = (snapshots.part(layer)?, snapshots.part(into.id()?)?);
        // In a copy of what is below, the layer's archive removes it itself.
        if !goal.is_whole() {
            let hidden = match from.is_whole() {
                true => remove_deleted(&from, &goal.dir),
                false => hide(&from.dir, &goal.dir),
            };
            hidden
                .map_err(|error| BuildError::io("removing from a layer what a later one deletes", &error))?;
        }
        into.lay(
            layer,
            DiffOptions {
                // Times that are cut to whole seconds anyway need no fractions.
                nanoseconds: self.latest.is_none(),
                latest: self.latest,
            },
        )
    }
}

/// Removes from `goal` what the layer `from`, a copy of what is below it, lacks of that.
fn remove_deleted(from: &Part, goal: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let goal = rustix::fs::open(goal, flags, Mode::empty())?;
    let changes = image::layer::changes(from).map_err(io::Error::other)?;
    for change in changes.iter().filter(|change| change.kind == Kind::Deleted) {
        let path = change.path.strip_prefix("/").unwrap_or(&change.path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        if let Some(dir) = directory(goal.as_fd(), parent)? {
            remove(dir.as_fd(), name)?;
        }
    }
    Ok(())
}

/// The directory at `path`. What is not there, or is no directory, holds nothing to remove.
fn directory(goal: BorrowedFd<'_>, path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_beneath_no_links(goal, path, DIRECTORY, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            _ => Err(error),
        },
    }
}

fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match remove_tree(dir, name) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes from `goal` what the layer in `upper` deletes or replaces by a directory of its own: the archive says so only
/// with regard to the layers below `goal`.
fn hide(upper: &Path, goal: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let (upper, goal) = (open(upper)?, open(goal)?);
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        let from = open_beneath_no_links(upper.as_fd(), &dir, flags, Mode::empty())?;
        let Some(into) = directory(goal.as_fd(), &dir)? else {
            continue;
        };
        for name in list_sorted(from.as_fd())? {
            let stat = statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let opaque = is_directory
                && get_xattr(from.as_fd(), &name, "trusted.overlay.opaque")?.is_some_and(|mark| mark == b"y");
            if is_whiteout(&stat) || opaque {
                remove(into.as_fd(), &name)?;
            } else if is_directory {
                waiting.push(dir.join(&name));
            }
        }
    }
    Ok(())
}
