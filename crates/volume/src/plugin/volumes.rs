//! Volumes of plugins: what is recorded here of them, and who is asked what.
//!
//! The plugin has the truth about which volumes there are, and their content; here is recorded whose a name is, with labels
//! and options, and who has had it mounted. The note of a mount is written before the plugin is asked for it and taken away
//! after it was asked to let go, so that whatever is mounted when the daemon is killed is known to the next one. The lock is
//! never held while a plugin is asked: it may take as long as it is allowed to.
//!
//! A place counts until its plugin is asked to let go of it; whatever comes of that, it is never used again. Nobody waits
//! long for a plugin to let go: the note of one that is silent stays.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use jiff::Timestamp;

use super::{Driver, Listed};
use crate::table::Mounted;
use crate::{ANONYMOUS_LABEL, CreateVolume, LOCAL, PluginError, Volume, VolumeError, Volumes, table};

impl Volumes {
    /// Names of the volume plugins that answer.
    pub fn plugins(&self) -> Vec<String> {
        let drivers = self.plugins.answering();
        drivers.into_iter().map(|driver| driver.name).collect()
    }

    /// The volume called `name`, ours or a plugin's, with what its plugin tells of it now.
    pub fn describe(&self, name: &str) -> Result<Volume, VolumeError> {
        let volume = match self.get(name) {
            Err(VolumeError::NotFound(_)) => self.of_plugin(name)?,
            other => Some(other?),
        };
        let mut volume = volume.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        if volume.driver == LOCAL {
            return Ok(volume);
        }
        let failed = |cause| failed("get", name, cause);
        let driver = self.plugins.find(&volume.driver).map_err(failed)?;
        let told = driver.get(name).map_err(failed)?;
        take_over(
            &mut volume,
            told.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?,
        );
        volume.scope = driver.scope().map_err(failed)?;
        Ok(volume)
    }

    /// The driver that has a volume called `name`, if one has.
    pub fn owner(&self, name: &str) -> Result<Option<String>, VolumeError> {
        match self.get(name) {
            Err(VolumeError::NotFound(_)) => Ok(self.of_plugin(name)?.map(|volume| volume.driver)),
            other => Ok(Some(other?.driver)),
        }
    }

    /// All volumes, ours and those of the plugins that answer, by name.
    pub fn list_all(&self) -> Result<Vec<Volume>, VolumeError> {
        let rows = self.list()?;
        let mut all: BTreeMap<String, Volume> = rows
            .into_iter()
            .map(|volume| (volume.name.clone(), volume))
            .collect();
        for driver in self.plugins.answering() {
            let (listed, scope) = match driver.list().and_then(|listed| Ok((listed, driver.scope()?))) {
                Ok(told) => told,
                Err(error) => {
                    tracing::warn!(plugin = driver.name, %error, "a plugin's volumes are not shown");
                    continue;
                }
            };
            for told in listed {
                let volume = all
                    .entry(told.name.clone())
                    .or_insert_with(|| unrecorded(&driver, &told.name));
                // A name that is ours, or an earlier plugin's, is not this one's.
                if volume.driver == driver.name {
                    take_over(volume, told);
                    volume.scope.clone_from(&scope);
                }
            }
        }
        Ok(all.into_values().collect())
    }

    /// The volume of this name if it is a plugin's: one that is recorded here, or that one of those that answer has.
    pub(crate) fn of_plugin(&self, name: &str) -> Result<Option<Volume>, VolumeError> {
        match self.get(name) {
            Ok(volume) => Ok((volume.driver != LOCAL).then_some(volume)),
            Err(VolumeError::NotFound(_)) => Ok(self
                .unrecorded_owner(name)
                .map(|driver| unrecorded(&driver, name))),
            Err(error) => Err(error),
        }
    }

    fn unrecorded_owner(&self, name: &str) -> Option<Driver> {
        let has = |driver: &Driver| match driver.get(name) {
            Ok(found) => found.is_some(),
            Err(error) => {
                tracing::warn!(plugin = driver.name, %error, "a plugin's volumes are not known");
                false
            }
        };
        self.plugins.answering().into_iter().find(has)
    }

