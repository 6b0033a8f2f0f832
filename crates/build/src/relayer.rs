//! The new layers of an image made over before it gets them: all as one (`--squash`), or with no time later than
//! `SOURCE_DATE_EPOCH` (`--rewrite-timestamp`).
//!
//! A layer is read as its archive and unpacked on top of what is below it, so that what it deletes stays deleted. The
//! snapshots it came from stay as they are, for the cache.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use image::layer::DiffOptions;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, statat};
use store::SnapshotId;
use sys::beneath::{get_xattr, is_whiteout, list_sorted, open_beneath_no_links, remove_tree};

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
        // From a copy of what is below, the layer's archive removes it itself.
        if !goal.is_whole() && !from.is_whole() {
            hide(&from.dir, &goal.dir)
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

/// Removes from `goal` what the layer in `upper` deletes or replaces by a directory of its own: the archive says so only
/// with regard to the layers below `goal`.
fn hide(upper: &Path, goal: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
    let (upper, goal) = (open(upper)?, open(goal)?);
    let mut waiting = vec![PathBuf::new()];
    while let Some(dir) = waiting.pop() {
        let from = open_beneath_no_links(upper.as_fd(), &dir, flags, Mode::empty())?;
        let into = match open_beneath_no_links(goal.as_fd(), &dir, flags, Mode::empty()) {
            Ok(into) => into,
            // What is not there, or is no directory, hides nothing below it.
            Err(_) => continue,
        };
        for name in list_sorted(from.as_fd())? {
            let stat = statat(&from, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let opaque = directory
                && get_xattr(from.as_fd(), &name, "trusted.overlay.opaque")?.is_some_and(|mark| mark == b"y");
            if is_whiteout(&stat) || opaque {
                match remove_tree(into.as_fd(), &name) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            } else if directory {
                waiting.push(dir.join(&name));
            }
        }
    }
    Ok(())
}
