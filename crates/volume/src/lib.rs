//! Named volumes: directories that outlive containers, and the options of the `local` driver.
//!
//! ```text
//! ROOT/volumes/<name>/_data     what containers see
//! ROOT/volumes/<name>/copying   a copy-up is under way (see `copy_up`, `fill`)
//! ROOT/volumes/<name>/snapshots what it held once (see `snapshot`)
//! ROOT/volumes/.trash/<id>      removed, and kept for a while (see `trash`)
//! ROOT/volumes/.removed-…       renamed away, being deleted
//! ```
//!
//! The row in the database is the truth about a volume that exists, and it is durable before its creator hears
//! of it. Data is never removed on a guess: a row without a directory gets an empty one, and a directory with
//! a volume's shape but without a row becomes a volume again, unless a row says that it is being removed. A volume
//! that is made for a container is pending until the container is recorded, and goes if that never comes.
//!
//! Whether a volume is in use is the engine's business: it refuses the removal before it asks for it here.

mod copy_up;
mod create;
mod error;
mod fill;
mod mount;
mod name;
mod options;
mod plugin;
mod quota;
mod recover;
mod remove;
mod rename;
mod snapshot;
mod table;
mod trash;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use store::Store;

pub use copy_up::copy_up;
pub use create::CreateVolume;
pub use error::VolumeError;
pub use mount::VolumeSource;
pub use plugin::{PluginError, PluginSettings};
pub use recover::Stray;
pub use snapshot::Snapshot;
pub use trash::Trashed;

/// The driver of the engine itself; every other is a plugin's.
pub const LOCAL: &str = "local";
/// The label by which Docker's clients know a volume that nobody named.
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// A volume as it is known to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub name: String,
    pub driver: String,
    /// Its `_data` directory on the host.
    pub mountpoint: PathBuf,
    pub labels: BTreeMap<String, String>,
    /// Of the driver: `type`, `device`, `o`, or `size`.
    pub options: BTreeMap<String, String>,
    /// To the second.
    pub created_at: Timestamp,
    /// Made without a name, for one container.
    pub anonymous: bool,
    /// `local`, or `global` where a plugin has the same volumes on every host.
    pub scope: String,
    /// What a plugin tells of it.
    pub status: BTreeMap<String, serde_json::Value>,
}

impl Volume {
    /// One of ours, of which nothing is known but its name, its place and its age.
    fn bare(name: &str, mountpoint: PathBuf, created: Timestamp) -> Volume {
        Volume {
            name: name.to_owned(),
            driver: LOCAL.to_owned(),
            mountpoint,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created_at: seconds(created),
            anonymous: false,
            scope: LOCAL.to_owned(),
            status: BTreeMap::new(),
        }
    }
}

/// The volumes of a data root. Clones share them.
#[derive(Clone)]
pub struct Volumes {
    inner: Arc<Inner>,
    plugins: plugin::Plugins,
}

struct Inner {
    store: Store,
    dir: PathBuf,
    state: Mutex<State>,
}

/// Guards changes of rows together with their directories.
#[derive(Default)]
struct State {
    holders: HashMap<String, BTreeSet<String>>,
    /// Makes names of removed volumes' directories.
    removed: u64,
    /// Directories in which copies are being made.
    copies: BTreeSet<String>,
}

impl Volumes {
    /// Opens the volumes below `data_root`, without plugins, and puts right what a crash left.
    pub fn open(store: Store, data_root: &Path) -> Result<Volumes, VolumeError> {
        Volumes::open_with(store, data_root, PluginSettings::none())
    }

    /// The same with plugins.
    pub fn open_with(
        store: Store,
        data_root: &Path,
        plugins: PluginSettings,
    ) -> Result<Volumes, VolumeError> {
        let dir = data_root.join("volumes");
        let failed = |cause| VolumeError::at("create directory", &dir, cause);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.join(trash::DIRECTORY))
            .map_err(failed)?;
        // Volumes hold setuid programs and other people's files under guessable names.
        fs::set_permissions(&dir, Permissions::from_mode(0o700))
            .map_err(|cause| VolumeError::at("protect", &dir, cause))?;
        store.db().migrate("volume", table::STEPS)?;
        let volumes = Volumes {
            inner: Arc::new(Inner {
                store,
                dir,
                state: Mutex::default(),
            }),
            plugins: plugin::Plugins::new(plugins),
        };
        volumes.recover()?;
        Ok(volumes)
    }

    /// The same volumes for work that nobody waits for, or that is not to wait for plugins: they get little time, and one
    /// that is silent once is not asked again.
    pub fn hasty(&self) -> Volumes {
        Volumes {
            inner: Arc::clone(&self.inner),
            plugins: self.plugins.hasty(),
        }
    }

    /// The volume called `name`, as it is recorded here.
    pub fn get(&self, name: &str) -> Result<Volume, VolumeError> {
        let found = self
            .inner
            .store
            .db()
            .read(|db| table::find(db, &self.inner.dir, name))?;
        found.ok_or_else(|| VolumeError::NotFound(name.to_owned()))
    }

    /// All volumes that are recorded here, by name.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        Ok(self.inner.store.db().read(|db| table::all(db, &self.inner.dir))?)
    }

    /// The volume called `name`, whose content is a directory of ours: what is asked for can be done with no other.
    pub fn own(&self, name: &str, action: &'static str) -> Result<Volume, VolumeError> {
        let volume = self.get(name)?;
        let name = name.to_owned();
        match () {
            () if volume.driver != LOCAL => Err(VolumeError::OfPlugin {
                action,
                name,
                driver: volume.driver,
            }),
            () if volume.options.contains_key("device") => Err(VolumeError::NotLocal { action, name }),
            () => Ok(volume),
        }
    }

    /// Where the content of the volume called `name` is, or would be.
    pub fn path(&self, name: &str) -> PathBuf {
        data(&self.inner.dir, name)
    }

    fn home(&self, name: &str) -> PathBuf {
        self.inner.dir.join(name)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn data(dir: &Path, name: &str) -> PathBuf {
    dir.join(name).join("_data")
}

/// What is recorded of a time.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Makes the names in a directory last.
fn sync(dir: &Path) -> Result<(), VolumeError> {
    let opened = fs::File::open(dir).map_err(|cause| VolumeError::at("open", dir, cause))?;
    let synced = opened.sync_all();
    synced.map_err(|cause| VolumeError::at("sync", dir, cause))
}