    /// The plugin that a volume is to be made with, if not with ours; `named` when somebody has chosen the name.
    pub(crate) fn plugin_for(
        &self,
        name: &str,
        named: Option<&str>,
        driver: &str,
    ) -> Result<Option<Driver>, VolumeError> {
        let recorded = match self.get(name) {
            Err(VolumeError::NotFound(_)) => None,
            other => Some(other?.driver),
        };
        let driver = match recorded.as_deref() {
            _ if driver == LOCAL => return Ok(None),
            Some(LOCAL) => return Ok(None),
            Some(recorded) if !driver.is_empty() && driver != recorded => return Ok(None),
            Some(recorded) => recorded,
            None if driver.is_empty() => return Ok(named.and_then(|name| self.unrecorded_owner(name))),
            None => driver,
        };
        match self.plugins.find(driver) {
            Ok(driver) => Ok(Some(driver)),
            Err(PluginError::NotFound(driver)) => Err(VolumeError::UnknownDriver {
                name: name.to_owned(),
                driver,
            }),
            Err(cause) => Err(failed("create", name, cause)),
        }
    }

    /// Has a plugin make a volume, unless it has it, and records whose it is. One that is recorded already, before or by
    /// somebody else meanwhile, stays as it is; if the plugin has lost it, it is made again with the options it had.
    pub(crate) fn create_with(
        &self,
        driver: &Driver,
        name: &str,
        anonymous: bool,
        request: CreateVolume,
    ) -> Result<(Volume, bool), VolumeError> {
        let failed = |cause| failed("create", name, cause);
        let existed = driver.get(name).map_err(failed)?.is_some();
        if !existed {
            let before = self.get(name).ok();
            let options = before
                .as_ref()
                .map_or(&request.driver_opts, |volume| &volume.options);
            driver.create(name, options).map_err(failed)?;
        }
        let mut volume = unrecorded(driver, name);
        volume.labels = request.labels;
        volume.options = request.driver_opts;
        volume.anonymous = anonymous;
        if anonymous {
            volume.labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let recorded = {
            let mut state = self.lock();
            match self.who_has(&mut state, name) {
                Ok(Some(other)) if other.driver == driver.name => {
                    self.share(name)?;
                    return Ok((other, false));
                }
                Ok(Some(_)) => Err(VolumeError::NameTaken(name.to_owned())),
                Ok(None) => self.inner.store.db().write_durable(|tx| {
                    table::insert(tx, &volume, request.pending && !existed)?;
                    Ok::<_, VolumeError>(())
                }),
                Err(error) => Err(error),
            }
        };
        if let Err(error) = recorded {
            if !existed && let Err(left) = driver.remove(name) {
                tracing::warn!(volume = name, error = %left, "a plugin keeps a volume that is not recorded");
            }
            return Err(error);
        }
        Ok((volume, !existed))
    }

    /// Has a plugin remove a volume. One that it does not know any more is forgotten; with `force` also if the plugin is away.
    pub(crate) fn remove_with(&self, volume: &Volume, force: bool) -> Result<(), VolumeError> {
        let name = &volume.name;
        let removed = self.plugins.find(&volume.driver).and_then(|driver| {
            let is_gone = || matches!(driver.get(name), Ok(None));
            match driver.remove(name) {
                Err(PluginError::Refused { .. }) if is_gone() => Ok(()),
                removed => removed,
            }
        });
        match removed {
            Ok(()) => {}
            Err(error @ (PluginError::NotFound(_) | PluginError::Silent { .. })) if force => {
                tracing::warn!(volume = name, %error, "a volume is forgotten without its plugin");
            }
            Err(cause) => return Err(failed("remove", name, cause)),
        }
        self.lock().holders.remove(name);
        self.inner.store.db().write_durable(|tx| {
            table::forget(tx, name)?;
            Ok::<_, VolumeError>(())
        })
    }

    /// Has a plugin mount a volume; a holder that has it mounted already gets the same place.
    pub(crate) fn mount_with(&self, volume: &Volume, holder: &str) -> Result<PathBuf, VolumeError> {
        let name = &volume.name;
        let note = |place: &str| {
            let mounted = Mounted {
                name: name.clone(),
                holder: holder.to_owned(),
                driver: volume.driver.clone(),
                place: place.to_owned(),
            };
            self.inner.store.db().write_durable(|tx| {
                table::begin_mount(tx, &mounted)?;
                Ok::<_, VolumeError>(())
            })
        };
        let before = self.inner.store.db().read(table::mounted)?;
        let is_it = |mounted: &&Mounted| mounted.name == *name && mounted.holder == holder;
        if let Some(mounted) = before
            .iter()
            .find(is_it)
            .filter(|mounted| !mounted.place.is_empty())
        {
            return Ok(PathBuf::from(&mounted.place));
        }
        let failed = |cause| failed("error while mounting volume", name, cause);
        let driver = self.plugins.find(&volume.driver).map_err(failed)?;
        note("")?;
        let place = driver.mount(name, holder).map_err(failed).and_then(|place| {
            if place.starts_with(&self.inner.dir) || self.inner.dir.starts_with(&place) {
                let reason = format!(
                    "the mountpoint {:?} holds the engine's own volumes",
                    place.display()
                );
                return Err(failed(PluginError::Nonsense {
                    plugin: volume.driver.clone(),
                    call: "VolumeDriver.Mount",
                    reason,
                }));
            }
            let text = place.to_str().map(str::to_owned);
            let text = text.ok_or_else(|| {
                failed(PluginError::Nonsense {
                    plugin: volume.driver.clone(),
                    call: "VolumeDriver.Mount",
                    reason: "the mountpoint is not UTF-8".to_owned(),
                })
            })?;
            note(&text)?;
            Ok(place)
        });
        if place.is_err() {
            // It may have mounted it and said something wrong, or too late.
            self.let_go_of("a volume's", |mounted| {
                mounted.name == *name && mounted.holder == holder
            });
        }
        place
    }

    /// Has plugins let go of what is mounted for anybody else than `holders`: a daemon before was killed.
    pub fn unmount_all_but(&self, holders: &BTreeSet<String>) {
        self.let_go_of("an earlier daemon's", |mounted| {
            !holders.contains(&mounted.holder)
        });
    }

    /// Has plugins let go of some mounts; of `whose` is for the log.
    pub(crate) fn let_go_of(&self, whose: &str, which: impl Fn(&Mounted) -> bool) {
        let mounted = match self.inner.store.db().read(table::mounted) {
            Ok(mounted) => mounted,
            Err(error) => {
                tracing::warn!(whose, %error, "what plugins have mounted cannot be read");
                return;
            }
        };
        let hasty = self.hasty();
        for one in mounted.into_iter().filter(which) {
            hasty.let_go(one);
        }
    }

    /// While the plugin is away the note stays, for the next start, but without the place.
    fn let_go(&self, mounted: Mounted) {
        let Mounted { name, holder, .. } = &mounted;
        let asked = self
            .plugins
            .find(&mounted.driver)
            .and_then(|driver| driver.unmount(name, holder));
        if let Err(error) = &asked {
            tracing::warn!(volume = name, %error, "a plugin has not unmounted a volume");
        }
        let is_away = matches!(asked, Err(PluginError::Silent { .. } | PluginError::NotFound(_)));
        let noted = self.inner.store.db().write_durable(|tx| {
            match is_away {
                true => table::begin_mount(
                    tx,
                    &Mounted {
                        place: String::new(),
                        ..mounted.clone()
                    },
                )?,
                false => table::end_mount(tx, name, holder)?,
            }
            Ok::<_, VolumeError>(())
        });
        if let Err(error) = noted {
            tracing::warn!(volume = name, %error, "that a volume was unmounted could not be recorded");
        }
    }

    /// Where the content of a volume is to be seen: ours always, a plugin's while it is mounted, for `holder` first. Empty
    /// where it is nowhere.
    pub fn place(&self, name: &str, holder: Option<&str>) -> PathBuf {
        let is_ours = self.get(name).map_or(true, |volume| volume.driver == LOCAL);
        if is_ours {
            return self.path(name);
        }
        let mut mounted = self.inner.store.db().read(table::mounted).unwrap_or_default();
        mounted.retain(|mounted| mounted.name == name && !mounted.place.is_empty());
        let own = mounted
            .iter()
            .find(|mounted| Some(mounted.holder.as_str()) == holder);
        let found = own.or(mounted.first());
        found.map_or_else(PathBuf::new, |mounted| PathBuf::from(&mounted.place))
    }
}

fn failed(action: &'static str, name: &str, cause: PluginError) -> VolumeError {
    VolumeError::Plugin {
        action,
        name: name.to_owned(),
        cause,
    }
}

/// A volume of which nothing is known but whose it is.
fn unrecorded(driver: &Driver, name: &str) -> Volume {
    Volume {
        driver: driver.name.clone(),
        ..Volume::bare(name, PathBuf::new(), Timestamp::now())
    }
}

/// What the plugin says counts more than what is recorded.
fn take_over(volume: &mut Volume, told: Listed) {
    volume.mountpoint = told.mountpoint.unwrap_or_default().into();
    volume.status = told.status.unwrap_or_default();
    if let Some(created) = told.created_at.and_then(|text| text.parse::<Timestamp>().ok()) {
        volume.created_at = created;
    }
}
