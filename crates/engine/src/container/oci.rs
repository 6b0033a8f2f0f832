//! The bundle's `config.json`: a container's settings in the words of the OCI runtime specification.
//!
//! Pure but for two questions to the host: which devices a `--device` names, and whether a seccomp profile
//! given as text can be read. The defaults equal the bundle a current Docker engine writes, except that the
//! cgroup namespace is private on version 1 hosts too.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use api_types::{DeviceMapping, ThrottleDevice, WeightDevice};
use spec::runtime::{
    BlockIo, Capabilities, Cpu, Device, DeviceCgroup, Linux, Memory, Mount, Namespace, NamespaceType, Pids,
    Process, Resources, Rlimit, Root, Spec, User,
};

use super::user::Identity;
use super::{Container, defaults};
use crate::error::{Error, Result};

/// What the start has prepared for the bundle.
pub(super) struct Prepared {
    pub(super) identity: Identity,
    pub(super) hostname: String,
    pub(super) mounts: Vec<Mount>,
    /// Namespaces of other containers to join, by kind.
    pub(super) joined: BTreeMap<NamespaceType, PathBuf>,
    pub(super) cgroups_path: String,
    pub(super) rootfs: PathBuf,
}

/// The whole document.
pub(super) fn document(container: &Container, prepared: Prepared) -> Result<Spec> {
    let host = &container.host_config;
    let security = Security::parse(&host.security_opt)?;
    let capabilities = defaults::capabilities(&host.cap_add, &host.cap_drop, host.privileged)?;
    let root_user = prepared.identity.uid == 0;
    let process = process(container, &prepared, &security, &capabilities, root_user)?;
    let linux = linux(container, &prepared, &security, &capabilities)?;
    Ok(Spec {
        oci_version: spec::runtime::VERSION.to_owned(),
        process: Some(process),
        root: Some(Root {
            path: prepared.rootfs,
            readonly: host.readonly_rootfs,
        }),
        hostname: if host.uts_mode == "host" {
            String::new()
        } else {
            prepared.hostname
        },
        domainname: if host.uts_mode == "host" {
            String::new()
        } else {
            container.config.domainname.clone()
        },
        mounts: base_mounts(container)
            .into_iter()
            .chain(prepared.mounts)
            .collect(),
        annotations: host.annotations.as_map().clone(),
        linux: Some(linux),
        ..Spec::default()
    })
}

/// What `--security-opt` says.
#[derive(Default)]
pub(super) struct Security {
    pub(super) no_new_privileges: bool,
    seccomp: SeccompChoice,
    unconfined_paths: bool,
    apparmor: String,
    label: String,
}

#[derive(Default)]
enum SeccompChoice {
    #[default]
    Default,
    Unconfined,
    Profile(String),
}

impl Security {
    pub(super) fn parse(options: &[String]) -> Result<Security> {
        let mut security = Security::default();
        for option in options {
            let (key, value) = match option.split_once(['=', ':']) {
                Some((key, value)) => (key, value),
                None => (option.as_str(), ""),
            };
            let invalid = || Error::invalid(format!("invalid --security-opt 2: {option:?}"));
            match (key, value) {
                ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
                ("no-new-privileges", "false") => security.no_new_privileges = false,
                ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
                ("seccomp", "builtin") => security.seccomp = SeccompChoice::Default,
                ("seccomp", profile) if !profile.is_empty() => {
                    security.seccomp = SeccompChoice::Profile(profile.to_owned());
                }
                ("systempaths", "unconfined") => security.unconfined_paths = true,
                ("apparmor", "unconfined" | "") => security.apparmor.clear(),
                ("apparmor", profile) => profile.clone_into(&mut security.apparmor),
                ("label", "disable") => security.label.clear(),
                ("label", label) => label.clone_into(&mut security.label),
                _ => return Err(invalid()),
            }
        }
        Ok(security)
    }
}

