//! After a crash: rows and directories are brought together again, never at the cost of data.

use std::collections::{BTreeMap, HashSet};
use std::fs;

use jiff::Timestamp;

use crate::remove::REMOVED;
use crate::{LOCAL, Volume, VolumeError, Volumes, name, table};

impl Volumes {
    pub(crate) fn recover(&self) -> Result<(), VolumeError> {
        let mut known = HashSet::new();
        for volume in self.list()? {
            self.make_directory(&volume.name)?;
            known.insert(volume.name);
        }
        let dir = &self.inner.dir;
        let failed = |cause| VolumeError::at("read", dir, cause);
        for entry in fs::read_dir(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if name.starts_with(REMOVED) {
                self.delete_aside(&name)?;
            } else if !known.contains(&name) && self.path(&name).is_dir() && name::check(&name).is_ok() {
                self.adopt(&name)?;
            }
        }
        Ok(())
    }

    /// Takes over a directory that has a volume's shape but no row: its removal was interrupted before anybody
    /// was told that it had happened, or the database is older than the directory.
    fn adopt(&self, name: &str) -> Result<(), VolumeError> {
        tracing::warn!(volume = name, "a volume without a record is taken over");
        let created = fs::metadata(self.path(name))
            .and_then(|meta| meta.modified())
            .ok()
            .and_then(|time| Timestamp::try_from(time).ok())
            .unwrap_or_else(Timestamp::now);
        let volume = Volume {
            name: name.to_owned(),
            driver: LOCAL.to_owned(),
            mountpoint: self.path(name),
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_at: Timestamp::from_second(created.as_second()).unwrap_or(created),
            anonymous: false,
        };
        self.inner.store.db().write_durable(|tx| {
            table::insert(tx, &volume)?;
            Ok(())
        })
    }
}
