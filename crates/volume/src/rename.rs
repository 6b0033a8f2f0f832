//! Another name for a volume, and volumes that are made with content: of another one, or of an archive.
//!
//! A crash leaves the volume under one of its names, whole; a copy is a volume only once it is complete.
//!
//! There is one way onto a name, whoever wants it: what a crash or a failure left there is brought to its end before
//! (see [`Volumes::who_has`]), so that no two directories meet.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use jiff::Timestamp;

use crate::remove::REMOVED;
use crate::{LOCAL, State, Volume, VolumeError, Volumes, copy_up, name, sync, table};

impl Volumes {
    /// Gives a volume another name. That no container knows it by the old one is the engine's to see to.
    pub fn rename(&self, old: &str, new: &str) -> Result<Volume, VolumeError> {
        name::check(new)?;
        let mut state = self.lock();
        let found = self.who_has(&mut state, old)?;
        let mut volume = found.ok_or_else(|| VolumeError::NotFound(old.to_owned()))?;
        if volume.driver != LOCAL {
            return Err(VolumeError::OfPlugin {
                action: "rename",
                name: volume.name,
                driver: volume.driver,
            });
        }
        self.make_name_free(&mut state, new)?;
        new.clone_into(&mut volume.name);
        volume.mountpoint = self.path(new);
        volume.anonymous = false;
        volume.labels.remove(crate::ANONYMOUS_LABEL);
        // The intent first, so that the next start knows whose directory the old one is.
        self.inner.store.db().write_durable(|tx| {
            table::forget(tx, old)?;
            table::insert(tx, &volume, false)?;
            table::intend(tx, old, new)?;
            Ok::<_, VolumeError>(())
        })?;
        self.finish_rename(old, new)?;
        drop(state);
        Ok(volume)
    }

    /// The volume that has a name. What was begun with the name is finished before: renames to it and away from it, and
    /// the removal of the one before. A directory with a volume's shape becomes a volume again, as at the next start.
    pub(crate) fn who_has(&self, state: &mut State, name: &str) -> Result<Option<Volume>, VolumeError> {
        for (old, new) in self.inner.store.db().read(table::intentions)? {
            if old == name || new == name {
                self.finish_rename(&old, &new)?;
            }
        }
        let has = || match self.get(name) {
            Err(VolumeError::NotFound(_)) => Ok(None),
            other => other.map(Some),
        };
        if let Some(volume) = has()? {
            return Ok(Some(volume));
        }
        if self
            .inner
            .store
            .db()
            .read(table::removals)?
            .iter()
            .any(|removed| removed == name)
        {
            self.put_aside(state, name)?;
        }
        if self.path(name).is_dir() {
            self.adopt(name)?;
        }
        has()
    }

    /// Refuses a name that a volume has; of another, nothing is left.
    pub(crate) fn make_name_free(&self, state: &mut State, name: &str) -> Result<(), VolumeError> {
        match self.who_has(state, name)? {
            Some(_) => Err(VolumeError::NameTaken(name.to_owned())),
            None => Ok(()),
        }
    }

    /// Moves the directory, and forgets the intent. Where something else is in the way, both stay as they are.
    pub(crate) fn finish_rename(&self, old: &str, new: &str) -> Result<(), VolumeError> {
        let (from, to) = (self.home(old), self.home(new));
        if from.is_dir() {
            fs::rename(&from, &to).map_err(|cause| VolumeError::at("rename", &from, cause))?;
        }
        // Even if the directory was moved by a daemon before: whether that lasts, nobody knows.
        for parent in [from.parent(), to.parent()].into_iter().flatten() {
            sync(parent)?;
        }
        self.inner.store.db().write_durable(|tx| {
            table::intended(tx, old)?;
            Ok::<_, VolumeError>(())
        })
    }

    /// Makes a volume with the content, owners, modes and attributes of another, its labels and its size. Where the filesystem
    /// shares blocks between files (btrfs, xfs) no data is copied. What a container writes meanwhile may be in it or not.
    pub fn clone_volume(&self, source: &str, new: &str) -> Result<Volume, VolumeError> {
        name::check(new)?;
        let original = self.own(source, "clone")?;
        self.fill_like(new, &original, |data| copy(&original.mountpoint, data))
    }