fn process(
    container: &Container,
    prepared: &Prepared,
    security: &Security,
    capabilities: &[String],
    root_user: bool,
) -> Result<Process> {
    let config = &container.config;
    let args: Vec<String> = std::iter::once(container.path.clone())
        .chain(container.args.iter().cloned())
        .collect();
    Ok(Process {
        terminal: config.tty,
        user: User {
            uid: prepared.identity.uid,
            gid: prepared.identity.gid,
            additional_gids: prepared.identity.groups.clone(),
            ..User::default()
        },
        args,
        env: environment(container, &[], &prepared.identity.home, config.tty),
        cwd: working_dir(container)?.to_owned(),
        capabilities: Some(sets(capabilities, root_user)),
        rlimits: rlimits(container)?,
        no_new_privileges: security.no_new_privileges,
        oom_score_adj: Some(i32::try_from(container.host_config.oom_score_adj).unwrap_or(0)),
        apparmor_profile: security.apparmor.clone(),
        selinux_label: security.label.clone(),
        ..Process::default()
    })
}

/// The capability sets of a process: a user other than root holds none but could gain those of the bounding
/// set by a set-uid program.
pub(super) fn sets(capabilities: &[String], root_user: bool) -> Capabilities {
    let held = if root_user {
        capabilities.to_vec()
    } else {
        Vec::new()
    };
    Capabilities {
        bounding: capabilities.to_vec(),
        effective: held.clone(),
        permitted: held,
        ..Capabilities::default()
    }
}

/// The environment of a process: the engine's own, then the container's, then what an exec adds. A bare name
/// removes the variable; later values win over earlier ones.
pub(super) fn environment(container: &Container, more: &[String], home: &str, tty: bool) -> Vec<String> {
    let name_of = |setting: &str| setting.split('=').next().unwrap_or_default().to_owned();
    let mut env = vec![
        defaults::PATH.to_owned(),
        format!("HOSTNAME={}", container.config.hostname),
    ];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for setting in container.config.env.iter().chain(more) {
        let name = name_of(setting);
        let position = env.iter().position(|e| name_of(e) == name);
        match (position, setting.contains('=')) {
            (Some(at), true) => env[at].clone_from(setting),
            (Some(at), false) => drop(env.remove(at)),
            (None, true) => env.push(setting.clone()),
            (None, false) => {}
        }
    }
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    env
}

/// Refuses what could not become a bundle, before anything is made.
pub(super) fn check(container: &Container) -> Result<()> {
    let host = &container.host_config;
    Security::parse(&host.security_opt)?;
    defaults::capabilities(&host.cap_add, &host.cap_drop, host.privileged)?;
    rlimits(container)?;
    resources(container)?;
    host.device_cgroup_rules
        .iter()
        .try_for_each(|rule| parse_device_rule(rule).map(|_| ()))?;
    working_dir(container).map(|_| ())
}

fn working_dir(container: &Container) -> Result<&str> {
    match container.config.working_dir.as_str() {
        "" => Ok("/"),
        dir if dir.starts_with('/') => Ok(dir),
        dir => Err(Error::invalid(format!(
            "the working directory '{dir}' is invalid, it needs to be an absolute path"
        ))),
    }
}

pub(super) fn rlimits(container: &Container) -> Result<Vec<Rlimit>> {
    let one = |limit: &api_types::Ulimit| {
        let value = |n: i64| if n < 0 { u64::MAX } else { n.unsigned_abs() };
        if limit.name.is_empty() || !limit.name.bytes().all(|b| b.is_ascii_lowercase()) {
            return Err(Error::invalid(format!("invalid ulimit type: {}", limit.name)));
        }
        if limit.hard >= 0 && limit.soft > limit.hard {
            return Err(Error::invalid(format!(
                "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                limit.soft, limit.hard
            )));
        }
        Ok(Rlimit {
            r#type: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
            hard: value(limit.hard),
            soft: value(limit.soft),
        })
    };
    container.host_config.ulimits.iter().map(one).collect()
}

