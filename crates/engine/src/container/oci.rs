//! The bundle's `config.json`: a container's settings in the words of the OCI runtime specification.
//!
//! Pure but for three questions to the host: which devices a `--device` names, whether a seccomp profile given as text
//! can be read, and whether it has message queues mounted that `--ipc host` shows. The defaults equal the bundle a current Docker engine writes, except that the
//! cgroup namespace is private on version 1 hosts too.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use api_types::{ThrottleDevice, WeightDevice};
use spec::runtime::{
    BlockIo, Capabilities, Cpu, Linux, Memory, Mount, Namespace, NamespaceType, Pids, Process, Resources,
    Rlimit, Root, Spec, User,
};

use super::mounts::{MountKind, PlannedMount};
use super::security::Security;
use super::user::Identity;
use super::{Container, clocks, defaults, devices};
use crate::error::{Error, Result};
use crate::userns::IdMaps;

/// The group that terminals belong to, by its number everywhere.
const TTY: u32 = 5;

/// What the start has prepared for the bundle.
pub(super) struct Prepared {
    pub(super) identity: Identity,
    pub(super) hostname: String,
    /// Variables of linked containers.
    pub(super) links: Vec<String>,
    pub(super) mounts: Vec<Mount>,
    /// Namespaces of other containers to join, by kind.
    pub(super) joined: BTreeMap<NamespaceType, PathBuf>,
    /// The maps of the user namespace the container is in, if it is not the host's.
    pub(super) userns: Option<IdMaps>,
    pub(super) apparmor: String,
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
        mounts: base_mounts(container, prepared.userns.as_ref())
            .into_iter()
            .chain(prepared.mounts)
            .collect(),
        annotations: host.annotations.as_map().clone(),
        linux: Some(linux),
        ..Spec::default()
    })
}

