//! Bringing a container up: everything a start prepares, in order, and its undoing when a step fails.
//!
//! endpoints → files → mounts → bundle → monitor. The monitor answers when the process runs or has failed to;
//! the engine then follows its events. All of it is blocking and runs on the pool.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api_types::{EndpointSettings, PortMap};
use jiff::Timestamp;
use monitor::client::Standing;
use monitor::protocol::{Launch, Took};
use network::{DnsConfig, Endpoint, EndpointRequest, Sandbox, SandboxRequest};
use spec::runtime::NamespaceType;

use super::attach::PendingAttach;
use super::links::{self, Link};
use super::supervision::Supervision;
use super::{Container, Files, files, logs, mounts, oci, ports, security, user, userns};
use crate::cdi;
use crate::engine::{Inner, blocking};
use crate::error::{Error, Result};
use crate::selinux;

/// What the start of a container found out.
pub(super) struct Launched {
    pub(super) started_at: Timestamp,
    pid: i32,
    files: Files,
    networks: BTreeMap<String, EndpointSettings>,
    ports: PortMap,
    sandbox_id: String,
    apparmor: String,
    phases: Vec<(&'static str, Duration)>,
}

impl Launched {
    /// Writes it into the container.
    pub(super) fn record(self, container: &mut Container) {
        container.state.pid = self.pid;
        container.files = self.files;
        container.networks = self.networks;
        container.ports = Arc::new(self.ports);
        container.sandbox_id = self.sandbox_id;
        container.apparmor_profile = self.apparmor;
        container.start_phases = self.phases;
        container.state.started_at = Some(self.started_at);
    }
}

/// What a monitor leaves for whoever comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Records {
    /// How the container ended.
    Exit,
    /// Nothing: the container ends with the daemon that started it.
    Nothing,
}

/// Starts the container's process under its monitor: under one that stands for it, or one that is started.
pub(super) async fn launch(
    engine: &Arc<Inner>,
    container: &Container,
    attaching: Vec<PendingAttach>,
    records: Records,
    standing: Option<Standing>,
) -> Result<(Launched, Supervision)> {
    let (inner, owned) = (Arc::clone(engine), container.clone());
    let (launched, monitor, watch) = blocking(move || {
        // A monitor that answered has done so itself, and there is nothing to clear.
        launch_blocking(&inner, &owned, attaching, records, standing)
            .inspect_err(|_| clear_after_monitor(&inner, &owned))
    })
    .await?;
    Ok((launched, Supervision::new(monitor, watch)?))
}

/// Lets the monitor of a container that has ended leave; if it has died, what it left goes.
pub(super) async fn release(
    engine: &Arc<Inner>,
    container: &Container,
    monitor: Arc<monitor::client::Monitor>,
) {
    let (engine, container) = (Arc::clone(engine), container.clone());
    let released = move || {
        if monitor.release().is_err() {
            clear_after_monitor(&engine, &container);
        }
    };
    // Nothing in there panics, and there is nobody to tell.
    let _ = tokio::task::spawn_blocking(released).await;
}

/// Takes away what a monitor that died could not: its container's processes, their control group, its socket.
pub(crate) fn clear_after_monitor(engine: &Inner, container: &Container) {
    let failed = |error: String| {
        tracing::error!(container = %container.id, error, "could not clear up after the container's monitor");
    };
    let removed = engine
        .place_of(container)
        .and_then(|place| place.remove().map_err(Error::from));
    if let Err(error) = removed {
        failed(error.message);
    }
    if let Err(error) = monitor::client::Monitor::forget(&engine.config.run_dir, container.id.as_str()) {
        failed(error.to_string());
    }
}

/// Detaches the endpoints again unless the start succeeds.
struct Attached<'a> {
    engine: &'a Inner,
    container: &'a Container,
    armed: bool,
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = self.engine.networks.detach(&self.container.id)
        {
            tracing::warn!(container = %self.container.id, %error, "could not take back a container's endpoints");
        }
    }
}

