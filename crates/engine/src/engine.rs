//! The engine as one value: the rooms below, the containers, the events, and how it opens and closes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use image::Images;
use network::Networks;
use spec::{Id, Instance};
use store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use volume::Volumes;

use crate::activity::Activities;
use crate::apparmor::AppArmor;
use crate::container::{Container, Execs, Holds, Records, Registry, Steps, mounted_layers};
use crate::error::{Error, Result, chain};
use crate::events::Events;
use crate::live::LiveConfig;
use crate::metrics::Metrics;
use crate::selinux::Selinux;
use crate::userns;

/// What the engine is opened with.
pub struct EngineConfig {
    /// Where everything durable lies.
    pub root: PathBuf,
    /// How layers lie there.
    pub storage_driver: store::StorageDriver,
    /// Whether files that are equal in several layers are kept once.
    pub store_dedup: bool,
    /// Which digests users know images by.
    pub image_ids: image::ImageIds,
    /// Where sockets lie; gone at reboot.
    pub run_dir: PathBuf,
    /// Names on the host.
    pub instance: Instance,
    /// Who makes the containers' control groups.
    pub cgroup_driver: cgroup::Driver,
    /// Below which control group, or in which slice, they are made where a container does not say; empty for the top.
    pub cgroup_parent: String,
    /// Bytes that all logs together may take; files put aside go when they take more.
    pub log_budget: Option<u64>,
    /// Where devices are described that containers ask for by name.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Containers get labels of SELinux where the kernel has it in force.
    pub selinux: bool,
    /// Programs that bring volumes of their own.
    pub volume_plugins: volume::PluginSettings,
    pub network: network::NetworkConfig,
    pub userns: userns::Settings,
    /// What may change later.
    pub live: LiveConfig,
}

/// A container engine. Clones are handles to the same one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: EngineConfig,
    /// Takes the place of the configuration's.
    pub(crate) live: RwLock<Arc<LiveConfig>>,
    /// Our own binary, as monitors are started from it.
    pub(crate) program: sys::program::Sealed,
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) networks: Networks,
    pub(crate) volumes: Volumes,
    pub(crate) volume_claims: Arc<crate::volumes::claims::Claims>,
    pub(crate) trash: crate::volumes::trash::Watch,
    /// Compressed layers may go.
    pub(crate) blobs: crate::blobs::Wake,
    pub(crate) records: Records,
    pub(crate) containers: Registry,
    pub(crate) execs: Execs,
    /// Ids that containers have for themselves.
    pub(crate) ids: userns::Pool,
    pub(crate) selinux: Selinux,
    pub(crate) apparmor: AppArmor,
    pub(crate) steps: Steps,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) activities: Activities,
    pub(crate) shutdown: CancellationToken,
    /// Cancelled when clients can reach the engine; nothing else waits for it but what starts by itself.
    pub(crate) serves: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) frozen: Holds,
    pub(crate) daemon_id: String,
    pub(crate) cgroups: cgroup::Support,
    pub(crate) cgroup_version: cgroup::Version,
    /// What `info` warns of.
    pub(crate) warnings: std::sync::Mutex<Vec<String>>,
}

/// Runs blocking work of a request on the pool for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

impl Engine {
    /// Opens the engine on its root and brings it to where it was: living containers are adopted, ended ones
    /// get their exit codes, leftovers are removed, restart policies go on.
    pub async fn open(config: EngineConfig) -> Result<Engine> {
        let inner = blocking(move || Inner::open(config)).await?;
        let engine = Engine {
            inner: Arc::new(inner),
        };
        if let Err(error) = crate::recover::recover(&engine).await {
            engine.abandon().await;
            return Err(error);
        }
        engine
            .inner
            .tasks
            .spawn(crate::container::keep_to_budget(engine.clone()));
        let trash = crate::volumes::trash::keep(engine.clone());
        engine.inner.tasks.spawn(trash);
        let blobs = crate::blobs::keep(engine.clone());
        engine.inner.tasks.spawn(blobs);
        Ok(engine)
    }

    /// Starts the containers that start with the daemon. Not part of opening: a daemon that cannot serve starts none.
    pub fn serves(&self) {
        self.inner.serves.cancel();
    }

