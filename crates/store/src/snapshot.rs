//! Snapshots: the directories that make root filesystems, stacked by overlayfs or whole (see [`driver`]).
//!
//! Words: a snapshot is *writable* (an upper directory somebody works in) until it is *committed*, then it is a
//! layer and never changes. Every snapshot may have a committed parent. A layer whose content is known has a
//! *chain ID* (OCI image-spec, "Layer ChainID") by which it is found instead of being unpacked again, and a
//! *diff ID* (the digest of its own tar).
//!
//! ```text
//! create(parent, owner) ──> writable ──commit──> layer ──label_chains─> layer known by its chain ID
//!         │                    │                   │
//!         └───── remove <──────┴───────────────────┘   (refused while children exist)
//! ```
//!
//! The owner says who answers for a writable snapshot. Those of containers (`container:…`) and caches
//! (`cache:…`, `build:cache…`) outlive the daemon; all other writable ones die with it. One that is being filled has an
//! owner of its own until it is complete.
//!
//! The row is the truth: a directory is made before its row becomes visible and taken away after the row has
//! gone. [`recover`] brings both together again after a crash.

mod commit;
mod create;
mod doubt;
mod driver;
mod overlay;
mod probe;
mod recover;
mod remove;
mod settle;
mod table;
mod usage;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use rusqlite::OptionalExtension;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};
use spec::{Digest, ErrorClass};

use crate::db::{Db, DbError};
use crate::failure::PathError;
use crate::lease::Lease;
use crate::objects::Objects;
use crate::open::Options;
use crate::trash::Trash;

pub use commit::Label;
pub use doubt::Doubt;
pub use driver::StorageDriver;
pub use overlay::Part;
pub use recover::Stray;
pub use remove::RemoveError;
pub use usage::{RememberedSizes, Usage, measure};

/// The number of a snapshot; never used twice in one data root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SnapshotId(pub u64);

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SnapshotId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<SnapshotId, Self::Err> {
        text.parse().map(SnapshotId)
    }
}

impl ToSql for SnapshotId {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        i64::try_from(self.0)
            .map(ToSqlOutput::from)
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
    }
}

impl FromSql for SnapshotId {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<SnapshotId> {
        let number = i64::column_result(value)?;
        u64::try_from(number)
            .map(SnapshotId)
            .map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// An operation on a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No such snapshot.
    #[error("snapshot {0} not found")]
    NotFound(SnapshotId),
    /// Only layers can be parents.
    #[error("snapshot {0} is still being written, so nothing can be built on it")]
    NotCommitted(SnapshotId),
    /// A layer can not be committed again.
    #[error("snapshot {0} is a layer already")]
    AlreadyCommitted(SnapshotId),
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The database refused.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl SnapshotError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            SnapshotError::NotFound(_) => ErrorClass::NotFound,
            SnapshotError::NotCommitted(_) | SnapshotError::AlreadyCommitted(_) => ErrorClass::Conflict,
            SnapshotError::Io(error) => error.class(),
            SnapshotError::Db(error) => error.class(),
        }
    }
}

impl From<rusqlite::Error> for SnapshotError {
    fn from(error: rusqlite::Error) -> SnapshotError {
        SnapshotError::Db(error.into())
    }
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: SnapshotId,
    pub parent: Option<SnapshotId>,
    pub owner: String,
    pub committed: bool,
    pub chain: Option<Digest>,
    pub diff: Option<Digest>,
    /// Bytes on disk, once a layer was measured by [`Snapshots::usage`].
    pub size: Option<u64>,
    /// Of one that holds everything: when it was filled, in nanoseconds; 0 for one that began empty.
    pub(crate) filled: Option<i64>,
}

impl SnapshotInfo {
    /// Whether its directory holds everything that shows, not only what it changes.
    pub fn is_whole(&self) -> bool {
        self.filled.is_some()
    }
}

/// The snapshots of a store. Clones share them.
#[derive(Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    /// Makes new ones.
    driver: &'static dyn driver::Driver,
    objects: Objects,
    /// Files of new layers from this size on are shared.
    dedup: Option<u64>,
    db: Arc<Db>,
    trash: Trash,
    settler: settle::Settler,
    /// Names the boot of the machine.
    boot: String,
    doubt: OnceLock<Arc<Doubt>>,
}

