//! Making a container: everything is checked before anything is made, and what was made is taken back when a
//! later step fails.

use std::sync::Arc;

use api_types::{ContainerConfig, EndpointSettings, HostConfig, List, NetworkingConfig};
use image::Image;
use jiff::Timestamp;
use spec::{Id, Platform};

use super::{
    Container, Files, Handle, State, Status, clocks, defaults, files, health, init_layer, logs, mounts, oci,
    ports, restart, security, userns as container_userns,
};
use crate::engine::{Engine, Inner, blocking, check_slice, make_private_dir};
use crate::error::{Error, Result};
use crate::volumes::claims::Wanted;
use crate::{names, selinux, userns};

/// A request for a new container.
#[derive(Debug, Clone, Default)]
pub struct CreateContainer {
    /// Without a slash; a random one if absent.
    pub name: Option<String>,
    pub platform: Option<Platform>,
    pub config: ContainerConfig,
    pub host_config: HostConfig,
    pub networking: Option<NetworkingConfig>,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Created {
    pub id: Id,
    /// Things the user should know, such as a limit this kernel can't set.
    pub warnings: Vec<String>,
}

/// The smallest memory limit a process can start under.
const MIN_MEMORY: i64 = 6 << 20;

impl Engine {
    /// Creates a container from an image that is present.
    pub async fn container_create(&self, request: CreateContainer) -> Result<Created> {
        let inner = Arc::clone(&self.inner);
        let watch = self.inner.metrics.watch("create");
        let (container, wanted, warnings) = watch.done(blocking(move || create(&inner, request)).await)?;
        let created = Created {
            id: container.id.clone(),
            warnings,
        };
        let attributes = container.attributes();
        let name = container.name.clone();
        let handle: Handle = super::adopt(&self.inner, container, None);
        self.inner.containers.insert(created.id.clone(), name, handle);
        // From here on whoever looks for users of its volumes finds it.
        drop(wanted);
        self.inner
            .events
            .publish("container", "create", created.id.as_str(), attributes);
        Ok(created)
    }
}

fn create(inner: &Inner, mut request: CreateContainer) -> Result<(Container, Wanted, Vec<String>)> {
    let mut warnings = Vec::new();
    let mode = userns::Mode::parse(&request.host_config.userns_mode)?;
    validate(inner, &mut request, &mut warnings)?;
    container_userns::check(inner, &request.host_config, &mode)?;
    if let userns::Mode::KeepId { uid, gid } = mode
        && request.config.user.is_empty()
    {
        // Whom the ids were kept for.
        request.config.user = format!("{uid}:{gid}");
    }
    let image = inner
        .images
        .resolve_platform(&request.config.image, request.platform.as_ref())?;
    check_architecture(&image, request.platform.as_ref(), &mut warnings);
    let image_volumes: Vec<String> = image.config.config.volumes.keys().cloned().collect();
    merge_image(&mut request.config, &image);
    let (path, args) = command(&request.config)?;
    let id = Id::random();
    if request.config.hostname.is_empty() && request.host_config.uts_mode != "host" {
        request.config.hostname = id.short().to_owned();
    }
    let plan = mounts::plan(inner, &request, &image_volumes)?;
    let name = reserve_name(inner, request.name.as_deref(), &id)?;
    let mut undo = Undo {
        inner,
        id: &id,
        name: &name,
        snapshot: None,
        volumes: Vec::new(),
        armed: true,
    };
    let ids = inner.ids.take(&inner.config.userns, &id, &mode)?;
    let labels = security::labels(inner, &id, &mut request.host_config, &mut warnings)?;
    let parent = inner.images.snapshot(&image)?;
    let lease = inner.store.lease();
    let snapshot = inner.store.snapshots().create(
        Some(init_layer::on_top_of(inner, parent, &lease)?),
        &format!("container:{id}"),
    )?;
    undo.snapshot = Some(snapshot);
    if !labels.files.is_empty()
        && let Some((directory, _)) = inner.store.snapshots().overlay(snapshot)?.single()
    {
        // Without a union there is no mount of its own that could say so for all files.
        selinux::relabel(directory, &labels.files)?;
    }
    let image_root = || Ok(inner.store.snapshots().overlay(parent)?.mount_detached()?);
    // After what takes back: by then nothing is wanted any more.
    let mut wanted = inner.volume_claims.of(&id);
    // Whatever ids the other container has.
    let translated = mode.is_private(&inner.config.userns) || matches!(mode, userns::Mode::Container(_));
    let plan = plan.carry_out(
        inner,
        &image_root,
        &labels.files,
        translated,
        &mut undo.volumes,
        &mut wanted,
    )?;
    let dir = inner.config.root.join("containers").join(id.as_str());
    make_private_dir(&dir)?;
    let host = &mut request.host_config;
    fill_defaults(inner, host);
    let networks = networks(inner, host, request.networking.as_ref(), &mut request.config)?;
    let fixed_macs = networks
        .iter()
        .filter(|(_, settings)| !settings.mac_address.is_empty())
        .map(|(name, settings)| (name.clone(), settings.mac_address.clone()))
        .collect();
    let apparmor_profile = security::profile(inner, &request.host_config)?;
    let points = mounts::points(inner, &plan);
    let container = Container {
        created: Timestamp::now(),
        path,
        args,
        image: request.config.image.clone(),
        image_id: image.id.clone(),
        image_config: Some(image.config_digest.clone()),
        manifest: Some(image.manifest_descriptor.clone()),
        platform: image.platform.clone(),
        config: Arc::new(request.config),
        host_config: Arc::new(request.host_config),
        state: State {
            status: Status::Created,
            pid: 0,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            started_at: None,
            finished_at: None,
            health: None,
        },
        restart_count: 0,
        networks,
        fixed_macs,
        ports: Arc::new(api_types::PortMap::empty()),
        mounts: points,
        exec_ids: Vec::new(),
        silent_since: None,
        sandbox_id: String::new(),
        files: Files {
            dir,
            ..Files::default()
        },
        snapshot,
        userns: ids,
        process_label: labels.process,
        mount_label: labels.files,
        apparmor_profile,
        exits: 0,
        removed: false,
        plan,
        stopped_by_hand: false,
        start_phases: Vec::new(),
        removing_volumes: false,
        folded: None,
        unsettled: None,
        name: name.clone(),
        id: id.clone(),
    };
    // The bundle is not written before the start, but what can't become one is refused now.
    oci::check(&container)?;
    inner
        .records
        .insert(&container, |tx| inner.volumes.settle(tx, &undo.volumes))?;
    undo.armed = false;
    Ok((container, wanted, warnings))
}

/// Takes back what a failed creation made.
struct Undo<'a> {
    inner: &'a Inner,
    id: &'a Id,
    name: &'a str,
    snapshot: Option<store::SnapshotId>,
    volumes: Vec<String>,
    armed: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.inner.containers.release_name(self.name);
        self.inner.ids.give_back(self.id);
        self.inner.selinux.give_back(self.id);
        // The first failure is the one to tell; what can't be removed now is removed at the next start.
        if let Some(snapshot) = self.snapshot {
            let _ = self.inner.store.snapshots().remove(snapshot);
        }
        for volume in &self.volumes {
            crate::volumes::remove_with(self.inner, &self.inner.volumes, volume, self.id, true);
        }
        let _ = std::fs::remove_dir_all(self.inner.config.root.join("containers").join(self.id.as_str()));
    }
}

