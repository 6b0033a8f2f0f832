//! Making a volume, or finding that it is there already.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;

use jiff::Timestamp;
use spec::Id;
use store::DbError;
use store::rusqlite::Transaction;

use crate::{ANONYMOUS_LABEL, LOCAL, Volume, VolumeError, Volumes, name, options, table};

/// What a volume shall be. Empty fields mean the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CreateVolume {
    /// `None` or empty: an anonymous volume with a random name.
    pub name: Option<String>,
    /// Empty: `local`.
    pub driver: String,
    pub driver_opts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Made for something that is not there yet. Unless it is settled ([`Volumes::settle`]) with that, the next opening
    /// removes it.
    pub pending: bool,
}

impl Volumes {
    /// The volume of this name, and whether it was made now. One that exists is left as it is, whatever the
    /// options say, as long as it is of the same driver.
    pub fn create(&self, mut request: CreateVolume) -> Result<(Volume, bool), VolumeError> {
        let anonymous = request.name.as_deref().is_none_or(str::is_empty);
        let name = match request.name.take() {
            Some(name) if !name.is_empty() => name,
            _ => Id::random().to_string(),
        };
        self.create_called(name, anonymous, request)
    }

    /// The same under a name that is known beforehand, of an anonymous volume, too.
    pub fn create_called(
        &self,
        name: String,
        anonymous: bool,
        request: CreateVolume,
    ) -> Result<(Volume, bool), VolumeError> {
        name::check(&name)?;
        let explicit = !request.driver.is_empty();
        let named = (!anonymous).then_some(name.as_str());
        if let Some(driver) = self.plugin_for(&name, named, &request.driver)? {
            return self.create_with(&driver, &name, anonymous, request);
        }
        let mut state = self.lock();
        if let Some(existing) = self.who_has(&mut state, &name)? {
            if explicit && existing.driver != request.driver {
                return Err(VolumeError::NameTaken(name));
            }
            if existing.driver == LOCAL {
                self.make_directory(&name)?;
            }
            self.share(&name)?;
            return Ok((existing, false));
        }
        options::check(&name, &request.driver_opts)?;
        self.check_quota(&name, &request.driver_opts)?;
        let mut labels = request.labels;
        if anonymous {
            labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let volume = Volume {
            labels,
            options: request.driver_opts,
            anonymous,
            ..Volume::bare(&name, self.path(&name), Timestamp::now())
        };
        // The row first: a row without a directory is completed at the next start, so a crash in between
        // leaves a volume with its labels, not a directory nobody knows the meaning of.
        self.inner.store.db().write_durable(|tx| {
            table::insert(tx, &volume, request.pending)?;
            Ok::<_, VolumeError>(())
        })?;
        let made = self.make_directory(&volume.name);
        if let Err(error) = made.and_then(|()| self.bound(&volume)) {
            self.inner.store.db().write_durable(|tx| {
                table::begin_removal(tx, &volume.name)?;
                Ok::<_, VolumeError>(())
            })?;
            return Err(error);
        }
        Ok((volume, true))
    }

    /// Somebody else has it now, too, whatever becomes of what it was made for.
    pub(crate) fn share(&self, name: &str) -> Result<(), VolumeError> {
        self.inner.store.db().write(|tx| {
            table::settle(tx, name)?;
            Ok(())
        })
    }

    /// What volumes were made for is there now, by the transaction that this is part of.
    pub fn settle(&self, tx: &Transaction<'_>, names: &[String]) -> Result<(), DbError> {
        names.iter().try_for_each(|name| Ok(table::settle(tx, name)?))
    }

    /// Makes what is missing of a volume's directories.
    pub(crate) fn make_directory(&self, name: &str) -> Result<(), VolumeError> {
        // Not reachable but for the engine, see `open`; the content has the mode a new directory in an image
        // has, until copy-up gives it the image's.
        for (path, mode) in [(self.home(name), 0o700), (self.path(name), 0o755)] {
            match DirBuilder::new().mode(mode).create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(|cause| VolumeError::at("create directory", &path, cause))?,
            }
        }
        Ok(())
    }
}