    /// As [`Volumes::fill_new`], with the labels and the size of another volume.
    pub(crate) fn fill_like(
        &self,
        new: &str,
        original: &Volume,
        fill: impl FnOnce(&Path) -> Result<(), VolumeError>,
    ) -> Result<Volume, VolumeError> {
        let fill = |data: &Path| {
            {
                let _state = self.lock();
                self.bound_directory(data, original)?;
            }
            fill(data)
        };
        self.fill_with(new, original.labels.clone(), original.options.clone(), fill)
    }

    /// Makes a volume whose content `fill` puts into an empty directory. It is there with all of its content, or not at all.
    pub fn fill_new<E: From<VolumeError>>(
        &self,
        new: &str,
        labels: BTreeMap<String, String>,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Volume, E> {
        self.fill_with(new, labels, BTreeMap::new(), fill)
    }

    fn fill_with<E: From<VolumeError>>(
        &self,
        new: &str,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        fill: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<Volume, E> {
        name::check(new)?;
        if self.get(new).is_ok() {
            return Err(VolumeError::NameTaken(new.to_owned()).into());
        }
        self.fill_aside(fill, |aside| Ok(self.take_in(labels, options, aside, new)?))
    }

    /// Has a directory filled out of sight, made to last, and put where `place` puts it: it is there with all of its content,
    /// or not at all.
    pub(crate) fn fill_aside<T, E: From<VolumeError>>(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), E>,
        place: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, E> {
        // Called as what goes away is called: a copy that a crash cuts short is removed by the next start.
        let aside = {
            let mut state = self.lock();
            state.removed += 1;
            let aside = format!("{REMOVED}copy-{}-{}", std::process::id(), state.removed);
            state.copies.insert(aside.clone());
            aside
        };
        let made = self
            .make_aside(&aside)
            .map_err(E::from)
            .and_then(|()| fill(&self.path(&aside)))
            .and_then(|()| Ok(self.sync_aside(&aside)?))
            .and_then(|()| place(&aside));
        self.lock().copies.remove(&aside);
        if self.home(&aside).exists() {
            // A failure before is the one to tell; what stays, the next start removes.
            if let Err(error) = self.delete_aside(&aside) {
                tracing::warn!(directory = aside, %error, "what was copied is left");
            }
        }
        made
    }

    fn make_aside(&self, aside: &str) -> Result<(), VolumeError> {
        for (path, mode) in [(self.home(aside), 0o700), (self.path(aside), 0o755)] {
            let made = DirBuilder::new().mode(mode).create(&path);
            made.map_err(|cause| VolumeError::at("create directory", &path, cause))?;
        }
        Ok(())
    }

    /// What a row that lasts says is there has to last, too.
    fn sync_aside(&self, aside: &str) -> Result<(), VolumeError> {
        let path = self.path(aside);
        let dir = fs::File::open(&path).map_err(|cause| VolumeError::at("open", &path, cause))?;
        rustix::fs::syncfs(&dir).map_err(|cause| VolumeError::at("sync", &path, cause))
    }

    /// The directory under its name first, whole, then the row: between the two it is a volume that the next start
    /// takes over. Without the row nothing is left.
    fn take_in(
        &self,
        labels: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
        aside: &str,
        new: &str,
    ) -> Result<Volume, VolumeError> {
        let mut state = self.lock();
        self.make_name_free(&mut state, new)?;
        let (aside, home) = (self.home(aside), self.home(new));
        fs::rename(&aside, &home).map_err(|cause| VolumeError::at("create directory", &home, cause))?;
        let mut volume = Volume {
            labels,
            options,
            ..Volume::bare(new, self.path(new), Timestamp::now())
        };
        volume.labels.remove(crate::ANONYMOUS_LABEL);
        let recorded = sync(&self.inner.dir).and_then(|()| {
            self.inner.store.db().write_durable(|tx| {
                table::insert(tx, &volume, false)?;
                Ok::<_, VolumeError>(())
            })
        });
        if let Err(error) = recorded {
            if let Err(left) = fs::rename(&home, &aside) {
                tracing::warn!(volume = new, error = %left, "the next start takes over a volume that was not recorded");
            }
            return Err(error);
        }
        Ok(volume)
    }
}

/// Everything below one directory into another, empty one.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), VolumeError> {
    let opened = fs::File::open(from).map_err(|cause| VolumeError::at("open", from, cause))?;
    copy_up(to, opened.as_fd(), "/").map(drop)
}
