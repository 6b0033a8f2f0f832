//! Removing a volume: the row, then its directory out of sight, then its content.
//!
//! The transaction that takes the row away notes the removal, so that one which is cut off after it is gone on with:
//! without the note, its directory would look like one whose row was lost.

use std::fs::{self, File};
use std::os::fd::AsFd;

use sys::beneath::remove_tree;

use crate::{State, VolumeError, Volumes, table};

/// What a removed volume's directory is called until its content has gone.
pub(crate) const REMOVED: &str = ".removed-";

impl Volumes {
    /// Removes a volume with everything in it. With `force`, one that does not exist is no error.
    pub fn remove(&self, name: &str, force: bool) -> Result<(), VolumeError> {
        if let Some(volume) = self.of_plugin(name)? {
            return self.remove_with(&volume, force);
        }
        let mut state = self.lock();
        self.inner.store.db().make_room();
        let existed = self.inner.store.db().write_durable(|tx| {
            let existed = table::begin_removal(tx, name)?;
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
        let aside = self.put_aside(&mut state, name)?;
        // Others may use the name again while the content goes.
        drop(state);
        aside.map_or(Ok(()), |aside| self.delete_aside(&aside))
    }

    /// Goes on with a removal that was cut off.
    pub(crate) fn finish_removal(&self, name: &str) -> Result<(), VolumeError> {
        let mut state = self.lock();
        let aside = match self.get(name) {
            // The directory is another volume's by now.
            Ok(_) => self.forget_removal(name).map(|()| None)?,
            Err(_) => self.put_aside(&mut state, name)?,
        };
        drop(state);
        aside.map_or(Ok(()), |aside| self.delete_aside(&aside))
    }

    /// Renames the directory of a volume without a row; what it is called now, if there was one.
    pub(crate) fn put_aside(&self, state: &mut State, name: &str) -> Result<Option<String>, VolumeError> {
        let renamed = self.hide(state, name)?;
        self.forget_removal(name)?;
        Ok(renamed)
    }

    fn forget_removal(&self, name: &str) -> Result<(), VolumeError> {
        self.inner.store.db().write(|tx| {
            table::end_removal(tx, name)?;
            Ok(())
        })
    }

    /// Gives a directory, if it is there, a name under which it is deleted whatever happens.
    pub(crate) fn hide(&self, state: &mut State, name: &str) -> Result<Option<String>, VolumeError> {
        state.removed += 1;
        let aside = format!("{REMOVED}{}-{}", std::process::id(), state.removed);
        let home = self.home(name);
        match fs::rename(&home, self.inner.dir.join(&aside)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => {
                other.map_err(|cause| VolumeError::at("remove", &home, cause))?;
                Ok(Some(aside))
            }
        }
    }

    pub(crate) fn delete_aside(&self, name: &str) -> Result<(), VolumeError> {
        let path = &self.inner.dir;
        let dir = File::open(path).map_err(|cause| VolumeError::at("open", path, cause))?;
        let project = self.project_in(name);
        remove_tree(dir.as_fd(), name.as_ref())
            .map_err(|cause| VolumeError::at("delete", &path.join(name), cause))?;
        if let Some(project) = project {
            self.unbound(&dir, project);
        }
        Ok(())
    }
}