    /// Lets go of every container without touching it; their monitors go on. Where none lives, what the instance
    /// has on the host goes too: bridges, rules, its control group. The next opening makes it again.
    pub async fn close(&self) {
        self.end_tasks().await;
        if !self.containers().iter().any(|c| c.state.status.is_alive()) {
            self.leave_host().await;
        }
    }

    /// The same after an opening that failed, when not all containers are known yet. Where it cannot be told whether one
    /// lives, what it may need stays.
    async fn abandon(&self) {
        self.end_tasks().await;
        let inner = Arc::clone(&self.inner);
        if let Ok(true) = blocking(move || crate::recover::is_deserted(&inner)).await {
            self.leave_host().await;
        }
    }

    async fn end_tasks(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn leave_host(&self) {
        let inner = Arc::clone(&self.inner);
        if let Err(error) = blocking(move || inner.leave_host()).await {
            tracing::warn!(%error, "something of this daemon is left on the host");
        }
    }

    /// The images of this engine.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// The store below everything.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// What is under way.
    pub fn activities(&self) -> &Activities {
        &self.inner.activities
    }

    /// What the engine was opened with; [`Engine::live`] has what may have changed since.
    pub fn config(&self) -> &EngineConfig {
        &self.inner.config
    }
}

impl Inner {
    fn open(config: EngineConfig) -> Result<Inner> {
        std::fs::create_dir_all(&config.run_dir).map_err(|error| {
            Error::internal(format!("cannot create {}: {error}", config.run_dir.display()))
        })?;
        let options = store::Options {
            driver: config.storage_driver,
            dedup: config.store_dedup.then_some(store::DEDUP_FROM),
        };
        let store = Store::open_as(&config.root, options)?;
        // What requests of the last daemon were in the middle of.
        remove_if_there(&config.root.join("tmp"))?;
        let registry = registry::Client::new(config.live.registry.clone())
            .map_err(|error| Error::internal(chain(&error)))?;
        let images = Images::open(store.clone(), registry)?;
        store.room().keep(config.live.min_free);
        images.set_ids(config.image_ids);
        images.set_max_downloads(config.live.max_downloads);
        images.set_max_uploads(config.live.max_uploads);
        images.set_max_layer(config.live.max_layer_size);
        let volumes = Volumes::open_with(store.clone(), store.root(), config.volume_plugins.clone())?;
        let records = Records::open(store.clone())?;
        images.keep_also(mounted_layers);
        let containers_dir = config.root.join("containers");
        make_private_dir(&containers_dir)?;
        let daemon_id = daemon_id(&config.root)?;
        let metrics = Metrics::default();
        let hierarchy = cgroup::Hierarchy::host()?;
        let program = sys::program::Sealed::own()
            .map_err(|error| Error::internal(format!("cannot seal our own program: {error}")))?;
        let events = Events::open(&config.root, metrics.events())?;
        let selinux = Selinux::open(config.selinux, &config.root)?;
        // Last: it is the first that changes the host, and takes its changes back when it fails.
        let networks = Networks::open(store.clone(), config.network.clone())?;
        Ok(Inner {
            live: RwLock::new(Arc::new(config.live.clone())),
            program,
            store,
            images,
            networks,
            volumes,
            volume_claims: Default::default(),
            trash: Default::default(),
            blobs: Default::default(),
            records,
            containers: Registry::default(),
            execs: Execs::default(),
            ids: userns::Pool::default(),
            selinux,
            apparmor: AppArmor::open(),
            steps: Steps::default(),
            events,
            metrics,
            activities: Activities::default(),
            shutdown: CancellationToken::new(),
            serves: CancellationToken::new(),
            tasks: TaskTracker::new(),
            frozen: Holds::default(),
            daemon_id,
            cgroups: hierarchy.support(),
            cgroup_version: hierarchy.version(),
            warnings: Default::default(),
            config,
        })
    }

    fn leave_host(&self) -> Result<()> {
        let networks = self.networks.tear_down();
        if self.config.cgroup_driver == cgroup::Driver::Systemd {
            // Slices are systemd's.
            return Ok(networks?);
        }
        let name = self.own_group();
        let group = match cgroup::Cgroup::open("/", name.trim_start_matches('/')) {
            Ok(group) => group.remove_within(std::time::Duration::ZERO),
            // No container was ever started.
            Err(_) => Ok(()),
        };
        networks?;
        Ok(group?)
    }

