//! The build cache: results of steps by key, in the store's database.
//!
//! ```text
//!   build_key     key ──> record        several keys may lead to one record
//!   build_record  identity, snapshot, what made it, when, how often it was used
//!   build_mount   cache mounts: id ──> a writable snapshot whose directory is mounted
//! ```
//!
//! A record's snapshot is a root for garbage collection, so a record never points to a snapshot that is gone;
//! one that does all the same (a power cut) is dropped when it is met. Reading is one lookup by key; that a
//! record was used is noted in one transaction at the end of a build.

mod content;
mod mounts;
mod policy;
mod prune;
mod rows;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use image::Images;

use spec::Digest;
use store::rusqlite::{self, Transaction};
use store::{Lease, SnapshotError, SnapshotId, Store};

use crate::error::BuildError;
use crate::exchange::Imported;
use crate::solve::{Brought, Cache, Found, Made, Solved};
use crate::step::{StepOperation, Tree};

pub use content::{FileContent, FileDigests};
pub(crate) use mounts::forget_unnoted;
pub use mounts::{CacheMount, CacheMounts};
pub use policy::CachePolicy;
pub use prune::{CacheEntry, PruneOptions, Pruned};
pub(crate) use prune::{disk_usage, free, prune};
pub(crate) use rows::{STEPS, now};

/// The snapshots that the cache keeps, for garbage collection.
pub fn cache_roots(tx: &Transaction<'_>) -> rusqlite::Result<HashSet<SnapshotId>> {
    rows::roots(tx)
}

/// Drops records of snapshots whose files may not have reached the disk before the machine went down.
pub(crate) fn forget_torn(store: &Store) -> Result<(), BuildError> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let dropped = store
        .db()
        .write(|tx| rows::forget_torn(tx, boot.trim()).map_err(BuildError::from))?;
    if dropped > 0 {
        tracing::warn!(
            records = dropped,
            "the end of the build cache was lost with the machine's last boot"
        );
    }
    Ok(())
}

/// Drops records of layers that are not what they were: the next build does these steps again.
pub(crate) fn forget_doubted(tx: &Transaction<'_>, layers: &[SnapshotId]) -> rusqlite::Result<()> {
    rows::forget_on(tx, layers)
}

/// For each input the content of which the result is known to be made, where it is.
pub type Parts = Vec<Option<Digest>>;

/// The cache as one build sees it. What it finds or keeps stays until the build is over, whatever is pruned
/// meanwhile.
pub struct BuildCache {
    store: Store,
    images: Images,
    lease: Arc<Lease>,
    used: Mutex<Vec<i64>>,
    /// What others exported, in the order in which it is looked into.
    imported: Vec<Arc<Imported>>,
    /// Why results of others could not be used.
    complaints: Mutex<Vec<String>>,
}

impl BuildCache {
    pub fn new(store: &Store, images: &Images, imported: Vec<Arc<Imported>>) -> BuildCache {
        BuildCache {
            store: store.clone(),
            images: images.clone(),
            lease: Arc::new(store.lease()),
            used: Mutex::default(),
            imported,
            complaints: Mutex::default(),
        }
    }

    /// Why results of others could not be used, each once.
    pub fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut *self.complaints.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// By which content of its inputs the result with this key is known, where it is.
    pub fn parts(&self, key: &Digest) -> Result<Option<Parts>, BuildError> {
        if let Some(parts) = self.store.db().read(|db| rows::parts(db, key))? {
            return Ok(rows::read_parts(&parts));
        }
        let imported = self.imported.iter().find_map(|imported| imported.parts(key));
        Ok(imported.filter(|parts| parts.iter().any(Option::is_some)))
    }

    /// The result with this key that is here.
    fn here(&self, key: &Digest) -> Result<Option<Solved<Tree>>, BuildError> {
        let found = self.lease.keep_found(|keep| {
            let found = self.store.db().read(|db| rows::find(db, key))?;
            found.iter().filter_map(|row| row.tree.snapshot).for_each(keep);
            Ok::<_, BuildError>(found)
        });
        let Some(row) = found? else {
            return Ok(None);
        };
        if !row.there {
            self.store
                .db()
                .write(|tx| rows::remove(tx, row.record).map_err(BuildError::from))?;
            return Ok(None);
        }
        self.note(&[row.record]);
        Ok(Some(row.solved()))
    }

