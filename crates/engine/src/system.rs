//! The engine about itself: `info`, `version`, `system df`, `login`.

use std::sync::Arc;
use std::time::Instant;

use api_types::{
    AuthConfig, AuthResponse, Commit, ComponentVersion, Event, FirewallInfo, IndexInfo, List, Map,
    PlatformInfo, PluginsInfo, RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo, SystemVersion,
};
use tokio::sync::broadcast;

use crate::container::{Container, Sizes, sizes};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result, chain};
use crate::events::EventFilter;
use crate::{Status, container};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The newest Docker Engine API spoken.
pub const API_VERSION: &str = "1.53";
/// The oldest one.
pub const MIN_API_VERSION: &str = "1.40";
const HUB: &str = "https://index.docker.io/v1/";

/// Who takes how much disk.
pub struct DiskUsage {
    pub images: image::DiskUsage,
    pub containers: Vec<(Arc<Container>, Sizes)>,
    /// Volumes with their bytes and how many containers have them.
    pub volumes: Vec<(volume::Volume, u64, usize)>,
}

impl Engine {
    /// Past events that match the filter, and all that follow (unfiltered).
    pub fn events(&self, filter: &EventFilter) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        self.inner.events.subscribe(filter)
    }

    /// Publishes an event of the daemon or the builder.
    pub fn publish_event(
        &self,
        kind: &str,
        action: &str,
        id: &str,
        attributes: std::collections::BTreeMap<String, String>,
    ) {
        self.inner.events.publish(kind, action, id, attributes);
    }

    /// What `info` warns of from now on: how the daemon can be reached is for its owner to know.
    pub fn set_warnings(&self, warnings: Vec<String>) {
        *self
            .inner
            .warnings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = warnings;
    }

    /// The state of engine and host.
    pub async fn info(&self) -> Result<SystemInfo> {
        let inner = Arc::clone(&self.inner);
        let begun = Instant::now();
        let told = blocking(move || {
            let containers = inner.containers.snapshots();
            let count = |test: fn(Status) -> bool| {
                i64::try_from(containers.iter().filter(|c| test(c.state.status)).count()).unwrap_or(0)
            };
            let running = count(|s| matches!(s, Status::Running | Status::Restarting));
            let paused = count(|s| s == Status::Paused);
            let support = &inner.cgroups;
            let config = &inner.config;
            let live = inner.live();
            let uname = rustix::system::uname();
            let text = |c: &std::ffi::CStr| c.to_string_lossy().into_owned();
            let os = os_release();
            let words = |list: &[&str]| {
                list.iter()
                    .map(|w| (*w).to_owned())
                    .collect::<api_types::List<String>>()
            };
            let proxies = live.registry.proxies.masked();
            Ok(SystemInfo {
                id: inner.daemon_id.clone(),
                containers: i64::try_from(containers.len()).unwrap_or(0),
                containers_running: running,
                containers_paused: paused,
                containers_stopped: i64::try_from(containers.len()).unwrap_or(0) - running - paused,
                images: i64::try_from(inner.images.count()?).unwrap_or(0),
                driver: inner.store.snapshots().driver().to_owned(),
                driver_status: vec![[
                    "driver-type".to_owned(),
                    "io.containerd.snapshotter.v1".to_owned(),
                ]]
                .into(),
                plugins: PluginsInfo {
                    volume: std::iter::once(volume::LOCAL.to_owned())
                        .chain(inner.volumes.plugins())
                        .collect(),
                    network: words(&["bridge", "host", "null"]),
                    authorization: api_types::List::null(),
                    log: words(&monitor::log::Driver::ALL.map(monitor::log::Driver::name)),
                },
                memory_limit: support.memory,
                swap_limit: support.swap,
                cpu_cfs_period: support.cpu_quota,
                cpu_cfs_quota: support.cpu_quota,
                cpu_shares: support.cpu_shares,
                cpu_set: support.cpuset,
                pids_limit: support.pids,
                ipv4_forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward")
                    .is_ok_and(|t| t.trim() == "1"),
                debug: live.debug,
                n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |d| i64::try_from(d.count()).unwrap_or(0)),
                oom_kill_disable: support.oom_kill_disable,
                n_goroutines: i64::try_from(tokio::runtime::Handle::current().metrics().num_alive_tasks())
                    .unwrap_or(0),
                system_time: format!("{:.9}", jiff::Timestamp::now()),
                logging_driver: live.log_driver.clone(),
                cgroup_driver: inner.config.cgroup_driver.name().to_owned(),
                cgroup_version: match inner.cgroup_version {
                    cgroup::Version::V2 => "2".to_owned(),
                    _ => "1".to_owned(),
                },
                n_events_listener: i64::try_from(inner.events.followers()).unwrap_or(0),
                kernel_version: text(uname.release()),
                operating_system: os.0,
                os_version: os.1,
                os_type: "linux".to_owned(),
                architecture: text(uname.machine()),
                index_server_address: HUB.to_owned(),
                registry_config: registry_config(&live.registry.mirrors, &live.registry.insecure),
                ncpu: processors(),
                mem_total: i64::try_from(container::total_memory()).unwrap_or(i64::MAX),
                docker_root_dir: config.root.to_string_lossy().into_owned(),
                http_proxy: proxies.http,
                https_proxy: proxies.https,
                no_proxy: proxies.none,
                name: text(uname.nodename()),
                labels: live.labels.clone().into(),
                experimental_build: false,
                server_version: VERSION.to_owned(),
                runtimes: [(
                    "berth".to_owned(),
                    Runtime {
                        path: "berth".to_owned(),
                        ..Runtime::default()
                    },
                )]
                .into(),
                default_runtime: "berth".to_owned(),
                swarm: SwarmInfo {
                    local_node_state: "inactive".to_owned(),
                    ..SwarmInfo::default()
                },
                cdi_spec_dirs: inner
                    .config
                    .cdi_spec_dirs
                    .iter()
                    .map(|dir| dir.display().to_string())
                    .collect(),
                discovered_devices: crate::cdi::Registry::read(&inner.config.cdi_spec_dirs)
                    .names()
                    .map(|name| serde_json::json!({ "Source": "cdi", "ID": name }))
                    .collect(),
                live_restore_enabled: true,
                init_binary: "docker-init".to_owned(),
                containerd_commit: Commit::default(),
                runc_commit: Commit::default(),
                init_commit: Commit::default(),
                security_options: security_options(&inner),
                firewall_backend: Some(FirewallInfo {
                    driver: "nftables".to_owned(),
                    ..FirewallInfo::default()
                }),
                warnings: inner.warnings(),
                ..SystemInfo::default()
            })
        })
        .await?;
        self.inner.metrics.host_info("system_info", begun);
        Ok(told)
    }

    /// Versions of the engine and what it speaks.
    pub fn version(&self) -> SystemVersion {
        let uname = rustix::system::uname();
        let kernel = uname.release().to_string_lossy().into_owned();
        let arch = spec::Platform::host().architecture;
        let details = [
            ("ApiVersion", API_VERSION),
            ("MinAPIVersion", MIN_API_VERSION),
            ("Arch", arch.as_str()),
            ("Os", "linux"),
            ("KernelVersion", kernel.as_str()),
            ("Experimental", "false"),
        ];
        let details: Map<String> = details
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        SystemVersion {
            platform: PlatformInfo {
                name: "Berth".to_owned(),
            },
            version: VERSION.to_owned(),
            api_version: API_VERSION.to_owned(),
            min_api_version: MIN_API_VERSION.to_owned(),
            os: "linux".to_owned(),
            arch,
            components: vec![ComponentVersion {
                name: "Engine".to_owned(),
                version: VERSION.to_owned(),
                details,
            }],
            kernel_version: kernel,
            ..SystemVersion::default()
        }
    }

    /// Who takes how much disk.
    pub async fn disk_usage(&self) -> Result<DiskUsage> {
        let inner = Arc::clone(&self.inner);
        let (images, containers) = blocking(move || {
            let images = inner.images.disk_usage()?;
            let all = inner.containers.snapshots();
            let sized = all
                .into_iter()
                .map(|c| sizes(&inner, &c).map(|s| (c, s)))
                .collect::<Result<Vec<_>>>()?;
            Ok((images, sized))
        })
        .await?;
        let mut volumes = Vec::new();
        for volume in self.volume_list(&crate::Filters::new()).await? {
            let size = self.volume_size(&volume).await;
            let users = self.volume_users(&volume.name);
            volumes.push((volume, size, users));
        }
        Ok(DiskUsage {
            images,
            containers,
            volumes,
        })
    }

    /// Tries credentials at a registry.
    pub async fn auth_check(&self, auth: AuthConfig) -> Result<AuthResponse> {
        let server = if auth.serveraddress.is_empty() {
            HUB
        } else {
            &auth.serveraddress
        };
        let login = match auth.identitytoken.as_str() {
            "" => registry::Auth::Basic {
                user: auth.username.clone(),
                password: auth.password.clone(),
            },
            token => registry::Auth::Identity(token.to_owned()),
        };
        let result = self.inner.images.registry().check_login(server, &login).await;
        let result = result.map_err(|error| Error::new(error.class(), chain(&error)))?;
        Ok(AuthResponse {
            status: "Login Succeeded".to_owned(),
            identity_token: result.identity_token.unwrap_or_default(),
        })
    }
}

