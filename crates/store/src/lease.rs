//! Leases: what an operation under way needs and nothing refers to yet.
//!
//! They live in memory, because an operation dies with its process and so does its claim; what it left on disk
//! is removed by garbage collection or the next start.
//!
//! Lock order: the database's writer first, then the leases. Garbage collection holds both while it decides
//! and renames away, so whoever holds a digest first and looks for it second never sees it vanish; nor does whoever looks
//! under the leases' lock and holds what was found before it is let go ([`Lease::keep_found`]).

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spec::Digest;

use crate::snapshot::SnapshotId;

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) snapshots: HashSet<SnapshotId>,
}

#[derive(Default)]
pub(crate) struct Table {
    next: u64,
    pub(crate) held: HashMap<u64, Held>,
}

#[derive(Default)]
pub(crate) struct Leases {
    table: Mutex<Table>,
}

impl Leases {
    pub(crate) fn lease(leases: &Arc<Leases>) -> Lease {
        let mut table = leases.lock();
        table.next += 1;
        let id = table.next;
        table.held.insert(id, Held::default());
        Lease {
            leases: Arc::clone(leases),
            id,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what it holds from garbage collection until it is dropped.
#[must_use = "a lease that is dropped holds nothing"]
pub struct Lease {
    leases: Arc<Leases>,
    id: u64,
}

impl Lease {
    /// Keeps a blob, whether it exists yet or not.
    pub fn hold_blob(&self, digest: &Digest) {
        if let Some(held) = self.leases.lock().held.get_mut(&self.id) {
            held.blobs.insert(digest.clone());
        }
    }

    /// Keeps a snapshot and its parents.
    pub fn hold_snapshot(&self, id: SnapshotId) {
        self.hold_snapshots(&[id]);
    }

    /// The same of several.
    pub fn hold_snapshots(&self, ids: &[SnapshotId]) {
        if let Some(held) = self.leases.lock().held.get_mut(&self.id) {
            held.snapshots.extend(ids);
        }
    }

    /// Runs `look`, which hands on the snapshots that it finds and that are to be kept. Nothing goes before they are, so one
    /// look is enough. It may read the database; a write, or this lease itself, would wait for ever.
    pub fn keep_found<T>(&self, look: impl FnOnce(&mut dyn FnMut(SnapshotId)) -> T) -> T {
        let mut table = self.leases.lock();
        let mut found = Vec::new();
        let done = look(&mut |id| found.push(id));
        if let Some(held) = table.held.get_mut(&self.id) {
            held.snapshots.extend(found);
        }
        done
    }

    /// A name for the lease that is unique in this process, for use in a snapshot's owner.
    pub fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.lock().held.remove(&self.id);
    }
}