    /// The group that holds a container's processes.
    pub(crate) fn cgroup_of(&self, container: &Container) -> Result<cgroup::Cgroup> {
        Ok(self.place_of(container)?.open()?)
    }

    /// Where it is: a container that runs since before the daemon was told of another driver keeps its group.
    pub(crate) fn place_of(&self, container: &Container) -> Result<cgroup::Place> {
        let parent = &container.host_config.cgroup_parent;
        let there = |driver| {
            let place = self.place(driver, parent, &container.id).ok()?;
            place.open().is_ok().then_some(place)
        };
        match cgroup::Driver::ALL.into_iter().find_map(there) {
            Some(place) => Ok(place),
            None => self.next_place(parent, &container.id),
        }
    }

    /// Where the group of a container's next run will be.
    pub(crate) fn next_place(&self, parent: &str, id: &Id) -> Result<cgroup::Place> {
        self.place(self.config.cgroup_driver, parent, id)
    }

    /// The group that only this daemon's containers are in, where it makes the groups itself.
    fn own_group(&self) -> String {
        let below = self.config.cgroup_parent.trim_matches('/');
        let own = self.config.instance.cgroup_parent();
        match below {
            "" => own,
            below => format!("/{below}{own}"),
        }
    }

    fn place(&self, driver: cgroup::Driver, parent: &str, id: &Id) -> Result<cgroup::Place> {
        let own = &self.config.instance;
        match driver {
            cgroup::Driver::Cgroupfs => {
                let parent = match parent {
                    "" => self.own_group(),
                    parent => format!("/{}", parent.trim_matches('/')),
                };
                Ok(cgroup::Place::new(driver, &parent, id.as_str()))
            }
            cgroup::Driver::Systemd => {
                let parent = match parent {
                    "" => &self.config.cgroup_parent,
                    parent => parent,
                };
                check_slice(parent)?;
                let path = format!("{parent}:{}:{id}", own.tag);
                Ok(cgroup::Place::from(&cgroup::Unit::from_path(
                    Some(&path),
                    id.as_str(),
                )?))
            }
        }
    }

    /// Containers of which a group is there, in the places where groups of no special wish are made.
    pub(crate) fn groups(&self) -> Result<BTreeSet<Id>> {
        let own = &self.config.instance;
        let scopes = self.next_place("", &Id::random())?;
        let names = cgroup::Cgroup::children(scopes.parent())?;
        let id = |name: &String| match scopes.driver() {
            cgroup::Driver::Cgroupfs => name.parse().ok(),
            cgroup::Driver::Systemd => {
                let name = name.strip_prefix(&format!("{}-", own.tag))?;
                name.strip_suffix(".scope")?.parse().ok()
            }
        };
        Ok(names.iter().filter_map(id).collect())
    }
}

/// What `--cgroup-parent` of the daemon may be.
pub fn check_cgroup_parent(driver: cgroup::Driver, parent: &str) -> Result<()> {
    if driver == cgroup::Driver::Systemd {
        return check_slice(parent);
    }
    match parent.split('/').any(|part| matches!(part, "." | "..")) || parent.contains('\0') {
        true => Err(Error::invalid(format!(
            "cgroup-parent should be the path of a control group without \".\" and \"..\" (it is {parent:?})"
        ))),
        false => Ok(()),
    }
}

/// What it may be where systemd makes the groups.
pub(crate) fn check_slice(parent: &str) -> Result<()> {
    if parent.is_empty() || (parent.len() > ".slice".len() && parent.ends_with(".slice")) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\" (it is {parent:?})"
    )))
}

fn remove_if_there(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::internal(format!(
            "cannot remove {}: {error}",
            directory.display()
        ))),
        _ => Ok(()),
    }
}

/// Creates a directory that only root may enter.
pub(crate) fn make_private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o710)
        .create(path)
        .map_err(|error| Error::internal(format!("cannot create {}: {error}", path.display())))
}

/// The daemon's identity: made once, kept in the root.
fn daemon_id(root: &Path) -> Result<String> {
    let path = root.join("engine-id");
    if let Ok(id) = std::fs::read_to_string(&path) {
        return Ok(id.trim().to_owned());
    }
    let random = spec::Id::random();
    let hex = random.as_str();
    let id = format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..32]
    );
    std::fs::write(&path, &id)?;
    Ok(id)
}