fn launch_blocking(
    engine: &Inner,
    container: &Container,
    attaching: Vec<PendingAttach>,
    records: Records,
    standing: Option<Standing>,
) -> Result<(Launched, monitor::client::Monitor, std::os::unix::net::UnixStream)> {
    let host = &container.host_config;
    let mut phases = Phases::begin(engine);
    // Left by the last run; a monitor must not be taken for one that has ended already.
    remove_if_there(&container.files.dir.join("exit.json"))?;
    let mut attached = Attached {
        engine,
        container,
        armed: false,
    };
    let links = links::resolve(engine, container)?;
    let mut user_namespace = userns::prepare(engine, container)?;
    let sandbox = match container.has_endpoints() {
        true => {
            let request = sandbox_request(engine, container)?;
            attached.armed = true;
            let owned = user_namespace.as_mut().and_then(|made| made.network.take());
            let begun = Instant::now();
            let sandbox = engine.networks.attach_in(&request, owned)?;
            engine.metrics.network_action("allocate", begun);
            Some(sandbox)
        }
        false => None,
    };
    phases.end("network");
    let files = Files {
        log: logs::shown_path(container),
        ..write_files(engine, container, sandbox.as_ref(), &links)?
    };
    label_files(container, &files)?;
    let overlay = sys::mount::Overlay {
        // What goes with the container, or is the builder's, is nothing after a crash of the machine: its end need not wait
        // for the disk.
        volatile: host.auto_remove || records == Records::Nothing,
        ..engine.store.snapshots().overlay(container.snapshot)?
    };
    let identity = {
        let mut readable = overlay.clone();
        readable.lower.splice(0..0, readable.upper.take());
        readable.work = None;
        readable.read_only = true;
        let root = readable.mount_detached()?;
        user::resolve(root.as_fd(), &container.config.user, &host.group_add)?
    };
    let maps = user_namespace.as_ref().map(|made| &made.maps);
    if let Some(maps) = maps {
        let groups = identity.groups.iter().copied();
        maps.check(identity.uid, std::iter::once(identity.gid).chain(groups))?;
    }
    let mut all_mounts = files::mounts(container, &files, maps.is_some());
    let user = (identity.uid, identity.gid);
    all_mounts.extend(mounts::bundle(engine, container, maps, user)?);
    let (joined, shared) = joined_namespaces(engine, container)?;
    all_mounts.extend(shared);
    let apparmor = security::profile(engine, host)?;
    let cgroup = engine.next_place(&host.cgroup_parent, &container.id)?;
    let mut document = oci::document(
        container,
        oci::Prepared {
            identity,
            hostname: container.config.hostname.clone(),
            links: links.variables,
            mounts: all_mounts,
            joined,
            userns: maps.cloned(),
            apparmor: apparmor.clone(),
            cgroups_path: format!("{}/{}", cgroup.parent().trim_end_matches('/'), cgroup.name()),
            rootfs: container.files.dir.join("rootfs"),
        },
    )?;
    let named: Vec<String> = host
        .device_requests
        .iter()
        .flat_map(|request| request.device_ids.to_vec())
        .collect();
    if !named.is_empty() {
        let registry = cdi::Registry::read(&engine.config.cdi_spec_dirs);
        cdi::apply(&mut document, &registry.edits(&named)?)?;
    }
    let bundle = &container.files.dir;
    std::fs::write(bundle.join("config.json"), serde_json::to_vec(&document)?).map_err(|error| {
        Error::internal(format!("cannot write {}/config.json: {error}", bundle.display()))
    })?;
    phases.end("configuration");
    let size = host.console_size;
    let console_size = (size.height() > 0)
        .then(|| {
            Some((
                u16::try_from(size.height()).ok()?,
                u16::try_from(size.width()).ok()?,
            ))
        })
        .flatten();
    let served = sandbox
        .iter()
        .map(|sandbox| &sandbox.served)
        .flat_map(|served| served.sockets.iter().map(move |socket| (served, socket)));
    let launch = Launch {
        id: container.id.to_string(),
        bundle: bundle.clone(),
        rootfs: overlay,
        run_dir: engine.config.run_dir.clone(),
        exit_file: bundle.join("exit.json"),
        records_exit: records == Records::Exit,
        log: logs::config(container, engine.images.ids())?,
        tty: container.config.tty,
        open_stdin: container.config.open_stdin,
        stdin_once: container.config.stdin_once,
        cgroup,
        console_size,
        init: host.init.unwrap_or(false),
        has_userns: user_namespace.is_some(),
        has_dns: sandbox.as_ref().is_some_and(|s| s.dns.is_some()),
        dns: sandbox.as_ref().and_then(|s| s.dns_config.clone()),
        seccomp_cache: Some(engine.config.run_dir.join("seccomp")),
        attach: attaching.iter().map(|a| a.streams).collect(),
        relay: served
            .clone()
            .filter_map(|(served, (place, _))| served.ports.get(*place).cloned())
            .collect(),
    };
    let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
    if let Some(sandbox) = &sandbox {
        descriptors.push(sandbox.netns.as_fd());
    }
    descriptors.extend(user_namespace.as_ref().map(|made| made.user.as_fd()));
    if let Some(dns) = sandbox.as_ref().and_then(|sandbox| sandbox.dns.as_ref()) {
        descriptors.extend([dns.udp.as_fd(), dns.tcp.as_fd()]);
    }
    descriptors.extend(attaching.iter().map(|a| a.socket.as_fd()));
    descriptors.extend(served.map(|(_, (_, socket))| socket.as_fd()));
    let (monitor, started) = match standing.filter(Standing::is_there) {
        Some(standing) => standing.launch(&engine.program, &launch, &descriptors)?,
        None => monitor::client::Monitor::launch(&engine.program, &launch, &descriptors)?,
    };
    let watch = monitor.watch()?;
    phases.end_process(started.took);
    attached.armed = false;
    let mut networks = container.networks.clone();
    let mut published = PortMap::empty();
    if let Some(sandbox) = &sandbox {
        networks = filled_endpoints(&networks, &sandbox.endpoints);
        published = ports::published(container, &sandbox.ports);
    }
    let launched = Launched {
        started_at: started.started_at,
        pid: started.pid,
        files,
        networks,
        ports: published,
        sandbox_id: if sandbox.is_some() {
            container.id.to_string()
        } else {
            String::new()
        },
        apparmor,
        phases: phases.shown,
    };
    Ok((launched, monitor, watch))
}

