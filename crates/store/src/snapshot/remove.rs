//! Removing snapshots: the row first, then the directory out of sight, then its content.

use rusqlite::{OptionalExtension, Transaction};
use spec::ErrorClass;
use sys::beneath::Removed;

use super::{SnapshotError, SnapshotId, Snapshots, table};
use crate::db::DbError;
use crate::failure::PathError;
use crate::trash::Discarded;

/// A snapshot could not be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Others are built on it.
    #[error("snapshot {id} cannot be removed: {children} others are built on it")]
    HasChildren { id: SnapshotId, children: usize },
    /// Any other failure.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl RemoveError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            RemoveError::HasChildren { .. } => ErrorClass::Conflict,
            RemoveError::Snapshot(error) => error.class(),
        }
    }
}

impl From<DbError> for RemoveError {
    fn from(error: DbError) -> RemoveError {
        RemoveError::Snapshot(error.into())
    }
}

impl From<PathError> for RemoveError {
    fn from(error: PathError) -> RemoveError {
        RemoveError::Snapshot(error.into())
    }
}

impl From<rusqlite::Error> for RemoveError {
    fn from(error: rusqlite::Error) -> RemoveError {
        RemoveError::Snapshot(error.into())
    }
}

impl Snapshots {
    /// Removes a snapshot that nothing is built on, and gives its space back.
    pub fn remove(&self, id: SnapshotId) -> Result<Removed, RemoveError> {
        self.inner.db.make_room();
        self.inner.db.write(|tx| {
            table::find(tx, id)
                .optional()?
                .ok_or(SnapshotError::NotFound(id))?;
            let children = count_children(tx, id)?;
            if children != 0 {
                return Err(RemoveError::HasChildren { id, children });
            }
            tx.prepare_cached("DELETE FROM snapshot WHERE id = ?1")?
                .execute([id])?;
            Ok(())
        })?;
        Ok(self.inner.trash.dispose(&self.home(id))?)
    }

    /// Takes the directory of a snapshot out of sight whose row has gone.
    pub(crate) fn discard(&self, id: SnapshotId) -> Result<Option<Discarded>, PathError> {
        self.inner.trash.discard(&self.home(id))
    }
}

fn count_children(tx: &Transaction<'_>, id: SnapshotId) -> rusqlite::Result<usize> {
    tx.prepare_cached("SELECT count(*) FROM snapshot WHERE parent = ?1")?
        .query_row([id], |row| row.get::<_, i64>(0))
        .map(|count| usize::try_from(count).unwrap_or(usize::MAX))
}
