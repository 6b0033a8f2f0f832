//! What a null or absent member is in Docker's own structs.
//!
//! Go templates run over typed structs there: a nil list prints `[]`, a nil map `map[]`, a nil pointer `<nil>`, and
//! a member that JSON omits is still a field. JSON has lost the type, so the names that matter are listed.

/// The kind of nil behind a null.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Nil {
    List,
    Map,
    Pointer,
}

const LISTS: &[&str] = &[
    "Args",
    "Binds",
    "BlkioDeviceReadBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
    "CapAdd",
    "CapDrop",
    "Cmd",
    "ConsoleSize",
    "DeviceCgroupRules",
    "DeviceRequests",
    "Devices",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "Entrypoint",
    "Env",
    "ExecIDs",
    "ExtraHosts",
    "GroupAdd",
    "Links",
    "MaskedPaths",
    "Mounts",
    "OnBuild",
    "ReadonlyPaths",
    "RepoDigests",
    "RepoTags",
    "SecondaryIPAddresses",
    "SecondaryIPv6Addresses",
    "SecurityOpt",
    "Shell",
    "Ulimits",
    "VolumesFrom",
    "Aliases",
    "DNSNames",
    "Warnings",
    "Log",
    "Layers",
    "Config",
];

const MAPS: &[&str] = &[
    "Annotations",
    "Containers",
    "DriverOpts",
    "ExposedPorts",
    "Labels",
    "Networks",
    "Options",
    "PortBindings",
    "Ports",
    "StorageOpt",
    "Sysctls",
    "Tmpfs",
    "Volumes",
];

/// Texts that JSON leaves out when empty.
const TEXTS: &[&str] = &[
    "Author",
    "Comment",
    "Container",
    "DockerVersion",
    "MacAddress",
    "OsVersion",
    "Parent",
    "StopSignal",
    "User",
    "Variant",
    "VolumeDriver",
    "WorkingDir",
];

/// Members that JSON leaves out when empty, and are still fields for a template.
const OPTIONAL: &[&str] = &[
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "OnBuild",
    "Health",
    "Healthcheck",
    "Init",
    "StopTimeout",
    "Annotations",
    "Mounts",
    "Tmpfs",
    "StorageOpt",
    "Sysctls",
    "Volumes",
    "ExposedPorts",
    "Shell",
    "NetworkDisabled",
    "VolumesFrom",
    "SizeRw",
    "SizeRootFs",
    "ImageManifestDescriptor",
    "ContainerConfig",
    "Identity",
    "Manifests",
    "Descriptor",
    "Status",
    "ClusterVolume",
    "UsageData",
    "CreatedAt",
    "Peers",
    "Services",
    "IPAMConfig",
    "GwPriority",
];

/// The nil behind a null member, or behind an absent one that is known to be optional.
pub(super) fn nil_of(name: &str, absent: bool) -> Option<Nil> {
    let known = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
    if absent && !known(OPTIONAL) {
        return None;
    }
    Some(if known(LISTS) {
        Nil::List
    } else if known(MAPS) {
        Nil::Map
    } else {
        Nil::Pointer
    })
}

/// Whether an absent member is an empty text.
pub(super) fn is_text(name: &str) -> bool {
    TEXTS.iter().any(|known| known.eq_ignore_ascii_case(name))
}