/// Times the parts of a start, for the metrics and for whoever started the container.
struct Phases<'a> {
    engine: &'a Inner,
    begun: Instant,
    shown: Vec<(&'static str, Duration)>,
}

impl<'a> Phases<'a> {
    fn begin(engine: &'a Inner) -> Self {
        Self {
            engine,
            begun: Instant::now(),
            shown: Vec::new(),
        }
    }

    fn end(&mut self, name: &'static str) -> Duration {
        let before = self.begun;
        self.begun = self.engine.metrics.phase(name, before);
        let took = self.begun - before;
        self.shown.push((name, took));
        took
    }

    /// The monitor has told what it did; what is left of the time is its own start and end.
    fn end_process(&mut self, took: Took) {
        let whole = self.end("process");
        self.shown.pop();
        let parts = [
            ("control group", took.group),
            ("namespaces and mounts", took.container),
            ("exec", took.exec),
        ]
        .map(|(name, micros)| (name, Duration::from_micros(micros)));
        let told: Duration = parts.iter().map(|(_, took)| *took).sum();
        self.shown.push(("monitor", whole.saturating_sub(told)));
        self.shown.extend(parts);
    }
}

fn remove_if_there(path: &std::path::Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::internal(format!(
            "cannot remove {}: {error}",
            path.display()
        ))),
        _ => Ok(()),
    }
}

fn sandbox_request(engine: &Inner, container: &Container) -> Result<SandboxRequest> {
    let host = &container.host_config;
    let mode = &host.network_mode;
    // The network of the mode comes first: it is the one whose gateway is the default route.
    let mut endpoints = Vec::new();
    let by_mode = |name: &String| name == mode || engine.networks.get(mode).is_ok_and(|n| n.name == **name);
    for first in [true, false] {
        for (name, settings) in container
            .networks
            .iter()
            .filter(|(name, _)| by_mode(name) == first)
        {
            let mut request = endpoint_request(name, settings)?;
            if let Some(fixed) = container.fixed_macs.get(name).filter(|_| request.mac.is_none()) {
                request.mac = fixed.parse().ok();
            }
            endpoints.push(request);
        }
    }
    let address = |text: &String| {
        text.parse()
            .map_err(|_| Error::invalid(format!("invalid DNS server address: {text:?}")))
    };
    Ok(SandboxRequest {
        container: container.id.clone(),
        name: container.name.clone(),
        hostname: container.config.hostname.clone(),
        endpoints,
        ports: ports::requests(container)?,
        dns: DnsConfig {
            servers: host.dns.iter().map(address).collect::<Result<_>>()?,
            search: host.dns_search.to_vec(),
            options: host.dns_options.to_vec(),
        },
        sysctls: BTreeMap::new(),
    })
}

/// One endpoint as the network wants it.
pub(super) fn endpoint_request(network: &str, settings: &EndpointSettings) -> Result<EndpointRequest> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    fn optional<T: std::str::FromStr>(text: &str, what: &str) -> Result<Option<T>> {
        match text {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Error::invalid(format!("invalid {what}: {text}"))),
        }
    }
    Ok(EndpointRequest {
        network: network.to_owned(),
        ipv4: optional(&ipam.ipv4_address, "IPv4 address")?,
        ipv6: optional(&ipam.ipv6_address, "IPv6 address")?,
        mac: optional(&settings.mac_address, "MAC address")?,
        aliases: settings.aliases.to_vec(),
        links: settings.links.to_vec(),
        driver_opts: settings.driver_opts.as_map().clone(),
        gw_priority: settings.gw_priority,
    })
}