fn reserve_name(inner: &Inner, wanted: Option<&str>, id: &Id) -> Result<String> {
    if let Some(wanted) = wanted.filter(|name| !name.is_empty()) {
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if !names::is_valid(name) {
            return Err(Error::invalid(format!(
                "Invalid container name ({wanted}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        inner.containers.reserve_name(name, id)?;
        return Ok(name.to_owned());
    }
    for attempt in 0..100 {
        let name = names::random(attempt / 4);
        if inner.containers.reserve_name(&name, id).is_ok() {
            return Ok(name);
        }
    }
    let name = id.short().to_owned();
    inner.containers.reserve_name(&name, id)?;
    Ok(name)
}

fn check_architecture(image: &Image, wanted: Option<&Platform>, warnings: &mut Vec<String>) {
    let host = Platform::host();
    if wanted.is_none() && host.preference(&image.platform).is_none() {
        warnings.push(format!(
            "The requested image's platform ({}) does not match the detected host platform ({host}) and no specific \
             platform was requested",
            image.platform
        ));
    }
}

/// What the image says where the user says nothing.
fn merge_image(config: &mut ContainerConfig, image: &Image) {
    let settings = &image.config.config;
    if config.user.is_empty() {
        config.user.clone_from(&settings.user);
    }
    for port in settings.exposed_ports.keys() {
        config.exposed_ports.insert(port, api_types::Empty {});
    }
    let named = |list: &[String], entry: &str| {
        let name = entry.split('=').next();
        list.iter().any(|e| e.split('=').next() == name)
    };
    for entry in &settings.env {
        if !named(&config.env, entry) {
            config.env.push(entry.clone());
        }
    }
    if config.entrypoint.is_empty() {
        // The image's command belongs to its entrypoint: another entrypoint starts without it.
        if config.cmd.is_empty() {
            config.cmd = settings.cmd.clone().into();
        }
        if config.entrypoint.is_null() {
            config.entrypoint = settings.entrypoint.clone().into();
        }
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&settings.working_dir);
    }
    for (key, value) in &settings.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    config.labels = std::mem::take(&mut config.labels).or_empty();
    if config.stop_signal.is_empty() {
        config.stop_signal = settings.stop_signal.clone().unwrap_or_default();
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = settings.stop_timeout;
    }
    if config.shell.is_empty() {
        config.shell = settings.shell.clone().into();
    }
    if let Some(theirs) = &settings.healthcheck {
        let ours = config.healthcheck.get_or_insert_with(Default::default);
        let or = |mine: &mut i64, image: i64| {
            if *mine == 0 {
                *mine = image;
            }
        };
        if ours.test.is_empty() {
            ours.test = theirs.test.clone().into();
        }
        or(&mut ours.interval, theirs.interval);
        or(&mut ours.timeout, theirs.timeout);
        or(&mut ours.start_period, theirs.start_period);
        or(&mut ours.start_interval, theirs.start_interval);
        or(&mut ours.retries, theirs.retries);
    }
}

/// Entrypoint and command as one command line. An entrypoint of one empty word is none.
fn command(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let entrypoint = match config.entrypoint.as_slice() {
        [one] if one.is_empty() => &[],
        words => words,
    };
    let mut words = entrypoint.iter().chain(config.cmd.iter()).cloned();
    match words.next() {
        Some(path) => Ok((path, words.collect())),
        None => Err(Error::invalid("no command specified")),
    }
}

fn fill_defaults(inner: &Inner, host: &mut HostConfig) {
    let or = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    or(&mut host.ipc_mode, "private");
    or(
        &mut host.cgroupns_mode,
        if host.privileged { "host" } else { "private" },
    );
    or(&mut host.runtime, "berth");
    or(&mut host.restart_policy.name, "no");
    or(&mut host.network_mode, "bridge");
    if host.network_mode == "default" {
        "bridge".clone_into(&mut host.network_mode);
    }
    if host.shm_size == 0 {
        host.shm_size = defaults::SHM_SIZE;
    }
    if host.memory > 0 && host.memory_swap == 0 {
        // As much swap as memory.
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.oom_kill_disable.is_none() {
        host.oom_kill_disable = Some(false);
    }
    if host.masked_paths.is_null() {
        let hidden = match host.privileged {
            true => Vec::new(),
            false => defaults::masked_paths(),
        };
        host.masked_paths = hidden.into();
    }
    if host.readonly_paths.is_null() {
        let fixed = if host.privileged {
            &[][..]
        } else {
            &defaults::READONLY_PATHS[..]
        };
        host.readonly_paths = fixed.iter().map(|p| (*p).to_owned()).collect();
    }
    if inner.live().init && host.init.is_none() {
        host.init = Some(true);
    }
    host.port_bindings = std::mem::take(&mut host.port_bindings).or_empty();
}

/// The endpoints the container will have, by the network's name as the user wrote it.
fn networks(
    inner: &Inner,
    host: &HostConfig,
    networking: Option<&NetworkingConfig>,
    config: &mut ContainerConfig,
) -> Result<std::collections::BTreeMap<String, EndpointSettings>> {
    let mut networks = std::collections::BTreeMap::new();
    let mode = host.network_mode.as_str();
    if let Some(other) = mode.strip_prefix("container:") {
        inner.containers.find(other).map_err(asked_for)?;
        if !config.exposed_ports.is_empty() && !host.port_bindings.is_empty() {
            return Err(Error::invalid(
                "conflicting options: port publishing and the container type network mode",
            ));
        }
        return Ok(networks);
    }
    for (name, settings) in networking.iter().flat_map(|n| &n.endpoints_config) {
        let mut settings = settings.clone().unwrap_or_default();
        settings.aliases = if settings.aliases.is_empty() {
            List::null()
        } else {
            settings.aliases
        };
        let name = if name == "default" { "bridge" } else { name };
        networks.insert(name.to_owned(), settings);
    }
    // The settings may name the mode's network by its id.
    let known = networks.contains_key(mode)
        || inner
            .networks
            .get(mode)
            .is_ok_and(|n| networks.contains_key(&n.name) || networks.contains_key(n.id.as_str()));
    if !known {
        networks.insert(mode.to_owned(), EndpointSettings::default());
    }
    if !config.mac_address.is_empty()
        && let Some(settings) = networks.get_mut(mode)
    {
        settings.mac_address = std::mem::take(&mut config.mac_address);
    }
    if networks.len() > 1 && networks.contains_key("host") {
        return Err(Error::invalid(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
        ));
    }
    Ok(networks)
}

/// Refuses what can never work, in Docker's words.
fn validate(inner: &Inner, request: &mut CreateContainer, warnings: &mut Vec<String>) -> Result<()> {
    let (config, host) = (&request.config, &mut request.host_config);
    restart::validate(&host.restart_policy)?;
    if host.auto_remove && !matches!(host.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::invalid(
            "can't create 'AutoRemove' container with restart policy",
        ));
    }
    validate_resources(inner, host, warnings)?;
    // The others are numbers and protocols.
    let spelled = config.exposed_ports.others().keys();
    for port in spelled.chain(host.port_bindings.others().keys()) {
        ports::parse(port)?;
    }
    for variable in &config.env {
        if variable.is_empty() || variable.starts_with('=') {
            return Err(Error::invalid(format!(
                "invalid environment variable: {variable}"
            )));
        }
    }
    if !config.stop_signal.is_empty() {
        crate::signal::parse(&config.stop_signal)?;
    }
    for extra in &host.extra_hosts {
        files::extra_host(extra, "0.0.0.0")?;
    }
    for server in &host.dns {
        server
            .parse::<std::net::IpAddr>()
            .map_err(|_| Error::invalid(format!("invalid DNS server address: {server:?}")))?;
    }
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return Err(Error::invalid("conflicting options: hostname and the UTS mode"));
    }
    if host.network_mode == "host" && (!host.port_bindings.is_empty() || host.publish_all_ports) {
        warnings.push("Published ports are discarded when using host network mode".to_owned());
    }
    if !matches!(
        host.runtime.as_str(),
        "" | "berth" | "runc" | "io.containerd.runc.v2"
    ) {
        return Err(Error::invalid(format!(
            "unknown or invalid runtime name: {}",
            host.runtime
        )));
    }
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!(
            "invalid isolation {:?}: this host offers default",
            host.isolation
        )));
    }
    for request in &host.device_requests {
        if request.driver != "cdi" {
            let wanted: Vec<String> = request.capabilities.iter().map(|set| set.join(" ")).collect();
            return Err(Error::invalid(format!(
                "could not select device driver {:?} with capabilities: [{}]: name devices as the files in {} describe \
                 them, --device vendor.com/class=name",
                request.driver,
                wanted.join(" or "),
                inner
                    .config
                    .cdi_spec_dirs
                    .iter()
                    .map(|dir| dir.display().to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            )));
        }
        if let Some(name) = request.device_ids.iter().find(|name| !crate::cdi::is_name(name)) {
            return Err(Error::invalid(format!(
                "invalid CDI device name {name:?}: use vendor.com/class=name"
            )));
        }
    }
    logs::complete(&mut host.log_config, &inner.live());
    logs::check(&host.log_config)?;
    validate_modes(inner, host)?;
    for (name, _) in &host.sysctls {
        let namespaced = ["net.", "fs.mqueue.", "kernel.msg", "kernel.sem", "kernel.shm"];
        if !namespaced.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(Error::invalid(format!(
                "sysctl '{name}' is not allowed: it is not of a namespace"
            )));
        }
    }
    validate_health(config)
}