impl Inner {
    /// Null where there is nothing to warn of.
    fn warnings(&self) -> api_types::List<String> {
        let warnings = self
            .warnings
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match warnings.is_empty() {
            true => api_types::List::null(),
            false => warnings.iter().cloned().collect(),
        }
    }
}

/// What confines every container, in Docker's words.
fn security_options(inner: &Inner) -> List<String> {
    let options = [
        (inner.apparmor.is_on(), "name=apparmor"),
        (true, "name=seccomp,profile=builtin"),
        (inner.selinux.is_on(), "name=selinux"),
        (inner.config.userns.remap.is_some(), "name=userns"),
        (true, "name=cgroupns"),
    ];
    let present = options.into_iter().filter(|(there, _)| *there);
    present.map(|(_, word)| word.to_owned()).collect()
}

fn registry_config(mirrors: &[String], insecure: &[String]) -> RegistryServiceConfig {
    let hub = IndexInfo {
        name: "docker.io".to_owned(),
        mirrors: mirrors.to_vec().into(),
        secure: true,
        official: true,
    };
    let mut indexes = Map::from([("docker.io".to_owned(), hub)]);
    let (ranges, hosts): (Vec<&String>, Vec<&String>) = insecure.iter().partition(|i| i.contains('/'));
    for host in hosts {
        let index = IndexInfo {
            name: host.clone(),
            mirrors: api_types::List::empty(),
            secure: false,
            official: false,
        };
        indexes.insert(host.clone(), index);
    }
    let cidrs = ["::1/128".to_owned(), "127.0.0.0/8".to_owned()]
        .into_iter()
        .chain(ranges.into_iter().cloned());
    RegistryServiceConfig {
        insecure_registry_cidrs: cidrs.collect(),
        index_configs: indexes,
        mirrors: mirrors.to_vec().into(),
    }
}

/// Processors that the daemon may use.
pub(crate) fn processors() -> i64 {
    std::thread::available_parallelism().map_or(1, |number| i64::try_from(number.get()).unwrap_or(i64::MAX))
}

/// Name and version of the host's distribution (os-release(5)).
pub(crate) fn os_release() -> (String, String) {
    let text = std::fs::read_to_string("/etc/os-release")
        .or_else(|_| std::fs::read_to_string("/usr/lib/os-release"))
        .unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        line.map(|v| v.trim_matches('"').to_owned()).unwrap_or_default()
    };
    let name = match value("PRETTY_NAME") {
        name if name.is_empty() => "Linux".to_owned(),
        name => name,
    };
    (name, value("VERSION_ID"))
}
