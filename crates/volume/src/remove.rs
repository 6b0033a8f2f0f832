//! Removing a volume: the row, then its directory out of sight, then its content.

use std::fs::{self, File};
use std::os::fd::AsFd;

use sys::beneath::remove_tree;

use crate::{VolumeError, Volumes, table};

/// What a removed volume's directory is called until its content has gone.
pub(crate) const REMOVED: &str = ".removed-";

impl Volumes {
    /// Removes a volume with everything in it. With `force`, one that does not exist is no error.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        let mut state = self.lock();
        self.inner.store.db().make_room();
        let existed = self.inner.store.db().write_durable(|tx| {
            let existed = table::delete(tx, name)?;
            Ok::<_, VolumeError>(existed)
        })?;
        if !existed {
            return if force {
                Ok(())
            } else {
                Err(VolumeError::NotFound(name.to_owned()))
            };
        }
        state.holders.remove(name);
        state.removed += 1;
        let aside = format!("{REMOVED}{}-{}", std::process::id(), state.removed);
        let home = self.home(name);
        match fs::rename(&home, self.inner.dir.join(&aside)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|cause| VolumeError::at("remove", &home, cause))?,
        }
        // Others may use the name again while the content goes.
        drop(state);
        self.delete_aside(&aside)
    }

    pub(crate) fn delete_aside(&self, name: &str) -> Result<(), VolumeError> {
        let path = &self.inner.dir;
        let dir = File::open(path).map_err(|cause| VolumeError::at("open", path, cause))?;
        remove_tree(dir.as_fd(), name.as_ref())
            .map(|_| ())
            .map_err(|cause| VolumeError::at("delete", &path.join(name), cause))
    }
}
