//! The trash: removed volumes that can be had back for a while.
//!
//! ```text
//! ROOT/volumes/<name>/…  ──discard──>  ROOT/volumes/.trash/<id>/…  ──purge──>  ROOT/volumes/.removed-…
//!                        <──restore──
//! ```
//!
//! A move is a rename, noted before it is made like every other renaming of a volume (see `rename`): a crash leaves the
//! volume in one of the two places, whole. The name is free at once. What is purged is put out of sight before its row
//! goes, so a directory in the trash without a row is data that nobody has asked to delete, and is kept.
//!
//! How long "a while" is, and that a full disk shortens it, is the engine's to see to.

use std::collections::HashSet;
use std::fs;

use jiff::Timestamp;
use spec::Id;

use crate::{ANONYMOUS_LABEL, LOCAL, Volume, VolumeError, Volumes, name, recover::Stray, seconds, table};

pub(crate) const DIRECTORY: &str = ".trash";
/// Digits of an id: enough for people to tell a few hundred apart.
const DIGITS: usize = 12;

/// A removed volume that can be had back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trashed {
    /// Names of removed volumes are not unique.
    pub id: String,
    /// As it was, but for where its content is.
    pub volume: Volume,
    /// To the second.
    pub since: Timestamp,
}

/// The directory of something in the trash, as a volume's is named.
pub(crate) fn place(id: &str) -> String {
    format!("{DIRECTORY}/{id}")
}

impl Volumes {
    /// Moves a volume to the trash. One without any content, now and in snapshots, is not worth it, nor is one whose content is elsewhere:
    /// it is removed, and the answer is `None`. That nobody uses it is the engine's to see to.
    pub fn discard(&self, name: &str) -> Result<Option<Trashed>, VolumeError> {
        let mut state = self.lock();
        let found = self.who_has(&mut state, name)?;
        let volume = found.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        let is_elsewhere = volume.driver != LOCAL || volume.options.contains_key("device");
        let is_empty = || fs::read_dir(&volume.mountpoint).is_ok_and(|mut entries| entries.next().is_none());
        if is_elsewhere || (is_empty() && self.snapshots(name)?.is_empty()) {
            drop(state);
            self.remove(name, false)?;
            return Ok(None);
        }
        let id: String = Id::random().as_str().chars().take(DIGITS).collect();
        let place = place(&id);
        let trashed = Trashed {
            volume: Volume {
                mountpoint: self.path(&place),
                ..volume
            },
            id,
            since: seconds(Timestamp::now()),
        };
        self.inner.store.db().make_room();
        self.inner.store.db().write_durable(|tx| {
            table::forget(tx, name)?;
            table::discard(tx, &trashed)?;
            table::intend(tx, name, &place)?;
            Ok::<_, VolumeError>(())
        })?;
        state.holders.remove(name);
        self.finish_rename(name, &place)?;
        Ok(Some(trashed))
    }

    /// What can be had back, the oldest first.
    pub fn trash(&self) -> Result<Vec<Trashed>, VolumeError> {
        let dir = &self.inner.dir;
        Ok(self.inner.store.db().read(|db| table::trash(db, dir))?)
    }

    /// The one that has this id, or that alone had this name.
    pub fn find_trashed(&self, which: &str) -> Result<Trashed, VolumeError> {
        let trash = self.trash()?;
        if let Some(found) = trash.iter().find(|trashed| trashed.id == which) {
            return Ok(found.clone());
        }
        let mut called = trash.into_iter().filter(|trashed| trashed.volume.name == which);
        let found = called.next();
        let found = found.ok_or_else(|| VolumeError::NotInTrash(which.to_owned()))?;
        let others: Vec<String> = called.map(|trashed| trashed.id).collect();
        if others.is_empty() {
            return Ok(found);
        }
        Err(VolumeError::AmbiguousTrash {
            name: which.to_owned(),
            ids: std::iter::once(found.id).chain(others).collect(),
        })
    }

    /// Makes a volume of what is in the trash, under its old name or another. Nothing that is there is touched.
    pub fn restore(&self, which: &str, new: Option<&str>) -> Result<Volume, VolumeError> {
        let mut state = self.lock();
        let Trashed { id, mut volume, .. } = self.find_trashed(which)?;
        if let Some(new) = new {
            new.clone_into(&mut volume.name);
        }
        name::check(&volume.name)?;
        self.make_name_free(&mut state, &volume.name)?;
        volume.mountpoint = self.path(&volume.name);
        // Somebody wants it now.
        volume.anonymous = false;
        volume.labels.remove(ANONYMOUS_LABEL);
        let place = place(&id);
        self.inner.store.db().write_durable(|tx| {
            table::undiscard(tx, &id)?;
            table::insert(tx, &volume, false)?;
            table::intend(tx, &place, &volume.name)?;
            Ok::<_, VolumeError>(())
        })?;
        self.finish_rename(&place, &volume.name)?;
        Ok(volume)
    }

    /// Deletes something in the trash for good.
    pub fn purge(&self, id: &str) -> Result<(), VolumeError> {
        let mut state = self.lock();
        if !self.trash()?.iter().any(|trashed| trashed.id == id) {
            return Err(VolumeError::NotInTrash(id.to_owned()));
        }
        self.inner.store.db().make_room();
        // One that was never moved here is still where it was.
        let place = place(id);
        for (old, new) in self.inner.store.db().read(table::intentions)? {
            if new == place {
                self.finish_rename(&old, &new)?;
            }
        }
        let aside = self.hide(&mut state, &place)?;
        self.forget_trash(id)?;
        drop(state);
        aside.map_or(Ok(()), |aside| self.delete_aside(&aside))
    }

    pub(crate) fn forget_trash(&self, id: &str) -> Result<(), VolumeError> {
        self.inner.store.db().write_durable(|tx| {
            table::undiscard(tx, id)?;
            Ok::<_, VolumeError>(())
        })
    }

    /// Rows without a directory, and directories without a row; what is being moved counts as there.
    pub(crate) fn strays_in_trash(
        &self,
        from: &HashSet<&str>,
        to: &HashSet<&str>,
    ) -> Result<Vec<Stray>, VolumeError> {
        let dir = self.inner.dir.join(DIRECTORY);
        let failed = |cause| VolumeError::at("read", &dir, cause);
        let known: HashSet<String> = self.trash()?.into_iter().map(|trashed| trashed.id).collect();
        let mut strays = Vec::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let id = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if !known.contains(&id)
                && !from.contains(place(&id).as_str())
                && self.path(&place(&id)).is_dir()
                && name::check(&id).is_ok()
            {
                strays.push(Stray::UnrecordedTrash(id));
            }
        }
        let lost = known
            .into_iter()
            .filter(|id| !to.contains(place(id).as_str()) && !self.home(&place(id)).is_dir());
        strays.extend(lost.map(Stray::LostTrash));
        strays.sort();
        Ok(strays)
    }

    /// The database is older than the directory: its time begins now.
    pub(crate) fn adopt_trash(&self, id: &str) -> Result<(), VolumeError> {
        tracing::warn!(id, "a removed volume without a record is kept in the trash");
        let now = Timestamp::now();
        let trashed = Trashed {
            id: id.to_owned(),
            volume: Volume::bare(id, self.path(&place(id)), now),
            since: seconds(now),
        };
        self.inner.store.db().write_durable(|tx| {
            table::discard(tx, &trashed)?;
            Ok::<_, VolumeError>(())
        })
    }
}
