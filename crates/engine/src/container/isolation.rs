//! What separates a running container from the host: read from the kernel (`process`), beside what was asked for
//! (the bundle and the container's settings).
//!
//! Everything under /proc/PID is the container's to shape (names of files, mount options): it is shown, never
//! followed. The process may end at any moment; then the container is no longer running and that is the answer.

mod process;

use std::path::Path;

use api_types::isolation::{
    CapabilityView, CgroupView, Compared, DeviceView, Isolation, LimitView, MountView, NamespaceView,
    SeccompView,
};
use spec::runtime::{Linux, NamespaceType, Seccomp, Spec};

use super::security::Security;
use super::{Container, MountKind};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};
use process::Process;

impl Engine {
    /// Tells how a running container is isolated.
    pub async fn container_isolation(&self, name: &str) -> Result<Isolation> {
        let container = self.container(name)?;
        if !container.state.status.is_alive() {
            return Err(container.not_running());
        }
        let inner = std::sync::Arc::clone(&self.inner);
        blocking(move || report(&inner, &container)).await
    }
}

fn report(inner: &Inner, container: &Container) -> Result<Isolation> {
    let path = container.files.dir.join("config.json");
    let text = std::fs::read(&path)
        .map_err(|error| Error::internal(format!("cannot read {}: {error}", path.display())))?;
    let asked: Spec = serde_json::from_slice(&text)?;
    let linux = asked.linux.clone().unwrap_or_default();
    let asked_process = asked.process.clone().unwrap_or_default();
    let process = Process::read(container.state.pid).map_err(|_| container.not_running())?;
    let security = Security::parse(&container.host_config.security_opt)?;
    let filter = match container.host_config.privileged {
        true => "unconfined",
        false => security.filter_name(),
    };
    let status = &process.status;
    Ok(Isolation {
        id: container.id.to_string(),
        name: container.name.clone(),
        pid: i64::from(container.state.pid),
        namespaces: namespaces(inner, container, &linux, &process)?,
        user: process.user(),
        capabilities: CapabilityView {
            asked: asked_process
                .capabilities
                .map(|sets| sets.bounding)
                .unwrap_or_default(),
            effective: status.capabilities("CapEff"),
            permitted: status.capabilities("CapPrm"),
            bounding: status.capabilities("CapBnd"),
            inheritable: status.capabilities("CapInh"),
            ambient: status.capabilities("CapAmb"),
        },
        no_new_privileges: Compared {
            asked: asked_process.no_new_privileges,
            actual: status.field("NoNewPrivs") == "1",
        },
        seccomp: seccomp(filter, linux.seccomp.as_ref(), &process),
        label: Compared {
            asked: match asked_process.apparmor_profile.as_str() {
                "" => asked_process.selinux_label,
                profile => profile.to_owned(),
            },
            actual: process.label.clone(),
        },
        cgroup: cgroup(inner, container)?,
        mounts: mounts(container, &linux, &process),
        devices: devices(inner, container, &linux)?,
        descriptors: process.descriptors.clone(),
    })
}