    /// These records were used.
    fn note(&self, records: &[i64]) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.extend(records);
    }

    /// The results that are here with the keys that `next` gives, from one state of the database; and whether all of them are
    /// still here now that they are held.
    fn here_in_turn(
        &self,
        next: &mut dyn FnMut(Option<Found<Tree>>) -> Option<Digest>,
    ) -> Result<bool, BuildError> {
        let (mut records, mut snapshots) = (Vec::new(), Vec::new());
        // Not under the leases' lock, which what is asked next may need.
        self.store.db().read(|db| {
            let mut answer = None;
            while let Some(key) = next(answer.take()) {
                let Some(row) = rows::find(db, &key)?.filter(|row| row.there) else {
                    continue;
                };
                records.push(row.record);
                snapshots.extend(row.tree.snapshot);
                answer = Some(Found::Here(row.solved()));
            }
            Ok(())
        })?;
        self.lease.hold_snapshots(&snapshots);
        // Before, they could still have gone.
        let all_there = match self.store.snapshots().get_all(&snapshots) {
            Ok(found) => found.iter().all(|info| info.committed),
            Err(SnapshotError::NotFound(_)) => false,
            Err(error) => return Err(error.into()),
        };
        if all_there {
            self.note(&records);
        }
        Ok(all_there)
    }

    /// What holds snapshots until the build is over.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Keeps a snapshot until the build is over.
    pub fn hold(&self, snapshot: SnapshotId) {
        self.lease.hold_snapshot(snapshot);
    }

    /// Notes which records were used, and what else there is to note at the end of a build.
    pub fn note_used(
        &self,
        more: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<(), BuildError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        self.store.db().write(|tx| {
            rows::note_used(tx, &used)
                .and_then(|()| more(tx))
                .map_err(BuildError::from)
        })
    }
}

impl Cache<StepOperation> for BuildCache {
    fn find(&self, key: &Digest) -> Result<Option<Found<Tree>>, BuildError> {
        if let Some(solved) = self.here(key)? {
            return Ok(Some(Found::Here(solved)));
        }
        let elsewhere: Vec<Digest> = self
            .imported
            .iter()
            .filter_map(|known| known.identity(key))
            .collect();
        // What was made here in another way and is known to be the same need not be brought.
        for identity in &elsewhere {
            if let Some(solved) = self.here(identity)? {
                self.also(key, &solved)?;
                return Ok(Some(Found::Here(solved)));
            }
        }
        Ok(elsewhere.into_iter().next().map(Found::There))
    }

    fn find_in_turn(
        &self,
        next: &mut dyn FnMut(Option<Found<Tree>>) -> Option<Digest>,
    ) -> Result<bool, BuildError> {
        if self.imported.is_empty() {
            return self.here_in_turn(next);
        }
        // What others know is found under several keys, and what is found may have to be noted.
        let mut answer = None;
        while let Some(key) = next(answer.take()) {
            answer = self.find(&key)?;
        }
        Ok(true)
    }

    fn bring<'a>(&'a self, key: &'a Digest) -> BoxFuture<'a, Result<Option<Brought<Tree>>, BuildError>> {
        Box::pin(async move {
            for imported in &self.imported {
                match imported.bring(&self.images, &self.lease, key).await {
                    Ok(Some(tree)) => return Ok(Some((tree, imported.parts(key)))),
                    Ok(None) => {}
                    // The step is made again, as if nobody had known it.
                    Err(error) => {
                        tracing::warn!(%error, "a result of an imported cache cannot be used");
                        let text = format!("a result of the cache {imported} cannot be used: {error}");
                        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
                        if !complaints.contains(&text) {
                            complaints.push(text);
                        }
                    }
                }
            }
            Ok(None)
        })
    }

    fn also(&self, key: &Digest, solved: &Solved<Tree>) -> Result<(), BuildError> {
        self.store
            .db()
            .write(|tx| rows::also(tx, key, &solved.identity).map_err(BuildError::from))
    }

    fn keep(&self, made: Made<'_, StepOperation>) -> Result<(), BuildError> {
        let Some((kind, description)) = made.operation.description() else {
            return Ok(());
        };
        let record = rows::NewRecord {
            keys: made.keys,
            identity: &made.solved.identity,
            inputs: made.inputs,
            parts: made.parts,
            tree: &made.solved.value,
            kind,
            description: &description,
        };
        self.store
            .db()
            .write(|tx| rows::keep(tx, &record).map_err(BuildError::from))
    }
}
