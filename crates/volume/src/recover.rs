//! After a crash: rows and directories are brought together again, never at the cost of data.

use std::collections::HashSet;
use std::fs;

use jiff::Timestamp;

use crate::remove::REMOVED;
use crate::{LOCAL, Volume, VolumeError, Volumes, name, table};

/// A row and a directory that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stray {
    /// A row without a directory: the data is gone.
    Lost(String),
    /// A directory without a row.
    Unrecorded(String),
    /// The directory that a removal left.
    Removed(String),
    /// A volume whose removal was begun.
    Removing(String),
    /// A directory that is to get another name.
    Moving { old: String, new: String },
    /// Something in the trash whose directory is gone.
    LostTrash(String),
    /// A directory in the trash that is not recorded.
    UnrecordedTrash(String),
}

impl Volumes {
    pub(crate) fn recover(&self) -> Result<(), VolumeError> {
        let hasty = self.hasty();
        for name in self.inner.store.db().read(table::pending)? {
            tracing::info!(
                volume = name,
                "what the volume was made for was never finished: it goes"
            );
            // A plugin may be away; ours go.
            let is_ours = self.get(&name)?.driver == LOCAL;
            match hasty.remove(&name, false) {
                Err(error) if is_ours => return Err(error),
                Err(error) => tracing::warn!(volume = name, %error, "the volume stays"),
                Ok(()) => {}
            }
        }
        for (old, new) in self.inner.store.db().read(table::intentions)? {
            // Both directories stay, and one volume's trouble is not the others'.
            if let Err(error) = self.finish_rename(&old, &new) {
                tracing::error!(old, new, %error, "a volume has not got its new name");
            }
        }
        let mut strays = self.strays()?;
        strays.retain(|stray| !matches!(stray, Stray::Moving { .. }));
        strays.iter().try_for_each(|stray| self.repair(stray))
    }

    /// What is wrong now. Volumes that are made or removed at this moment are among it: what counts is what is still
    /// so when asked again.
    pub fn strays(&self) -> Result<Vec<Stray>, VolumeError> {
        let dir = &self.inner.dir;
        let failed = |cause| VolumeError::at("read", dir, cause);
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string().ok());
        }
        let moving = self.inner.store.db().read(table::intentions)?;
        let (from, to): (HashSet<&str>, HashSet<&str>) = moving
            .iter()
            .map(|(old, new)| (old.as_str(), new.as_str()))
            .unzip();
        names.retain(|name| !from.contains(name.as_str()));
        let all = self.list()?;
        let known: HashSet<String> = all.iter().map(|volume| volume.name.clone()).collect();
        let ours = all.iter().filter(|volume| volume.driver == LOCAL);
        let lost = ours
            .map(|volume| &volume.name)
            .filter(|name| !to.contains(name.as_str()) && !self.path(name).is_dir());
        let mut strays: Vec<Stray> = lost.cloned().map(Stray::Lost).collect();
        strays.sort();
        // What is to be moved comes first: what it leads to is there only then.
        strays.splice(
            0..0,
            moving.iter().map(|(old, new)| Stray::Moving {
                old: old.clone(),
                new: new.clone(),
            }),
        );
        strays.extend(self.strays_in_trash(&from, &to)?);
        let mut removing: HashSet<String> =
            self.inner.store.db().read(table::removals)?.into_iter().collect();
        // What has the name by now is not what was removed.
        removing.retain(|name| !known.contains(name));
        strays.extend(removing.iter().cloned().map(Stray::Removing));
        let copies = self.lock().copies.clone();
        for name in names {
            if copies.contains(&name) {
                continue;
            }
            if name.starts_with(REMOVED) {
                strays.push(Stray::Removed(name));
            } else if !known.contains(&name) && removing.contains(&name) {
                // Told above.
            } else if !known.contains(&name) && self.path(&name).is_dir() && name::check(&name).is_ok() {
                strays.push(Stray::Unrecorded(name));
            }
        }
        Ok(strays)
    }

    /// Brings a row and its directory together again.
    pub fn repair(&self, stray: &Stray) -> Result<(), VolumeError> {
        match stray {
            Stray::Lost(name) => self.make_directory(name),
            Stray::Unrecorded(name) => self.adopt(name),
            Stray::Removed(directory) => self.delete_aside(directory),
            Stray::Removing(name) => self.finish_removal(name),
            Stray::Moving { old, new } => self.finish_rename(old, new),
            Stray::LostTrash(id) => self.forget_trash(id),
            Stray::UnrecordedTrash(id) => self.adopt_trash(id),
        }
    }

    /// Takes over a directory that has a volume's shape but no row, and that nobody has asked to remove: the database is
    /// older than the directory.
    pub(crate) fn adopt(&self, name: &str) -> Result<(), VolumeError> {
        tracing::warn!(volume = name, "a volume without a record is taken over");
        let created = fs::metadata(self.path(name))
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok())
            .unwrap_or_else(Timestamp::now);
        let volume = Volume::bare(name, self.path(name), created);
        self.inner.store.db().write_durable(|tx| {
            table::insert(tx, &volume, false)?;
            Ok(())
        })
    }
}