fn base_mounts(container: &Container) -> Vec<Mount> {
    let host = &container.host_config;
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.into(),
        r#type: Some(kind.to_owned()),
        source: Some(source.to_owned()),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    };
    let access = if host.privileged { "rw" } else { "ro" };
    let shm = if host.shm_size > 0 {
        host.shm_size
    } else {
        defaults::SHM_SIZE
    };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", access]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &[access, "nosuid", "noexec", "nodev"],
        ),
    ];
    match host.ipc_mode.as_str() {
        "host" => {
            mounts.push(mount(
                "/dev/mqueue",
                "bind",
                "/dev/mqueue",
                &["rbind", "nosuid", "noexec", "nodev"],
            ));
            mounts.push(mount(
                "/dev/shm",
                "bind",
                "/dev/shm",
                &["rbind", "nosuid", "noexec", "nodev"],
            ));
        }
        mode => {
            mounts.push(mount(
                "/dev/mqueue",
                "mqueue",
                "mqueue",
                &["nosuid", "noexec", "nodev"],
            ));
            if mode != "none" && !mode.starts_with("container:") {
                let size = format!("size={shm}");
                mounts.push(mount(
                    "/dev/shm",
                    "tmpfs",
                    "shm",
                    &["nosuid", "noexec", "nodev", "mode=1777", &size],
                ));
            }
        }
    }
    // A user's mount on one of these destinations replaces it.
    mounts.retain(|m| {
        !container
            .plan
            .iter()
            .any(|p| Path::new(&p.destination) == m.destination)
    });
    mounts
}

fn linux(
    container: &Container,
    prepared: &Prepared,
    security: &Security,
    capabilities: &[String],
) -> Result<Linux> {
    let host = &container.host_config;
    let hidden = !host.privileged && !security.unconfined_paths;
    let paths = |asked: &api_types::List<String>, default: &[&str]| -> Vec<String> {
        match (hidden, asked.is_null()) {
            (false, _) => Vec::new(),
            (true, false) => asked.to_vec(),
            (true, true) => default.iter().map(|p| (*p).to_owned()).collect(),
        }
    };
    let seccomp = match &security.seccomp {
        SeccompChoice::Unconfined => None,
        _ if host.privileged => None,
        SeccompChoice::Default => Some(runtime::default_seccomp(capabilities)),
        SeccompChoice::Profile(text) => Some(
            super::seccomp::read(text, capabilities)
                .map_err(|error| Error::invalid(format!("opening seccomp profile failed: {error}")))?,
        ),
    };
    let (mut devices, mut rules) = devices(host.privileged, &host.devices)?;
    for rule in &host.device_cgroup_rules {
        rules.push(parse_device_rule(rule)?);
    }
    devices.dedup_by(|a, b| a.path == b.path);
    Ok(Linux {
        namespaces: namespaces(container, prepared),
        sysctl: sysctls(container),
        cgroups_path: Some(prepared.cgroups_path.clone()),
        resources: Some(Resources {
            devices: rules,
            ..resources(container)?
        }),
        devices,
        seccomp,
        masked_paths: paths(&host.masked_paths, &defaults::MASKED_PATHS),
        readonly_paths: paths(&host.readonly_paths, &defaults::READONLY_PATHS),
        rootfs_propagation: "rprivate".to_owned(),
        ..Linux::default()
    })
}

fn namespaces(container: &Container, prepared: &Prepared) -> Vec<Namespace> {
    let host = &container.host_config;
    let shares_host = |kind: NamespaceType| match kind {
        NamespaceType::Pid => host.pid_mode == "host",
        NamespaceType::Network => host.network_mode == "host",
        NamespaceType::Ipc => host.ipc_mode == "host",
        NamespaceType::Uts => host.uts_mode == "host",
        NamespaceType::Cgroup => host.cgroupns_mode == "host",
        // A user namespace is made on request only; clocks are the host's.
        NamespaceType::User | NamespaceType::Time => true,
        NamespaceType::Mount => false,
    };
    NamespaceType::ALL
        .into_iter()
        .filter(|kind| !shares_host(*kind))
        .map(|kind| Namespace {
            r#type: kind,
            path: prepared.joined.get(&kind).cloned(),
        })
        .collect()
}