/// The container's settings with the addresses it was given.
fn filled_endpoints(
    asked: &BTreeMap<String, EndpointSettings>,
    endpoints: &[Endpoint],
) -> BTreeMap<String, EndpointSettings> {
    let mut filled = BTreeMap::new();
    for endpoint in endpoints {
        // The request may have named the network by its id.
        let key = [endpoint.network_name.as_str(), endpoint.network_id.as_str()];
        let mut settings = asked
            .iter()
            .find(|(name, _)| {
                key.contains(&name.as_str()) || endpoint.network_id.as_str().starts_with(name.as_str())
            })
            .map(|(_, settings)| settings.clone())
            .unwrap_or_default();
        fill_endpoint(&mut settings, endpoint);
        filled.insert(endpoint.network_name.clone(), settings);
    }
    filled
}

pub(super) fn fill_endpoint(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    let text = |address: Option<String>| address.unwrap_or_default();
    settings.network_id = endpoint.network_id.to_string();
    settings.endpoint_id = endpoint.endpoint_id.to_string();
    settings.mac_address = endpoint.mac.to_string();
    settings.ip_address = text(endpoint.ipv4.map(|a| a.to_string()));
    settings.ip_prefix_len = i64::from(endpoint.ipv4.map_or(0, |_| endpoint.ipv4_prefix));
    settings.gateway = text(endpoint.gateway.map(|a| a.to_string()));
    settings.global_ipv6_address = text(endpoint.ipv6.map(|a| a.to_string()));
    settings.global_ipv6_prefix_len = i64::from(endpoint.ipv6.map_or(0, |_| endpoint.ipv6_prefix));
    settings.ipv6_gateway = text(endpoint.ipv6_gateway.map(|a| a.to_string()));
    settings.dns_names = match endpoint.dns_names.is_empty() {
        true => api_types::List::null(),
        false => endpoint.dns_names.clone().into(),
    };
}

/// Takes back the addresses of a container that no longer runs; what was asked for stays.
pub(super) fn clear_endpoint(settings: &mut EndpointSettings) {
    *settings = EndpointSettings {
        ipam_config: settings.ipam_config.take(),
        links: std::mem::take(&mut settings.links),
        aliases: std::mem::take(&mut settings.aliases),
        driver_opts: std::mem::take(&mut settings.driver_opts),
        gw_priority: settings.gw_priority,
        network_id: std::mem::take(&mut settings.network_id),
        dns_names: std::mem::take(&mut settings.dns_names),
        ..EndpointSettings::default()
    };
}

/// The engine's own files in the container get its label; those of a network that several share, one for all.
fn label_files(container: &Container, files: &Files) -> Result<()> {
    if container.mount_label.is_empty() {
        return Ok(());
    }
    let label = match container.host_config.network_mode.starts_with("container:") {
        true => selinux::shared(&container.mount_label),
        false => container.mount_label.clone(),
    };
    let all = [&files.hosts, &files.hostname, &files.resolv_conf];
    let there = all.into_iter().filter(|path| !path.is_empty());
    for path in there {
        selinux::relabel(std::path::Path::new(path), &label)?;
    }
    Ok(())
}

fn write_files(
    engine: &Inner,
    container: &Container,
    sandbox: Option<&Sandbox>,
    links: &Link,
) -> Result<Files> {
    let (host, config) = (&container.host_config, &container.config);
    if let Some(other) = host.network_mode.strip_prefix("container:") {
        // The names of the network belong to whoever owns it.
        let other = engine.containers.find(other)?.snapshot();
        return Ok(Files {
            dir: container.files.dir.clone(),
            ..other.files.clone()
        });
    }
    let gateway = match host.extra_hosts.iter().any(|h| h.ends_with("host-gateway")) {
        true => engine
            .networks
            .get("bridge")
            .ok()
            .and_then(|n| n.ipam.config.first().and_then(|p| p.gateway)),
        false => None,
    };
    let gateway = gateway.map(|g| g.to_string()).unwrap_or_default();
    let mut extra = host
        .extra_hosts
        .iter()
        .map(|h| files::extra_host(h, &gateway))
        .collect::<Result<Vec<_>>>()?;
    extra.extend_from_slice(&links.hosts);
    let (hosts, resolv_conf) = match sandbox {
        Some(sandbox) => {
            let full = match config.domainname.as_str() {
                "" => String::new(),
                domain => format!("{}.{domain}", config.hostname),
            };
            let addresses: Vec<String> = sandbox
                .endpoints
                .iter()
                .flat_map(|e| [e.ipv4.map(|a| a.to_string()), e.ipv6.map(|a| a.to_string())])
                .flatten()
                .collect();
            (
                files::hosts(&extra, &addresses, &[&full, &config.hostname]),
                sandbox.resolv_conf.clone(),
            )
        }
        None => {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let hosts = match host.network_mode.as_str() {
                "host" => {
                    let mut text = read("/etc/hosts");
                    extra
                        .iter()
                        .for_each(|(name, address)| text.push_str(&format!("{address}\t{name}\n")));
                    text
                }
                _ => files::hosts(&extra, &[], &[]),
            };
            (hosts, host_resolv_conf(host, read("/etc/resolv.conf")))
        }
    };
    files::write(&container.files.dir, &hosts, &config.hostname, &resolv_conf)
}