fn process(
    container: &Container,
    prepared: &Prepared,
    security: &Security,
    capabilities: &[String],
    root_user: bool,
) -> Result<Process> {
    let config = &container.config;
    let init: &[&str] = match container.host_config.init {
        Some(true) => &["/sbin/docker-init", "--"],
        _ => &[],
    };
    let args: Vec<String> = init
        .iter()
        .map(|&word| word.to_owned())
        .chain(std::iter::once(container.path.clone()))
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
        env: environment(
            container,
            &prepared.links,
            &[],
            &prepared.identity.home,
            config.tty,
        ),
        cwd: working_dir(container)?.to_owned(),
        capabilities: Some(sets(capabilities, root_user)),
        rlimits: rlimits(container)?,
        no_new_privileges: security.no_new_privileges,
        oom_score_adj: Some(i32::try_from(container.host_config.oom_score_adj).unwrap_or(0)),
        apparmor_profile: prepared.apparmor.clone(),
        selinux_label: container.process_label.clone(),
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

/// The environment of a process: the engine's own, then that of links, then the container's, then what an exec adds. A bare name
/// removes the variable; later values win over earlier ones.
pub(super) fn environment(
    container: &Container,
    links: &[String],
    more: &[String],
    home: &str,
    tty: bool,
) -> Vec<String> {
    let name_of = |setting: &str| setting.split('=').next().unwrap_or_default().to_owned();
    let mut env = vec![
        defaults::PATH.to_owned(),
        format!("HOSTNAME={}", container.config.hostname),
    ];
    if tty {
        env.push("TERM=xterm".to_owned());
    }
    for setting in links.iter().chain(&container.config.env).chain(more) {
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
    Security::parse(&host.security_opt)?.filter(&[])?;
    defaults::capabilities(&host.cap_add, &host.cap_drop, host.privileged)?;
    rlimits(container)?;
    resources(container)?;
    devices::check(host)?;
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

fn base_mounts(container: &Container, userns: Option<&IdMaps>) -> Vec<Mount> {
    let host = &container.host_config;
    // The group of terminals, where the container has so many groups.
    let has_terminals = userns.is_none_or(|maps| maps.check(0, [TTY]).is_ok());
    let mut terminals = vec!["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"];
    terminals.extend(has_terminals.then_some("gid=5"));
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
        mount("/dev/pts", "devpts", "devpts", &terminals),
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
            // Not every host has it mounted. A user namespace cannot mount what belongs to the host.
            let (kind, bind) = match Path::new("/dev/mqueue").exists() {
                true => ("bind", Some("rbind")),
                false => ("mqueue", None),
            };
            if bind.is_some() || userns.is_none() {
                let options: Vec<&str> = bind.into_iter().chain(["nosuid", "noexec", "nodev"]).collect();
                mounts.push(mount("/dev/mqueue", kind, "/dev/mqueue", &options));
            }
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
    let paths = |asked: &api_types::List<String>, default: Vec<String>| match (hidden, asked.is_null()) {
        (false, _) => Vec::new(),
        (true, false) => asked.to_vec(),
        (true, true) => default,
    };
    let seccomp = match host.privileged {
        true => None,
        false => security.filter(capabilities)?,
    };
    let (devices, rules) = devices::of(host)?;
    let userns = prepared.userns.clone().unwrap_or_default();
    let time_offsets = clocks::offsets(host)?;
    Ok(Linux {
        namespaces: namespaces(container, prepared, !time_offsets.is_empty()),
        time_offsets,
        sysctl: sysctls(container, prepared.userns.as_ref()),
        mount_label: container.mount_label.clone(),
        uid_mappings: userns.uids,
        gid_mappings: userns.gids,
        cgroups_path: Some(prepared.cgroups_path.clone()),
        resources: Some(Resources {
            devices: rules,
            ..resources(container)?
        }),
        devices,
        seccomp,
        masked_paths: paths(&host.masked_paths, defaults::masked_paths()),
        readonly_paths: paths(
            &host.readonly_paths,
            defaults::READONLY_PATHS.map(str::to_owned).to_vec(),
        ),
        rootfs_propagation: rootfs_propagation(container).to_owned(),
        ..Linux::default()
    })
}

/// Set last, so for the whole tree it would take back what a bind was asked to share.
fn rootfs_propagation(container: &Container) -> &'static str {
    let shares = |mount: &PlannedMount| match &mount.kind {
        MountKind::Bind { propagation, .. } => {
            propagation.contains("shared") || propagation.contains("slave")
        }
        _ => false,
    };
    match container.plan.iter().any(shares) {
        true => "private",
        false => "rprivate",
    }
}

fn namespaces(container: &Container, prepared: &Prepared, own_clocks: bool) -> Vec<Namespace> {
    let host = &container.host_config;
    let shares_host = |kind: NamespaceType| match kind {
        NamespaceType::Pid => host.pid_mode == "host",
        NamespaceType::Network => host.network_mode == "host",
        NamespaceType::Ipc => host.ipc_mode == "host",
        NamespaceType::Uts => host.uts_mode == "host",
        NamespaceType::Cgroup => host.cgroupns_mode == "host",
        NamespaceType::User => prepared.userns.is_none(),
        NamespaceType::Time => !own_clocks,
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

fn sysctls(container: &Container, userns: Option<&IdMaps>) -> BTreeMap<String, String> {
    let host = &container.host_config;
    let mut sysctls = BTreeMap::new();
    // A network namespace of its own lets everyone in it bind low ports and send pings, as Docker's does.
    if host.network_mode != "host" && !host.network_mode.starts_with("container:") {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        // The kernel takes only groups that the user namespace has.
        let last = userns.map_or(i32::MAX.unsigned_abs(), IdMaps::last_group);
        sysctls.insert("net.ipv4.ping_group_range".to_owned(), format!("0 {last}"));
    }
    sysctls.extend(host.sysctls.iter().map(|(k, v)| (k.clone(), v.clone())));
    sysctls
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