fn sysctls(container: &Container) -> BTreeMap<String, String> {
    let host = &container.host_config;
    let mut sysctls = BTreeMap::new();
    // A network namespace of its own lets everyone in it bind low ports and send pings, as Docker's does.
    if host.network_mode != "host" && !host.network_mode.starts_with("container:") {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    sysctls.extend(host.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())));
    sysctls
}

fn device(path: &Path, inside: &Path) -> Result<Device> {
    let meta = std::fs::metadata(path).map_err(|error| {
        Error::invalid(format!(
            "error gathering device information while adding custom device {:?}: {error}",
            path.display().to_string()
        ))
    })?;
    let kind = if meta.file_type().is_char_device() {
        "c"
    } else if meta.file_type().is_block_device() {
        "b"
    } else {
        return Err(Error::invalid(format!(
            "error gathering device information while adding custom device {:?}: not a device node",
            path.display().to_string()
        )));
    };
    Ok(Device {
        path: inside.to_owned(),
        r#type: kind.to_owned(),
        major: i64::from(rustix::fs::major(meta.rdev())),
        minor: i64::from(rustix::fs::minor(meta.rdev())),
        file_mode: Some(meta.mode() & 0o777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })
}

fn devices(privileged: bool, mappings: &[DeviceMapping]) -> Result<(Vec<Device>, Vec<DeviceCgroup>)> {
    let rule = |allow: bool, kind: &str, major: Option<i64>, minor: Option<i64>, access: &str| DeviceCgroup {
        allow,
        r#type: Some(kind.to_owned()),
        major,
        minor,
        access: access.to_owned(),
    };
    if privileged {
        let mut devices = Vec::new();
        host_devices(Path::new("/dev"), &mut devices)?;
        return Ok((devices, vec![rule(true, "a", None, None, "rwm")]));
    }
    let mut rules = vec![rule(false, "a", None, None, "rwm")];
    // Nodes may be made (for archives that hold them) but not opened.
    rules.push(rule(true, "c", None, None, "m"));
    rules.push(rule(true, "b", None, None, "m"));
    rules.extend(
        defaults::DEVICES
            .iter()
            .map(|(major, minor)| rule(true, "c", Some(*major), Some(*minor), "rwm")),
    );
    // Terminals of the container's own devpts.
    rules.push(rule(true, "c", Some(136), None, "rwm"));
    let mut devices = Vec::new();
    for mapping in mappings {
        let access = if mapping.cgroup_permissions.is_empty() {
            "rwm"
        } else {
            &mapping.cgroup_permissions
        };
        if !access.bytes().all(|b| b"rwm".contains(&b)) {
            return Err(Error::invalid(format!("invalid device mode: {access}")));
        }
        let source = Path::new(&mapping.path_on_host);
        let inside = if mapping.path_in_container.is_empty() {
            source
        } else {
            Path::new(&mapping.path_in_container)
        };
        let mut found = Vec::new();
        if source.is_dir() {
            host_devices(source, &mut found)?;
            for device in &mut found {
                if let Ok(rest) = device.path.strip_prefix(source) {
                    device.path = inside.join(rest);
                }
            }
        } else {
            found.push(device(source, inside)?);
        }
        rules.extend(
            found
                .iter()
                .map(|d| rule(true, &d.r#type, Some(d.major), Some(d.minor), access)),
        );
        devices.extend(found);
    }
    Ok((devices, rules))
}

/// Every device node below a directory, leaving out what the container has its own of.
fn host_devices(dir: &Path, into: &mut Vec<Device>) -> Result<()> {
    const OWN: &[&str] = &[
        "pts",
        "shm",
        "fd",
        "mqueue",
        ".lxc",
        ".lxd-mounts",
        ".udev",
        "console",
    ];
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        if kind.is_dir() {
            host_devices(&path, into)?;
        } else if kind.is_char_device() || kind.is_block_device() {
            // A node may vanish between the listing and the look.
            if let Ok(device) = device(&path, &path) {
                into.push(device);
            }
        }
    }
    Ok(())
}

/// Reads `c 1:3 rwm` of `--device-cgroup-rule`.
fn parse_device_rule(text: &str) -> Result<DeviceCgroup> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let parts: Vec<&str> = text.split(' ').collect();
    let [kind, numbers, access] = parts.as_slice() else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_| invalid()),
    };
    let access_is_known =
        !access.is_empty() && access.len() <= 3 && access.bytes().all(|b| b"rwm".contains(&b));
    if !matches!(*kind, "a" | "b" | "c") || !access_is_known {
        return Err(invalid());
    }
    Ok(DeviceCgroup {
        allow: true,
        r#type: Some((*kind).to_owned()),
        major: number(major)?,
        minor: number(minor)?,
        access: (*access).to_owned(),
    })
}

