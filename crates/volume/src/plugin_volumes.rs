//! Volumes of plugins: what is recorded here of them, and who is asked what.
//!
//! The plugin has the truth about which volumes there are, and their content; here is recorded whose a name is, with labels
//! and options, and who has had it mounted. The note of a mount is written before the plugin is asked for it and taken away
//! after it was asked to let go, so that whatever is mounted when the daemon is killed is known to the next one. The lock is
//! never held while a plugin is asked: it may take as long as it is allowed to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::plugin::{Driver, Listed, Plugins};
use crate::table::Mounted;
use crate::{ANONYMOUS_LABEL, CreateVolume, LOCAL, PluginError, Volume, VolumeError, Volumes, table};

/// How long plugins may take that were not asked for by name.
const PATIENCE: Duration = Duration::from_secs(5);

impl Volumes {
    /// Names of the volume plugins that answer.
    pub fn plugins(&self) -> Vec<String> {
        let drivers = self.inner.plugins.answering(PATIENCE);
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
        let driver = self.inner.plugins.find(&volume.driver).map_err(failed)?;
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
        for driver in self.inner.plugins.answering(PATIENCE) {
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
        self.inner.plugins.answering(PATIENCE).into_iter().find(has)
    }

    /// The plugin that a volume is to be made with, if not with ours; `named` when somebody has chosen the name.
    pub(crate) fn plugin_for(
        &self,
        name: &str,
        named: Option<&str>,
        driver: &str,
    ) -> Result<Option<Driver>, VolumeError> {
        if driver == LOCAL || self.get(name).is_ok() {
            return Ok(None);
        }
        if driver.is_empty() {
            return Ok(named.and_then(|name| self.unrecorded_owner(name)));
        }
        match self.inner.plugins.find(driver) {
            Ok(driver) => Ok(Some(driver)),
            Err(PluginError::NotFound(driver)) => Err(VolumeError::UnknownDriver {
                name: name.to_owned(),
                driver,
            }),
            Err(cause) => Err(failed("create", name, cause)),
        }
    }

    /// Has a plugin make a volume, unless it has it, and records whose it is.
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
            driver.create(name, &request.driver_opts).map_err(failed)?;
        }
        let mut volume = unrecorded(driver, name);
        volume.labels = request.labels;
        volume.options = request.driver_opts;
        volume.anonymous = anonymous;
        if anonymous {
            volume.labels.insert(ANONYMOUS_LABEL.to_owned(), String::new());
        }
        let recorded = {
            let _state = self.lock();
            match self.get(name) {
                Ok(_) => Err(VolumeError::NameTaken(name.to_owned())),
                Err(_) => self.inner.store.db().write_durable(|tx| {
                    table::insert(tx, &volume, request.pending && !existed)?;
                    Ok::<_, VolumeError>(())
                }),
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

    /// Has a plugin remove a volume. With `force` it is forgotten even if the plugin is away.
    pub(crate) fn remove_with(&self, volume: &Volume, force: bool) -> Result<(), VolumeError> {
        let name = &volume.name;
        let removed = self
            .inner
            .plugins
            .find(&volume.driver)
            .and_then(|driver| driver.remove(name));
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
        let driver = self.inner.plugins.find(&volume.driver).map_err(failed)?;
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
            self.unmount_with(name, holder);
        }
        place
    }

    /// Has a plugin let go of a volume, if it was asked to mount it for this holder.
    pub(crate) fn unmount_with(&self, name: &str, holder: &str) {
        let mounted = match self.inner.store.db().read(table::mounted) {
            Ok(mounted) => mounted,
            Err(error) => {
                tracing::warn!(volume = name, %error, "what a plugin has mounted cannot be read");
                return;
            }
        };
        for one in mounted {
            if one.name == name && one.holder == holder {
                self.let_go(&self.inner.plugins, &one);
            }
        }
    }

    /// Has plugins let go of what is mounted for anybody else than `holders`: a daemon before was killed.
    pub fn unmount_all_but(&self, holders: &BTreeSet<String>) -> Result<(), VolumeError> {
        let plugins = self.inner.plugins.within(PATIENCE);
        let mut silent = BTreeSet::new();
        for one in self.inner.store.db().read(table::mounted)? {
            if holders.contains(&one.holder) || silent.contains(&one.driver) {
                continue;
            }
            if !self.let_go(&plugins, &one) {
                silent.insert(one.driver);
            }
        }
        Ok(())
    }

    /// Whether the plugin has done so, or said why not; while it is away the note stays, for the next start.
    fn let_go(&self, plugins: &Plugins, mounted: &Mounted) -> bool {
        let Mounted { name, holder, .. } = mounted;
        let asked = plugins
            .find(&mounted.driver)
            .and_then(|driver| driver.unmount(name, holder));
        if let Err(error) = &asked {
            tracing::warn!(volume = name, %error, "a plugin has not unmounted a volume");
        }
        if matches!(asked, Err(PluginError::Silent { .. } | PluginError::NotFound(_))) {
            return false;
        }
        let forgotten = self.inner.store.db().write_durable(|tx| {
            table::end_mount(tx, name, holder)?;
            Ok::<_, VolumeError>(())
        });
        if let Err(error) = forgotten {
            tracing::warn!(volume = name, %error, "that a volume was unmounted could not be recorded");
        }
        true
    }

    /// Where the content of a volume is to be seen: ours always, a plugin's while it is mounted.
    pub fn place(&self, name: &str) -> PathBuf {
        let is_ours = self.get(name).map_or(true, |volume| volume.driver == LOCAL);
        if is_ours {
            return self.path(name);
        }
        let mounted = self.inner.store.db().read(table::mounted).unwrap_or_default();
        let found = mounted.into_iter().find(|mounted| mounted.name == name);
        found.map_or_else(PathBuf::new, |mounted| PathBuf::from(mounted.place))
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
    let now = Timestamp::now();
    Volume {
        name: name.to_owned(),
        driver: driver.name.clone(),
        mountpoint: PathBuf::new(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        created_at: Timestamp::from_second(now.as_second()).unwrap_or(now),
        anonymous: false,
        scope: LOCAL.to_owned(),
        status: BTreeMap::new(),
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
