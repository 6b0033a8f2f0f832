//! What the engine keeps on disk: content-addressed blobs, snapshots (directories that overlayfs stacks into
//! root filesystems), the metadata database, and the rules by which unused things go.
//!
//! ```text
//! ROOT/lock                       flock of the one daemon that owns ROOT; holds its pid
//! ROOT/meta.db                    SQLite in WAL mode; every room owns its own tables
//! ROOT/content/blobs/<alg>/<hex>  complete, verified, never changed
//! ROOT/content/ingest/<key hash>  a download under way; resumable by its key
//! ROOT/objects/                   content that layers share, see `objects`
//! ROOT/snapshots/<n>/{fs,work}    one layer, or one writable layer; how it lies there is its driver's
//! ROOT/snapshots/empty            the lower directory of a writable layer that has no parent
//! ROOT/trash/                     renamed away, being deleted
//! ```
//!
//! Invariants, which hold at every instruction at which the process may be killed:
//! - a blob that is visible is complete, has its digest, and is on stable storage;
//! - a row that is visible has its directory; a directory or file without a row is a leftover, removed by the
//!   next [`Store::open`];
//! - snapshot numbers are never used twice, so a late deletion can not hit a newer snapshot.
//!
//! A power cut can also lose file contents that were not yet written back. Layers are not synced one by one
//! (that would make a pull as slow as the disk): see [`snapshot::Snapshots::settle`].

pub mod content;
mod copy;
pub mod db;
mod failure;
mod gc;
mod lease;
mod lock;
mod objects;
mod open;
mod reserve;
mod room;
pub mod snapshot;
mod stop;
mod trash;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use rusqlite;

pub use content::{Away, Bring, Content, ContentError, Ingest, IngestError, NotBrought, Sealed};
pub use copy::copy_tree;
pub use db::{Db, DbError};
pub use failure::PathError;
pub use gc::{Dependents, Freed, GcError, Roots};
pub use lease::Lease;
pub use objects::{HeldObject, SharedFiles};
pub use open::{DEDUP_FROM, OpenError, Options};
pub use room::{Gate, MinFree, NoRoom, Room};
pub use snapshot::{
    Doubt, Label, Part, RememberedSizes, RemoveError, SnapshotError, SnapshotId, SnapshotInfo, Snapshots,
    StorageDriver, Stray, Usage, measure,
};
pub use stop::{Stop, Stoppable};

/// The store of one data root. Clones share it; the root is let go with the last one.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    db: Arc<Db>,
    content: Content,
    snapshots: Snapshots,
    leases: Arc<lease::Leases>,
    trash: trash::Trash,
    room: Room,
    dependents: std::sync::OnceLock<std::sync::Arc<Dependents>>,
    /// Last, so that the root is let go after everything else is closed.
    _lock: lock::RootLock,
}

impl Store {
    /// The data root.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The metadata database.
    pub fn db(&self) -> &Db {
        &self.inner.db
    }

    /// The blobs.
    pub fn content(&self) -> &Content {
        &self.inner.content
    }

    /// The layers and writable layers.
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// How much of the disk is left to others.
    pub fn room(&self) -> &Room {
        &self.inner.room
    }

    /// Deletes what earlier processes have left in the trash, in the background. To be called when nobody of their time
    /// uses any of it: a root filesystem that is mounted cannot be deleted.
    pub fn empty_trash(&self) -> Result<(), PathError> {
        self.inner.trash.empty_in_background()
    }

    /// A new lease: what it holds is kept by garbage collection until it is dropped.
    ///
    /// Hold first, look second: what exists after it was held stays.
    pub fn lease(&self) -> Lease {
        lease::Leases::lease(&self.inner.leases)
    }
}