impl Snapshots {
    pub(crate) fn open(
        dir: PathBuf,
        db: Arc<Db>,
        trash: Trash,
        objects: Objects,
        options: Options,
    ) -> Result<Snapshots, SnapshotError> {
        db.migrate("snapshot", table::STEPS)?;
        let driver = Snapshots::choose(&dir, options)?;
        let snapshots = Snapshots {
            inner: Arc::new(Inner {
                dir,
                driver,
                objects,
                dedup: options.dedup,
                db,
                trash,
                settler: settle::Settler::default(),
                boot: recover::boot_id(),
                doubt: OnceLock::new(),
            }),
        };
        snapshots.recover()?;
        Ok(snapshots)
    }

    /// What makes new snapshots, as the API tells it.
    pub fn driver(&self) -> &'static str {
        self.inner.driver.name()
    }

    /// Whether new snapshots hold everything: what is put on a layer wants that one complete.
    pub fn makes_whole(&self) -> bool {
        self.inner.driver.whole()
    }

    /// The snapshot's own directory: what it adds to its parents, or everything.
    pub fn fs(&self, id: SnapshotId) -> PathBuf {
        driver::fs_in(&self.home(id))
    }

    /// The overlay's work directory; only writable snapshots have one.
    fn work(&self, id: SnapshotId) -> PathBuf {
        driver::work_in(&self.home(id))
    }

    fn home(&self, id: SnapshotId) -> PathBuf {
        self.inner.dir.join(id.to_string())
    }

    /// What is known about one snapshot.
    pub fn get(&self, id: SnapshotId) -> Result<SnapshotInfo, SnapshotError> {
        let found = self.inner.db.read(|db| table::find(db, id).optional())?;
        found.ok_or(SnapshotError::NotFound(id))
    }

    /// The same of several, in their order.
    pub fn get_all(&self, ids: &[SnapshotId]) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let found: Vec<Option<SnapshotInfo>> = self.inner.db.read(|db| {
            let each = ids.iter().map(|id| table::find(db, *id).optional());
            each.collect()
        })?;
        let each = ids.iter().zip(found);
        each.map(|(id, info)| info.ok_or(SnapshotError::NotFound(*id)))
            .collect()
    }

    /// The layer with this chain ID.
    pub fn by_chain(&self, chain: &Digest) -> Option<SnapshotId> {
        let found = self.inner.db.read(|db| {
            db.prepare_cached("SELECT id FROM snapshot WHERE chain = ?1")?
                .query_row([chain.as_str()], |row| row.get(0))
                .optional()
        });
        answer(found)
    }

    /// The same, kept by `lease`.
    pub fn by_chain_kept(&self, chain: &Digest, lease: &Lease) -> Option<SnapshotId> {
        lease.keep_found(|keep| self.by_chain(chain).inspect(|id| keep(*id)))
    }

    /// The layers that have this diff ID and whose files are on stable storage, oldest first.
    pub fn by_diff(&self, diff: &Digest) -> Result<Vec<SnapshotId>, SnapshotError> {
        Ok(self.inner.db.read(|db| {
            db.prepare_cached(
                "SELECT id FROM snapshot WHERE diff = ?1 AND committed = 1 AND settled = 1 ORDER BY id",
            )?
            .query_map([diff.as_str()], |row| row.get(0))?
            .collect()
        })?)
    }

    /// The chain ID of a layer, when it is known.
    pub fn chain_of(&self, id: SnapshotId) -> Option<Digest> {
        self.get(id).ok()?.chain
    }

    /// The diff ID of a layer, when it is known.
    pub fn diff_of(&self, id: SnapshotId) -> Option<Digest> {
        self.get(id).ok()?.diff
    }

    /// The layer below.
    pub fn parent(&self, id: SnapshotId) -> Option<SnapshotId> {
        self.get(id).ok()?.parent
    }

    /// How many snapshots are built directly on this one.
    pub fn children(&self, id: SnapshotId) -> usize {
        let found = self.inner.db.read(|db| {
            db.prepare_cached("SELECT count(*) FROM snapshot WHERE parent = ?1")?
                .query_row([id], |row| row.get::<_, i64>(0))
                .map(Some)
        });
        answer(found)
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(0)
    }

    /// All snapshots, oldest first.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        Ok(self.inner.db.read(table::all)?)
    }
}

/// For questions whose answer can only be "there" or "not there": a database that fails is logged.
fn answer<T>(found: Result<Option<T>, DbError>) -> Option<T> {
    found.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot look a snapshot up");
        None
    })
}
