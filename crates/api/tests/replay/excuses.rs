//! What differs by nature between two engines, or two runs of one: ids, times, sizes, paths, counts.

use api_types::golden::Excuse;

/// Values that differ by nature.
pub const INSPECT: &[(&str, Excuse)] = &[
    ("Id", Excuse::Value),
    // An exec ran when the paused container was recorded.
    ("ExecIDs", Excuse::Skip),
    ("Created", Excuse::Value),
    ("State.Pid", Excuse::Value),
    ("State.StartedAt", Excuse::Value),
    ("State.FinishedAt", Excuse::Value),
    ("State.Health.Status", Excuse::Value),
    ("State.Health.Log", Excuse::Skip),
    ("State.Health.FailingStreak", Excuse::Value),
    ("Image", Excuse::Value),
    ("ResolvConfPath", Excuse::Value),
    ("HostnamePath", Excuse::Value),
    ("HostsPath", Excuse::Value),
    ("LogPath", Excuse::Value),
    ("SizeRw", Excuse::Value),
    ("SizeRootFs", Excuse::Value),
    ("HostConfig.Init", Excuse::Skip),
    ("HostConfig.Runtime", Excuse::Value),
    // The recording was made on control groups of version 1, where Docker shares them with the host.
    ("HostConfig.CgroupnsMode", Excuse::Value),
    ("Mounts", Excuse::Shape),
    ("Mounts.**", Excuse::Skip),
    ("NetworkSettings.SandboxID", Excuse::Value),
    ("NetworkSettings.SandboxKey", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.NetworkID", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.EndpointID", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.MacAddress", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.Aliases.*", Excuse::Value),
    ("NetworkSettings.Networks.goldnet.DNSNames.*", Excuse::Value),
    ("ImageManifestDescriptor.digest", Excuse::Value),
    ("ImageManifestDescriptor.size", Excuse::Value),
];

pub const LIST: &[(&str, Excuse)] = &[
    ("*.Id", Excuse::Value),
    ("*.ImageID", Excuse::Value),
    ("*.Created", Excuse::Value),
    ("*.SizeRw", Excuse::Value),
    ("*.SizeRootFs", Excuse::Value),
    ("*.Status", Excuse::Value),
    ("*.Mounts", Excuse::Shape),
    ("*.Mounts.**", Excuse::Skip),
    ("*.ImageManifestDescriptor.digest", Excuse::Value),
    ("*.ImageManifestDescriptor.size", Excuse::Value),
    ("*.NetworkSettings.Networks.goldnet.NetworkID", Excuse::Value),
    ("*.NetworkSettings.Networks.goldnet.EndpointID", Excuse::Value),
    ("*.NetworkSettings.Networks.goldnet.MacAddress", Excuse::Value),
];

/// The order of networks is a Go map's in the recording, so only their shape is held here.
pub const NETWORKS: &[(&str, Excuse)] = &[("*", Excuse::Shape), ("*.**", Excuse::Skip)];

pub const NETWORK: &[(&str, Excuse)] = &[
    ("Id", Excuse::Value),
    ("Created", Excuse::Value),
    ("Containers", Excuse::Skip),
];

/// What this engine has no words for: the language of the other one, its commit and its build time.
pub const VERSION: &[(&str, Excuse)] = &[
    ("GitCommit", Excuse::Skip),
    ("GoVersion", Excuse::Skip),
    ("BuildTime", Excuse::Skip),
    ("Components", Excuse::Shape),
    ("Components.**", Excuse::Skip),
    ("Platform.Name", Excuse::Value),
    ("*", Excuse::Value),
];

pub const INFO: &[(&str, Excuse)] = &[
    // Of an engine that is made of several programs.
    ("Containerd", Excuse::Skip),
    ("Warnings", Excuse::Skip),
    ("*", Excuse::Shape),
    ("Swarm.*", Excuse::Value),
    ("*.**", Excuse::Skip),
];

pub const STATS: &[(&str, Excuse)] = &[
    ("networks", Excuse::Shape),
    ("networks.**", Excuse::Skip),
    ("memory_stats", Excuse::Shape),
    ("memory_stats.stats", Excuse::Shape),
    ("memory_stats.stats.*", Excuse::Value),
    ("blkio_stats.*", Excuse::Shape),
    ("blkio_stats.*.**", Excuse::Skip),
    ("*.cpu_usage.percpu_usage", Excuse::Shape),
    ("*.cpu_usage.percpu_usage.*", Excuse::Value),
    ("*", Excuse::Value),
    ("*.*", Excuse::Value),
    ("*.*.*", Excuse::Value),
];

pub const IMAGE: &[(&str, Excuse)] = &[
    ("Id", Excuse::Value),
    ("Created", Excuse::Value),
    ("Size", Excuse::Value),
    ("VirtualSize", Excuse::Value),
    ("Parent", Excuse::Value),
    ("Metadata.LastTagTime", Excuse::Value),
    ("Descriptor.digest", Excuse::Value),
    ("Descriptor.size", Excuse::Value),
    ("RepoDigests.*", Excuse::Value),
    ("RootFS.Layers.*", Excuse::Value),
];

pub const VOLUMES: &[(&str, Excuse)] = &[
    ("Volumes.*.CreatedAt", Excuse::Value),
    ("Volumes.*.Mountpoint", Excuse::Value),
    ("Volumes.*.Name", Excuse::Value),
];

pub const EXEC: &[(&str, Excuse)] = &[
    ("ID", Excuse::Value),
    ("ContainerID", Excuse::Value),
    ("Pid", Excuse::Value),
];

pub const USAGE: &[(&str, Excuse)] = &[
    ("LayersSize", Excuse::Value),
    ("BuilderSize", Excuse::Value),
    ("ImageUsage.Reclaimable", Excuse::Value),
    ("ImageUsage.TotalSize", Excuse::Value),
    ("Images.*.Id", Excuse::Value),
    ("Images.*.Created", Excuse::Value),
    ("Images.*.Size", Excuse::Value),
    ("Images.*.SharedSize", Excuse::Value),
    ("Images.*.VirtualSize", Excuse::Value),
    ("Images.*.Descriptor.*", Excuse::Value),
    ("Images.*.RepoDigests.*", Excuse::Value),
    ("ImageUsage.Items.*.Id", Excuse::Value),
    ("ImageUsage.Items.*.Created", Excuse::Value),
    ("ImageUsage.Items.*.Size", Excuse::Value),
    ("ImageUsage.Items.*.SharedSize", Excuse::Value),
    ("ImageUsage.Items.*.Descriptor.*", Excuse::Value),
    ("ImageUsage.Items.*.RepoDigests.*", Excuse::Value),
];

pub const PRUNED: &[(&str, Excuse)] = &[
    ("ContainersDeleted.*", Excuse::Value),
    ("CachesDeleted", Excuse::Shape),
    ("CachesDeleted.*", Excuse::Value),
    ("SpaceReclaimed", Excuse::Value),
];

/// An event's own ids and times; attributes may be more, since containers have their labels among them.
pub const EVENT: &[(&str, Excuse)] = &[
    ("Actor.Attributes", Excuse::Shape),
    ("Actor.Attributes.*", Excuse::Value),
    ("*", Excuse::Value),
    ("*.*", Excuse::Value),
];