/// The limits of the container's cgroup.
pub(super) fn resources(container: &Container) -> Result<Resources> {
    let host = &container.host_config;
    let nonzero = |n: i64| (n != 0).then_some(n);
    let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
    let memory = Memory {
        limit: nonzero(host.memory),
        reservation: nonzero(host.memory_reservation),
        swap: nonzero(host.memory_swap),
        swappiness: host.memory_swappiness.and_then(|n| u64::try_from(n).ok()),
        disable_oom_killer: host.oom_kill_disable.filter(|disable| *disable),
        ..Memory::default()
    };
    let (quota, period) = match positive(host.nano_cpus) {
        // 100 ms periods: a quota of NanoCpus / 1e9 * 100,000 µs.
        Some(nano) => (i64::try_from(nano / 10_000).ok(), Some(100_000)),
        None => (nonzero(host.cpu_quota), positive(host.cpu_period)),
    };
    let cpu = Cpu {
        shares: positive(host.cpu_shares),
        quota,
        period,
        realtime_runtime: nonzero(host.cpu_realtime_runtime),
        realtime_period: positive(host.cpu_realtime_period),
        cpus: host.cpuset_cpus.clone(),
        mems: host.cpuset_mems.clone(),
        ..Cpu::default()
    };
    let number = |path: &str| -> Result<(i64, i64)> {
        let meta = std::fs::metadata(path).map_err(|error| {
            Error::invalid(format!("cannot limit input and output of device {path}: {error}"))
        })?;
        Ok((
            i64::from(rustix::fs::major(meta.rdev())),
            i64::from(rustix::fs::minor(meta.rdev())),
        ))
    };
    let throttle = |list: &[ThrottleDevice]| -> Result<Vec<spec::runtime::ThrottleDevice>> {
        let one = |device: &ThrottleDevice| {
            let (major, minor) = number(&device.path)?;
            Ok(spec::runtime::ThrottleDevice {
                major,
                minor,
                rate: device.rate,
            })
        };
        list.iter().map(one).collect()
    };
    let weight = |device: &WeightDevice| -> Result<spec::runtime::WeightDevice> {
        let (major, minor) = number(&device.path)?;
        Ok(spec::runtime::WeightDevice {
            major,
            minor,
            weight: Some(device.weight),
            leaf_weight: None,
        })
    };
    let block = BlockIo {
        weight: (host.blkio_weight > 0).then_some(host.blkio_weight),
        weight_device: host
            .blkio_weight_device
            .iter()
            .map(weight)
            .collect::<Result<_>>()?,
        throttle_read_bps_device: throttle(&host.blkio_device_read_bps)?,
        throttle_write_bps_device: throttle(&host.blkio_device_write_bps)?,
        throttle_read_iops_device: throttle(&host.blkio_device_read_iops)?,
        throttle_write_iops_device: throttle(&host.blkio_device_write_iops)?,
        ..BlockIo::default()
    };
    Ok(Resources {
        memory: (memory != Memory::default()).then_some(memory),
        cpu: (cpu != Cpu::default()).then_some(cpu),
        pids: host
            .pids_limit
            .filter(|limit| *limit != 0)
            .map(|limit| Pids { limit }),
        block_io: (block != BlockIo::default()).then_some(block),
        ..Resources::default()
    })
}
