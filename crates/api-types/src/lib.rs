//! The Docker Engine API's JSON models: one set for the server and for every client of ours.
//!
//! Invariants
//! - A struct carries the name of its definition in the Engine API, a field the JSON key in snake case.
//! - What is written is what a Docker engine of API 1.53 writes: whether a key is absent, null, empty or zero is part of
//!   the type (`List` and `Map` know null from empty; `Option` with a skip attribute is absent). Answers for older
//!   versions are derived from these by the server (`api::versions`).
//! - Every field has a default, so any subset of keys can be read; unknown keys are ignored. Requests and answers are read
//!   through [`lenient`], which follows Go's decoder (keys in any case, null = not given) and speaks its error texts.
//! - No logic beyond reading and writing lives here, and nothing of this workspace is imported.
//!
//! Source of the shapes: the Engine API reference, versions 1.40 to 1.53, held against recorded answers of a real engine.

// A test that panics says so; product code may not.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod auth;
pub mod build;
pub mod check;
mod collection;
pub mod container;
pub mod container_config;
pub mod container_summary;
pub mod disk_usage;
pub mod dns_log;
pub mod event;
pub mod exec;
#[cfg(feature = "testing")]
pub mod golden;
pub mod health;
pub mod host_config;
pub mod image;
pub mod isolation;
pub mod lenient;
pub mod mount;
pub mod network;
pub mod network_address;
pub mod port_reach;
pub mod ports;
pub mod progress;
pub mod stats;
pub mod system;
pub mod tasks;
pub mod version;
pub mod volume;

pub use auth::{AuthConfig, AuthResponse, DistributionInspect, SearchResult};
pub use build::{BuildCache, BuildPruneReport};
pub use collection::{Empty, List, Map};
pub use container::{
    ContainerInspect, ContainerState, ContainerTopResponse, ContainerUpdateResponse, ContainerWaitExitError,
    ContainerWaitResponse, ContainersPruneReport, CreateContainerRequest, CreateContainerResponse,
    FilesystemChange, NetworkSettings, PathStat,
};
pub use container_config::ContainerConfig;
pub use container_summary::{ContainerSummary, NetworkSettingsSummary, PortSummary, SummaryHostConfig};
pub use disk_usage::{DiskUsage, LegacyDiskUsage, UsageOf};
pub use event::{Event, EventActor};
pub use exec::{ConsoleSize, ExecCreateRequest, ExecInspect, ExecProcessConfig, ExecStartRequest};
pub use health::{Health, HealthConfig, HealthSummary, HealthcheckResult};
pub use host_config::{
    DeviceMapping, DeviceRequest, HostConfig, LogConfig, RestartPolicy, ThrottleDevice, Ulimit, UpdateConfig,
    WeightDevice,
};
pub use image::{
    Descriptor, HistoryResponseItem, ImageDeleteResponseItem, ImageInspect, ImageInspectConfig,
    ImageManifestSummary, ImageMetadata, ImageRootFs, ImageSummary, ImagesPruneReport, Platform,
};
pub use mount::{BindOptions, ImageOptions, Mount, MountDriver, MountPoint, TmpfsOptions, VolumeOptions};
pub use network::{
    ConfigReference, EndpointIpamConfig, EndpointResource, EndpointSettings, Ipam, IpamConfig, IpamStatus,
    NetworkConnectRequest, NetworkCreateRequest, NetworkCreateResponse, NetworkDisconnectRequest,
    NetworkInspect, NetworkStatus, NetworkSummary, NetworkingConfig, NetworksPruneReport, PortBinding,
    SubnetStatus,
};
pub use ports::{ExposedPorts, PortMap, PortValue, Ports, Protocol};
pub use progress::{ErrorDetail, ProgressDetail, ProgressMessage};
pub use stats::{
    BlkioStatEntry, BlkioStats, CpuStats, CpuUsage, MemoryStats, NetworkStats, PidsStats, Stats,
    StorageStats, ThrottlingData,
};
pub use system::{
    Commit, ContainerdInfo, ContainerdNamespaces, FirewallInfo, IndexInfo, NetworkAddressPool, PluginsInfo,
    RegistryServiceConfig, Runtime, SwarmInfo, SystemInfo,
};
pub use version::{ComponentVersion, PlatformInfo, SystemVersion};
pub use volume::{Volume, VolumeCreateRequest, VolumeListResponse, VolumeUsageData, VolumesPruneReport};

use serde::{Deserialize, Serialize};

/// What every refusal carries: `{"message": "…"}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorResponse {
    pub message: String,
}

/// The answer of exec create and commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IdResponse {
    pub id: String,
}

/// The zero time as Go prints it; stands for "never".
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
