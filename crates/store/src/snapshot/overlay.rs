//! The stack of directories that makes a snapshot's root filesystem, and a snapshot as what it changes.

use std::path::PathBuf;

use rustix::fs::Stat;
use sys::mount::{self, Overlay};

use super::driver::nanoseconds;
use super::{SnapshotError, SnapshotId, SnapshotInfo, Snapshots, table};
use crate::objects::are_held_in;

/// A snapshot on disk, to be read as what it changes in those below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub dir: PathBuf,
    /// The directories of those below, top first, by overlayfs' rules.
    pub below: Vec<PathBuf>,
    filled: Option<i64>,
    layer: bool,
}

impl Part {
    /// One that holds what it changes, with overlayfs' marks.
    pub fn of_changes(dir: PathBuf, below: Vec<PathBuf>) -> Part {
        Part {
            dir,
            below,
            filled: None,
            layer: false,
        }
    }

    /// Whether the directory holds everything that shows, so that what it changes is what differs from those below.
    pub fn is_whole(&self) -> bool {
        self.filled.is_some()
    }

    /// Whether it is a layer, whose files may have their content elsewhere ([`SharedFiles`](crate::SharedFiles)).
    pub fn is_layer(&self) -> bool {
        self.layer
    }

    /// Whether something in a whole one may have been changed after it was filled from those below. The kernel sets this
    /// time alone, so what says no is as it was; yes says nothing.
    pub fn changed_after(&self, stat: &Stat) -> bool {
        self.filled
            .is_none_or(|filled| nanoseconds(stat.st_ctime, stat.st_ctime_nsec as _) >= filled)
    }
}

impl Snapshots {
    /// What to mount to see the snapshot: a writable one to be written to, a layer read-only, with everything below it.
    pub fn overlay(&self, id: SnapshotId) -> Result<Overlay, SnapshotError> {
        let stack = self.stack(id)?;
        let Some((top, below)) = stack.split_first() else {
            return Err(SnapshotError::NotFound(id));
        };
        let mut lower = self.showing(below);
        if lower.is_empty() && !top.committed {
            // overlayfs wants something below: an image from scratch has an empty directory there.
            lower.push(self.empty());
        }
        let mut overlay = super::driver::of(top.is_whole()).mount(&self.home(id), lower, !top.committed);
        overlay.objects = self.objects_of(&overlay.lower);
        Ok(overlay)
    }

    /// Where the content of the layers with these directories is, if any of them shares files.
    fn objects_of(&self, lower: &[PathBuf]) -> Option<mount::Objects> {
        let shares = |fs: &PathBuf| fs.parent().is_some_and(are_held_in);
        let first = lower.iter().position(shares)?;
        Some(mount::Objects {
            dir: self.inner.objects.files(),
            layers: lower.len() - first,
        })
    }

    /// The snapshot as what it changes.
    pub fn part(&self, id: SnapshotId) -> Result<Part, SnapshotError> {
        let stack = self.stack(id)?;
        let (top, below) = stack.split_first().ok_or(SnapshotError::NotFound(id))?;
        Ok(Part {
            dir: self.fs(id),
            below: self.showing(below),
            filled: top.filled,
            layer: top.committed,
        })
    }

    /// The directories that show what the layer `top` and those below it hold, top first; none for none.
    pub fn directories(&self, top: Option<SnapshotId>) -> Result<Vec<PathBuf>, SnapshotError> {
        match top {
            Some(top) => Ok(self.showing(&self.stack(top)?)),
            None => Ok(Vec::new()),
        }
    }

    /// The directories of the stack, down to the first one that holds everything.
    fn showing(&self, stack: &[SnapshotInfo]) -> Vec<PathBuf> {
        let deepest = stack.iter().position(SnapshotInfo::is_whole);
        let count = deepest.map_or(stack.len(), |deepest| deepest + 1);
        stack.iter().take(count).map(|layer| self.fs(layer.id)).collect()
    }

    /// The snapshot and its parents, top first.
    pub fn stack(&self, id: SnapshotId) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let stack = self.inner.db.read(|db| {
            let mut stack = Vec::new();
            let mut next = Some(id);
            while let Some(id) = next {
                match table::find(db, id) {
                    Ok(info) => {
                        next = info.parent;
                        stack.push(info);
                    }
                    Err(rusqlite::Error::QueryReturnedNoRows) => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(stack)
        })?;
        if stack.is_empty() {
            return Err(SnapshotError::NotFound(id));
        }
        Ok(stack)
    }

    /// The empty lower directory.
    pub(super) fn empty(&self) -> PathBuf {
        self.inner.dir.join("empty")
    }
}
