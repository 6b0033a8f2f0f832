//! The stack of directories that makes a snapshot's root filesystem.

use std::path::PathBuf;

use sys::mount::Overlay;

use super::{SnapshotError, SnapshotId, SnapshotInfo, Snapshots, table};

impl Snapshots {
    /// What to mount to see the snapshot: a writable one with its own upper over its parents, a layer read-only
    /// with everything below it.
    pub fn overlay(&self, id: SnapshotId) -> Result<Overlay, SnapshotError> {
        let stack = self.stack(id)?;
        let (writable, layers) = match stack.split_first() {
            Some((top, below)) if !top.committed => (true, below),
            _ => (false, stack.as_slice()),
        };
        let mut lower: Vec<PathBuf> = layers.iter().map(|layer| self.fs(layer.id)).collect();
        if lower.is_empty() {
            // overlayfs wants something below: an image from scratch has an empty directory there.
            lower.push(self.empty());
        }
        Ok(Overlay {
            lower,
            upper: writable.then(|| self.fs(id)),
            work: writable.then(|| self.work(id)),
            read_only: !writable,
        })
    }

    /// The directories of the layers below, top first: what a diff of this snapshot is taken against.
    pub fn lowers(&self, id: SnapshotId) -> Result<Vec<PathBuf>, SnapshotError> {
        let stack = self.stack(id)?;
        Ok(stack.iter().skip(1).map(|layer| self.fs(layer.id)).collect())
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