/// A container that is missing among the settings is a mistake in them. "Not found" would make clients look for the image.
fn asked_for(missing: Error) -> Error {
    Error::invalid(missing.message)
}

fn validate_modes(inner: &Inner, host: &HostConfig) -> Result<()> {
    let other = |mode: &str, what: &str, known: &[&str]| -> Result<()> {
        match mode.strip_prefix("container:") {
            Some(name) if what != "UTS" && what != "cgroup namespace" => {
                inner.containers.find(name).map(|_| ()).map_err(asked_for)
            }
            _ if known.contains(&mode) => Ok(()),
            _ => Err(Error::invalid(format!("invalid {what} mode: {mode}"))),
        }
    };
    other(
        &host.ipc_mode,
        "IPC",
        &["", "none", "private", "shareable", "host"],
    )?;
    other(&host.pid_mode, "PID", &["", "host", "private"])?;
    other(&host.uts_mode, "UTS", &["", "host"])?;
    other(&host.cgroupns_mode, "cgroup namespace", &["", "host", "private"])?;
    clocks::offsets(host)?;
    match inner.config.cgroup_driver {
        cgroup::Driver::Systemd => check_slice(&host.cgroup_parent),
        cgroup::Driver::Cgroupfs => Ok(()),
    }
}

fn validate_resources(inner: &Inner, host: &mut HostConfig, warnings: &mut Vec<String>) -> Result<()> {
    if host.memory != 0 && host.memory < MIN_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if host.memory_swap > 0 && host.memory == 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if host.memory > 0 && host.memory_swap > 0 && host.memory_swap < host.memory {
        return Err(Error::invalid(
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ));
    }
    if host.memory > 0 && host.memory_reservation > host.memory {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if host.memory_reservation > 0 && host.memory_reservation < MIN_MEMORY {
        return Err(Error::invalid("Minimum memory reservation allowed is 6MB"));
    }
    if host.memory_swappiness.is_some_and(|n| !(-1..=100).contains(&n)) {
        return Err(Error::invalid(format!(
            "Invalid value: {}, valid memory swappiness range is 0-100",
            host.memory_swappiness.unwrap_or_default()
        )));
    }
    if host.nano_cpus != 0 && (host.cpu_quota != 0 || host.cpu_period != 0) {
        return Err(Error::invalid(
            "Conflicting options: Nano CPUs and CPU Period cannot both be set.",
        ));
    }
    let cpus =
        i64::try_from(std::thread::available_parallelism().map_or(1, std::num::NonZero::get)).unwrap_or(1);
    if host.nano_cpus < 0 || host.nano_cpus > cpus * 1_000_000_000 {
        return Err(Error::invalid(format!(
            "Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available"
        )));
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return Err(Error::invalid(
            "CPU cfs quota can not be less than 1ms (i.e. 1000)",
        ));
    }
    if host.cpu_shares < 0 {
        return Err(Error::invalid(format!(
            "invalid CPU shares ({}): value must be a positive integer",
            host.cpu_shares
        )));
    }
    if host.blkio_weight > 0 && !(10..=1000).contains(&host.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    let support = &inner.cgroups;
    if host.memory_swap != 0 && !support.swap {
        warnings.push("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.".to_owned());
        host.memory_swap = -1;
    }
    if host.pids_limit.is_some_and(|n| n > 0) && !support.pids {
        warnings.push("Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.".to_owned());
        host.pids_limit = None;
    }
    Ok(())
}

fn validate_health(config: &ContainerConfig) -> Result<()> {
    let Some(health) = &config.healthcheck else {
        return Ok(());
    };
    const SHORTEST: i64 = 1_000_000;
    for (name, value) in [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ] {
        if value != 0 && value < SHORTEST {
            return Err(Error::invalid(format!(
                "{name} in Healthcheck cannot be less than 1ms"
            )));
        }
    }
    if health.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    health::OnFailure::of(health).map(|_| ())
}
