//! Garbage collection: what nothing refers to goes.
//!
//! Kept are the roots that the caller names, every layer below a kept snapshot, every writable snapshot (its
//! owner answers for it; those nobody answers for went at open), and what leases hold. Deciding, deleting rows
//! and renaming away happen under the writer of the database and the leases' lock, so nothing can start to
//! refer to what goes; the deletion of files, which may take long, happens after both were let go. What goes is a
//! function of what is there and what is rooted, and of nothing else: see `plan`.

mod plan;

use std::collections::HashSet;
use std::convert::Infallible;

use rusqlite::Transaction;
use spec::{Digest, ErrorClass};

use crate::Store;
use crate::content::ContentError;
use crate::db::DbError;
use crate::failure::{Context, PathError};
use crate::lease::{Leases, Table};
use crate::snapshot::SnapshotId;
use crate::trash::Discarded;

use plan::Layer;

/// What is in use.
#[derive(Debug, Default)]
pub struct Roots {
    pub blobs: HashSet<Digest>,
    pub snapshots: HashSet<SnapshotId>,
}

/// What went.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Freed {
    pub blobs: Vec<Digest>,
    pub snapshots: Vec<SnapshotId>,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Adds what the blobs that stay need themselves. The flag says that all this is undone: nothing but `Roots` may be
/// changed then. It runs inside the transaction and under the leases' lock.
pub type Dependents = dyn Fn(&Transaction<'_>, &mut Roots, bool) -> rusqlite::Result<()> + Send + Sync;

/// Garbage collection failed; what was not removed yet is removed by the next one or the next start.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The blobs could not be listed.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The database refused.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl GcError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            GcError::Io(error) => error.class(),
            GcError::Content(error) => error.class(),
            GcError::Db(error) => error.class(),
        }
    }
}

impl From<rusqlite::Error> for GcError {
    fn from(error: rusqlite::Error) -> GcError {
        GcError::Db(error.into())
    }
}

/// How a rehearsal ends: never with a change.
enum Undone {
    Found(Freed),
    Failed(GcError),
}

impl From<DbError> for Undone {
    fn from(error: DbError) -> Undone {
        Undone::Failed(error.into())
    }
}

impl Store {
    /// Removes every blob and layer that is not in use. `roots` runs inside the transaction in which it is
    /// decided; it must not start a write of its own.
    pub fn gc(
        &self,
        roots: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Roots>,
    ) -> Result<Freed, GcError> {
        self.inner.db.make_room();
        let leases: &Leases = &self.inner.leases;
        let mut held = None;
        let mut freed = Freed::default();
        self.inner.db.write_durable::<_, GcError>(|tx| {
            let roots = roots(tx)?;
            freed = self.decide(tx, roots, held.insert(leases.lock()), false)?;
            for id in &freed.snapshots {
                tx.prepare_cached("DELETE FROM snapshot WHERE id = ?1")?
                    .execute([id])?;
            }
            Ok(())
        })?;
        let discarded = self.discard(&freed);
        drop(held);
        for discarded in discarded? {
            freed.bytes += self.inner.trash.delete(discarded)?.bytes;
        }
        Ok(freed)
    }

    /// What [`Store::gc`] would remove after `change`. The change is undone and nothing is removed.
    pub fn rehearse(
        &self,
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
        roots: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Roots>,
    ) -> Result<Freed, GcError> {
        let leases: &Leases = &self.inner.leases;
        let decide = |tx: &Transaction<'_>| -> Result<Freed, GcError> {
            change(tx)?;
            let roots = roots(tx)?;
            self.decide(tx, roots, &leases.lock(), true)
        };
        // A transaction that ends with an error leaves everything as it was.
        let undone = self
            .inner
            .db
            .write(|tx| Err::<Infallible, _>(decide(tx).map_or_else(Undone::Failed, Undone::Found)));
        let mut freed = match undone {
            Err(Undone::Found(freed)) => freed,
            Err(Undone::Failed(error)) => return Err(error),
            Ok(never) => match never {},
        };
        let blobs = freed
            .blobs
            .iter()
            .map(|digest| self.inner.content.disk_bytes(digest));
        freed.bytes = blobs.sum();
        freed.bytes += freed
            .snapshots
            .iter()
            .map(|id| self.inner.snapshots.disk_bytes(*id))
            .sum::<u64>();
        freed.bytes += self.inner.snapshots.freed_with(&freed.snapshots)?;
        Ok(freed)
    }

    /// Has `dependents` asked at every garbage collection. The first one stays.
    pub fn keep_dependents(&self, dependents: std::sync::Arc<Dependents>) {
        // A second one would be of another owner of the same store, which there is not.
        let _ = self.inner.dependents.set(dependents);
    }

    /// Takes the files of blobs that can be had again off the disk, except those that a lease holds; gives back the bytes.
    pub fn let_go(&self, digest: &Digest) -> Result<u64, PathError> {
        let leases = self.inner.leases.lock();
        if leases.held.values().any(|held| held.blobs.contains(digest)) {
            return Ok(0);
        }
        self.inner
            .content
            .let_go(digest)
            .at("remove", &self.inner.content.path(digest))
    }

    fn decide(
        &self,
        tx: &Transaction<'_>,
        mut roots: Roots,
        leases: &Table,
        rehearsed: bool,
    ) -> Result<Freed, GcError> {
        add_leases(&mut roots, leases);
        if let Some(dependents) = self.inner.dependents.get() {
            dependents(tx, &mut roots, rehearsed)?;
        }
        let layers = tx
            .prepare_cached("SELECT id, parent, committed FROM snapshot")?
            .query_map([], |row| {
                Ok(Layer {
                    id: row.get(0)?,
                    parent: row.get(1)?,
                    committed: row.get(2)?,
                })
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let blobs = self.inner.content.list()?.into_iter().map(|(digest, _)| digest);
        Ok(plan::plan(blobs, layers, &roots))
    }

    fn discard(&self, freed: &Freed) -> Result<Vec<Discarded>, PathError> {
        let mut discarded = Vec::new();
        for digest in &freed.blobs {
            discarded.extend(self.inner.content.discard(digest)?);
        }
        for id in &freed.snapshots {
            discarded.extend(self.inner.snapshots.discard(*id)?);
        }
        Ok(discarded)
    }
}

fn add_leases(roots: &mut Roots, table: &Table) {
    for held in table.held.values() {
        roots.blobs.extend(held.blobs.iter().cloned());
        roots.snapshots.extend(held.snapshots.iter().copied());
    }
}