/// The host's resolver settings, changed by what the user asked for.
fn host_resolv_conf(host: &api_types::HostConfig, theirs: String) -> String {
    if host.dns.is_empty() && host.dns_search.is_empty() && host.dns_options.is_empty() {
        return theirs;
    }
    let keep = |word: &str, ours: &[String], line: fn(&[String]) -> Vec<String>| -> Vec<String> {
        match ours.is_empty() {
            true => theirs
                .lines()
                .filter(|l| l.starts_with(word))
                .map(str::to_owned)
                .collect(),
            false => line(ours),
        }
    };
    let mut lines = keep("nameserver", &host.dns, |v| {
        v.iter().map(|s| format!("nameserver {s}")).collect()
    });
    lines.extend(keep("search", &host.dns_search, |v| {
        vec![format!("search {}", v.join(" "))]
    }));
    lines.extend(keep("options", &host.dns_options, |v| {
        vec![format!("options {}", v.join(" "))]
    }));
    lines.join("\n") + "\n"
}

/// The namespaces of other containers this one joins, and the mounts it shares with them.
fn joined_namespaces(
    engine: &Inner,
    container: &Container,
) -> Result<(BTreeMap<NamespaceType, PathBuf>, Vec<spec::runtime::Mount>)> {
    let host = &container.host_config;
    let mut joined = BTreeMap::new();
    let mut shared = Vec::new();
    for (mode, kind) in [
        (&host.network_mode, NamespaceType::Network),
        (&host.pid_mode, NamespaceType::Pid),
        (&host.ipc_mode, NamespaceType::Ipc),
    ] {
        let Some(name) = mode.strip_prefix("container:") else {
            continue;
        };
        let other = engine.containers.find(name)?.snapshot();
        if !other.state.status.is_alive() {
            return Err(Error::conflict(format!(
                "cannot join {} namespace of a non running container: {}",
                kind.proc_name(),
                other.id
            )));
        }
        let theirs = other.host_config.ipc_mode.as_str();
        if kind == NamespaceType::Ipc && matches!(theirs, "private" | "none") {
            // What it says of itself holds for what others ask, too.
            return Err(Error::conflict(format!(
                "can not join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor \
                 container)",
                other.id
            )));
        }
        joined.insert(
            kind,
            PathBuf::from(format!("/proc/{}/ns/{}", other.state.pid, kind.proc_name())),
        );
        if kind == NamespaceType::Ipc {
            shared.push(spec::runtime::Mount {
                destination: "/dev/shm".into(),
                r#type: Some("bind".to_owned()),
                source: Some(format!("/proc/{}/root/dev/shm", other.state.pid)),
                options: ["rbind", "rprivate", "nosuid", "noexec", "nodev"]
                    .map(str::to_owned)
                    .to_vec(),
                ..spec::runtime::Mount::default()
            });
        }
    }
    Ok((joined, shared))
}

/// The network namespace of a running process.
pub(crate) fn netns_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    let file = std::fs::File::open(&path)
        .map_err(|error| Error::internal(format!("cannot open {path}: {error}")))?;
    Ok(file.into())
}

/// Takes back what a container that has ended holds of the network.
pub(super) async fn detach_networks(engine: &Arc<Inner>, container: &Container) {
    if !container.has_endpoints() {
        return;
    }
    let (inner, id) = (Arc::clone(engine), container.id.clone());
    let begun = Instant::now();
    match blocking(move || Ok(inner.networks.detach(&id)?)).await {
        Ok(()) => engine.metrics.network_action("release", begun),
        Err(error) => {
            tracing::error!(container = %container.id, %error, "could not take back a container's endpoints");
        }
    }
}
