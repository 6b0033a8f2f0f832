//! Directories of `RUN --mount=type=cache`: they outlive steps and builds and reach no image.
//!
//! Each is a writable snapshot owned by `build:cache:<id>`, made at first use. *Shared* ones are used by any
//! number of steps at a time, *locked* ones by one after the other, *private* ones by one, while the others
//! get directories of their own.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use spec::Digest;
use store::rusqlite::OptionalExtension;
use store::{SnapshotId, SnapshotInfo, Store};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::rows;
use crate::error::BuildError;
use crate::instruction::Sharing;

/// How many private directories of one id may exist before a step waits.
const MAX_PRIVATE: usize = 64;

/// How the owners of these directories begin.
const OWNER: &str = "build:cache:";

/// Removes directories that a killed daemon had made and not noted yet: nobody would ever use or list them.
pub(crate) fn forget_unnoted(store: &Store) -> Result<(), BuildError> {
    let noted: HashSet<SnapshotId> = store.db().read(|db| {
        db.prepare("SELECT snapshot FROM build_mount")?
            .query_map([], |row| row.get(0))?
            .collect()
    })?;
    let all = store.snapshots().list()?.into_iter();
    let is_lost =
        |info: &SnapshotInfo| !info.committed && info.owner.starts_with(OWNER) && !noted.contains(&info.id);
    for lost in all.filter(is_lost) {
        if let Err(error) = store.snapshots().remove(lost.id) {
            tracing::warn!(snapshot = %lost.id, %error, "cannot remove the directory of a cache that nobody noted");
        }
    }
    Ok(())
}

enum Claim {
    Shared(#[allow(dead_code, reason = "held, not read")] OwnedRwLockReadGuard<()>),
    Alone(#[allow(dead_code, reason = "held, not read")] OwnedRwLockWriteGuard<()>),
}

/// A cache directory in use.
pub struct CacheMount {
    pub path: PathBuf,
    /// Whether the directory was made for this use.
    pub fresh: bool,
    _claim: Claim,
}

/// The cache directories in use by this process.
#[derive(Default)]
pub struct CacheMounts {
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
}

impl CacheMounts {
    /// Claims the directory of `id`. `description` is what lists show.
    pub async fn claim(
        &self,
        store: &Store,
        id: &str,
        sharing: Sharing,
        description: &str,
    ) -> Result<CacheMount, BuildError> {
        let name = |number: usize| {
            let text = if number == 0 {
                id.to_owned()
            } else {
                format!("{id}\0{number}")
            };
            Digest::sha256(text.as_bytes()).hex().to_owned()
        };
        let (key, claim) = match sharing {
            Sharing::Shared => (name(0), Claim::Shared(self.lock_of(&name(0)).read_owned().await)),
            Sharing::Locked => (name(0), Claim::Alone(self.lock_of(&name(0)).write_owned().await)),
            Sharing::Private => {
                let free = (0..MAX_PRIVATE).find_map(|number| {
                    let key = name(number);
                    let claim = self.lock_of(&key).try_write_owned().ok()?;
                    Some((key, Claim::Alone(claim)))
                });
                match free {
                    Some(found) => found,
                    None => (name(0), Claim::Alone(self.lock_of(&name(0)).write_owned().await)),
                }
            }
        };
        let (snapshot, fresh) = self.directory(store, &key, description)?;
        Ok(CacheMount {
            path: store.snapshots().fs(snapshot),
            fresh,
            _claim: claim,
        })
    }

    /// The ids of directories that steps use now.
    pub fn busy(&self) -> HashSet<String> {
        let locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks
            .iter()
            .filter(|(_, lock)| lock.try_write().is_err())
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn lock_of(&self, key: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(key.to_owned()).or_default().clone()
    }

    fn directory(
        &self,
        store: &Store,
        key: &str,
        description: &str,
    ) -> Result<(SnapshotId, bool), BuildError> {
        // Two shared users of a new directory must not both make it.
        let _making = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Option<SnapshotId> = store.db().read(|db| {
            db.query_row("SELECT snapshot FROM build_mount WHERE id = ?1", [key], |row| {
                row.get(0)
            })
            .optional()
        })?;
        let known = found.filter(|snapshot| store.snapshots().get(*snapshot).is_ok());
        let snapshot = match known {
            Some(snapshot) => snapshot,
            None => store.snapshots().create(None, &format!("{OWNER}{key}"))?,
        };
        store.db().write::<_, BuildError>(|tx| {
            tx.execute(
                "INSERT INTO build_mount (id, snapshot, description, made, used, uses) \
                 VALUES (?1, ?2, ?3, ?4, ?4, 1) ON CONFLICT (id) DO UPDATE SET \
                 snapshot = excluded.snapshot, used = excluded.used, uses = uses + 1",
                (key, snapshot, description, rows::now()),
            )?;
            Ok(())
        })?;
        Ok((snapshot, known.is_none()))
    }
}