fn namespaces(
    inner: &Inner,
    container: &Container,
    linux: &Linux,
    process: &Process,
) -> Result<Vec<NamespaceView>> {
    let host = process::namespaces("self")?;
    let others: Vec<_> = inner
        .containers
        .snapshots()
        .iter()
        .filter(|other| other.id != container.id && other.state.status.is_alive())
        .filter_map(|other| {
            Some((
                other.name.clone(),
                process::namespaces(&other.state.pid.to_string()).ok()?,
            ))
        })
        .collect();
    let asked = |name: &str| {
        linux
            .namespaces
            .iter()
            .any(|wanted| proc_name(wanted.r#type) == name)
    };
    Ok(process
        .namespaces
        .iter()
        .map(|(name, inode)| NamespaceView {
            r#type: name.clone(),
            inode: *inode,
            asked: asked(name),
            host: host.get(name) == Some(inode),
            shared_with: others
                .iter()
                .filter(|(_, theirs)| theirs.get(name) == Some(inode))
                .map(|(other, _)| other.clone())
                .collect(),
        })
        .collect())
}

fn proc_name(kind: NamespaceType) -> &'static str {
    match kind {
        NamespaceType::Pid => "pid",
        NamespaceType::Network => "net",
        NamespaceType::Mount => "mnt",
        NamespaceType::Ipc => "ipc",
        NamespaceType::Uts => "uts",
        NamespaceType::User => "user",
        NamespaceType::Cgroup => "cgroup",
        NamespaceType::Time => "time",
    }
}

fn seccomp(asked: &str, profile: Option<&Seccomp>, process: &Process) -> SeccompView {
    let mode = match process.status.field("Seccomp") {
        "1" => "strict",
        "2" => "filter",
        _ => "disabled",
    };
    let mut view = SeccompView {
        asked: asked.to_owned(),
        mode: mode.to_owned(),
        filters: process
            .status
            .field("Seccomp_filters")
            .parse()
            .unwrap_or_default(),
        ..SeccompView::default()
    };
    if let Some(profile) = profile {
        view.default_action.clone_from(&profile.default_action);
        let names = |conditional: bool| {
            let rules = profile.syscalls.iter();
            let rules =
                rules.filter(|rule| rule.action == "SCMP_ACT_ALLOW" && rule.args.is_empty() != conditional);
            let names: std::collections::BTreeSet<&String> = rules.flat_map(|rule| &rule.names).collect();
            names.len()
        };
        view.allowed = names(false);
        view.conditional = names(true);
    }
    view
}

/// A limit's name, what was asked, and its files: (controller, limit, use) of version 1, (limit, use) of version 2.
type Known = (
    &'static str,
    String,
    (&'static str, &'static str, &'static str),
    (&'static str, &'static str),
);

fn known_limits(container: &Container) -> Vec<Known> {
    let host = &container.host_config;
    let number = |n: i64| if n == 0 { String::new() } else { n.to_string() };
    let quota = match host.nano_cpus {
        0 => host.cpu_quota,
        nano => nano / 10_000,
    };
    vec![
        (
            "memory",
            number(host.memory),
            ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
            ("memory.max", "memory.current"),
        ),
        (
            "memory and swap",
            number(host.memory_swap),
            (
                "memory",
                "memory.memsw.limit_in_bytes",
                "memory.memsw.usage_in_bytes",
            ),
            ("memory.swap.max", "memory.swap.current"),
        ),
        (
            "processes",
            number(host.pids_limit.unwrap_or_default()),
            ("pids", "pids.max", "pids.current"),
            ("pids.max", "pids.current"),
        ),
        (
            "cpu quota",
            number(quota),
            ("cpu", "cpu.cfs_quota_us", ""),
            ("cpu.max", ""),
        ),
        (
            "cpu shares",
            number(host.cpu_shares),
            ("cpu", "cpu.shares", ""),
            ("cpu.weight", ""),
        ),
        (
            "cpus",
            host.cpuset_cpus.clone(),
            ("cpuset", "cpuset.cpus", ""),
            ("cpuset.cpus", ""),
        ),
    ]
}

fn cgroup(inner: &Inner, container: &Container) -> Result<CgroupView> {
    let group = inner.cgroup_of(container)?;
    let paths = group.paths();
    let read = |directory: &Path, file: &str| {
        let text = match file {
            "" => String::new(),
            file => std::fs::read_to_string(directory.join(file)).unwrap_or_default(),
        };
        text.trim().to_owned()
    };
    let mut limits = Vec::new();
    for (name, asked, (controller, limit, used), unified) in known_limits(container) {
        for path in &paths {
            let (limit, used) = match path.controllers.iter().any(|known| known == controller) {
                true => (limit, used),
                false if path.controllers.is_empty() => unified,
                false => continue,
            };
            let actual = read(&path.directory, limit);
            if !actual.is_empty() {
                limits.push(LimitView {
                    name: name.to_owned(),
                    file: limit.to_owned(),
                    asked,
                    actual,
                    used: read(&path.directory, used),
                });
                break;
            }
        }
    }
    Ok(CgroupView {
        path: group.path().to_string_lossy().into_owned(),
        limits,
    })
}

fn mounts(container: &Container, linux: &Linux, process: &Process) -> Vec<MountView> {
    let mut mounts = process.mounts.clone();
    for mount in &mut mounts {
        mount.origin = origin(container, linux, mount);
    }
    mounts
}

fn origin(container: &Container, linux: &Linux, mount: &MountView) -> String {
    let place = mount.destination.as_str();
    if let Some(planned) = container.plan.iter().find(|planned| planned.destination == place) {
        return match &planned.kind {
            MountKind::Bind { .. } => "bind".to_owned(),
            MountKind::Volume { name, .. } => format!("volume {name}"),
            MountKind::Tmpfs { .. } => "tmpfs".to_owned(),
            MountKind::Image { name, .. } => format!("image {name}"),
            MountKind::Overlay { .. } => "engine".to_owned(),
        };
    }
    let listed = |paths: &[String]| paths.iter().any(|path| path == place);
    let word = match place {
        "/" => "image",
        "/etc/hosts" | "/etc/hostname" | "/etc/resolv.conf" | "/sbin/docker-init" => "engine",
        _ if listed(&linux.masked_paths) => "mask",
        _ if listed(&linux.readonly_paths) => "read-only",
        _ => "default",
    };
    word.to_owned()
}

fn devices(inner: &Inner, container: &Container, linux: &Linux) -> Result<DeviceView> {
    let number = |n: Option<i64>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let rules = linux.resources.iter().flat_map(|resources| &resources.devices);
    let asked = rules.map(|rule| {
        format!(
            "{} {} {}:{} {}",
            if rule.allow { "allow" } else { "deny" },
            rule.r#type.as_deref().unwrap_or("a"),
            number(rule.major),
            number(rule.minor),
            rule.access
        )
    });
    let paths = inner.cgroup_of(container)?.paths();
    let tree = paths
        .iter()
        .find(|path| path.controllers.iter().any(|c| c == "devices"));
    let allowed = tree.and_then(|path| std::fs::read_to_string(path.directory.join("devices.list")).ok());
    Ok(DeviceView {
        asked: asked.collect(),
        allowed: allowed.map(|text| text.lines().map(str::to_owned).collect()),
        nodes: linux
            .devices
            .iter()
            .map(|device| device.path.to_string_lossy().into_owned())
            .collect(),
    })
}
