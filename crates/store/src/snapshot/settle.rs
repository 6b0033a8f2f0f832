//! Layers reach stable storage in the background.
//!
//! A layer is thousands of small files; syncing each, or the filesystem after each layer, would make a pull as
//! slow as the disk. Instead a layer is recorded with the boot it was written in, one syncfs(2) a little later
//! covers all layers of the last seconds, and then they are recorded as settled. A layer that was not settled
//! when the machine went down is not trusted afterwards (see `recover`); its blobs are durable, so unpacking it
//! again costs time, not data.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::doubt::LOST;
use super::{Inner, SnapshotError, SnapshotId, Snapshots};
use crate::failure::{Context, PathError};

/// Long enough that a pull of many layers is synced once or twice, short enough that little is redone.
const DELAY: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Settler {
    running: AtomicBool,
}

impl Snapshots {
    /// Brings every layer committed so far to stable storage; returns how many there were.
    pub fn settle(&self) -> Result<usize, SnapshotError> {
        let fresh: Vec<SnapshotId> = self.inner.db.read(|db| {
            db.prepare_cached("SELECT id FROM snapshot WHERE committed = 1 AND settled = 0 AND boot <> ?1")?
                .query_map([LOST], |row| row.get(0))?
                .collect()
        })?;
        if fresh.is_empty() {
            return Ok(0);
        }
        self.sync()?;
        self.inner.db.write::<_, SnapshotError>(|tx| {
            for id in &fresh {
                tx.prepare_cached("UPDATE snapshot SET settled = 1 WHERE id = ?1")?
                    .execute([id])?;
            }
            Ok(())
        })?;
        Ok(fresh.len())
    }

    /// Brings all files of snapshots to stable storage.
    pub(super) fn sync(&self) -> Result<(), PathError> {
        let dir = File::open(&self.inner.dir).at("open", &self.inner.dir)?;
        rustix::fs::syncfs(&dir).at("sync", &self.inner.dir)
    }

    /// Settles a little later, on a thread that lives only as long as there is something to settle.
    pub(super) fn settle_soon(&self) {
        if self.inner.settler.running.swap(true, Ordering::AcqRel) {
            return;
        }
        let weak = Arc::downgrade(&self.inner);
        let started = std::thread::Builder::new()
            .name("store-settle".into())
            .spawn(move || run(&weak));
        if let Err(error) = started {
            self.inner.settler.running.store(false, Ordering::Release);
            tracing::warn!(%error, "layers are not synced in the background");
        }
    }
}

/// Ends with the store, or when nothing was left to do.
fn run(weak: &Weak<Inner>) {
    loop {
        std::thread::sleep(DELAY);
        let Some(inner) = weak.upgrade() else { return };
        let snapshots = Snapshots { inner };
        match snapshots.settle() {
            Ok(0) => {}
            Ok(_) => continue,
            Err(error) => tracing::warn!(%error, "cannot sync new layers"),
        }
        snapshots.inner.settler.running.store(false, Ordering::Release);
        return;
    }
}
