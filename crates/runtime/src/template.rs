//! A configuration to begin with: what `berth runtime spec` writes, a container with the usual mounts and rights.

use std::path::{Path, PathBuf};

use spec::runtime::{
    Capabilities, IdMapping, Linux, Mount, Namespace, NamespaceType, Process, Resources, Root, Spec, VERSION,
};

/// The capabilities that the field gives a container by default.
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Files and directories of /proc and /sys that tell about or reach the host.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

pub const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Destination, type, source, options.
const MOUNTS: [(&str, &str, &str, &str); 7] = [
    ("/proc", "proc", "proc", "nosuid,noexec,nodev"),
    (
        "/dev",
        "tmpfs",
        "tmpfs",
        "nosuid,strictatime,mode=755,size=65536k",
    ),
    (
        "/dev/pts",
        "devpts",
        "devpts",
        "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5",
    ),
    ("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "ro,nosuid,noexec,nodev"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
    (
        "/dev/shm",
        "tmpfs",
        "shm",
        "nosuid,noexec,nodev,mode=1777,size=67108864",
    ),
];

/// A container that runs `sh` on a terminal in `rootfs`.
pub fn spec() -> Spec {
    let own = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let capabilities = own(&DEFAULT_CAPABILITIES);
    let kinds = [
        NamespaceType::Mount,
        NamespaceType::Network,
        NamespaceType::Time,
        NamespaceType::Uts,
        NamespaceType::Pid,
        NamespaceType::Ipc,
        NamespaceType::Cgroup,
    ];
    Spec {
        oci_version: VERSION.to_owned(),
        process: Some(Process {
            terminal: true,
            args: own(&["sh"]),
            env: own(&[
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ]),
            cwd: "/".to_owned(),
            capabilities: Some(Capabilities {
                bounding: capabilities.clone(),
                effective: capabilities.clone(),
                permitted: capabilities,
                ..Capabilities::default()
            }),
            ..Process::default()
        }),
        root: Some(Root {
            path: PathBuf::from("rootfs"),
            readonly: false,
        }),
        hostname: "berth".to_owned(),
        mounts: MOUNTS
            .iter()
            .map(|(destination, kind, source, options)| Mount {
                destination: PathBuf::from(destination),
                r#type: Some((*kind).to_owned()),
                source: Some((*source).to_owned()),
                options: options.split(',').map(str::to_owned).collect(),
                ..Mount::default()
            })
            .collect(),
        linux: Some(Linux {
            namespaces: kinds
                .map(|kind| Namespace {
                    r#type: kind,
                    path: None,
                })
                .to_vec(),
            masked_paths: own(&MASKED_PATHS),
            readonly_paths: own(&READ_ONLY_PATHS),
            resources: Some(Resources::default()),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

/// The same with a user namespace in which this one id is root. What cannot be had for one id alone is the host's: the
/// network, /sys. Nothing limits it.
pub fn rootless_spec(uid: u32, gid: u32) -> Spec {
    let mut spec = spec();
    for mount in &mut spec.mounts {
        mount
            .options
            .retain(|option| !option.starts_with("uid=") && !option.starts_with("gid="));
        if mount.destination == Path::new("/sys") {
            mount.r#type = Some("none".to_owned());
            mount.source = Some("/sys".to_owned());
            mount.options.insert(0, "rbind".to_owned());
        }
    }
    // It comes along with /sys.
    spec.mounts
        .retain(|mount| mount.destination != Path::new("/sys/fs/cgroup"));
    let linux = spec.linux.get_or_insert_default();
    linux.resources = None;
    linux
        .namespaces
        .retain(|namespace| namespace.r#type != NamespaceType::Network);
    linux.namespaces.push(Namespace {
        r#type: NamespaceType::User,
        path: None,
    });
    let map = |host_id| {
        vec![IdMapping {
            container_id: 0,
            host_id,
            size: 1,
        }]
    };
    linux.uid_mappings = map(uid);
    linux.gid_mappings = map(gid);
    spec
}
