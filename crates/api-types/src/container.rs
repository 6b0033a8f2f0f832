//! Containers: create, inspect, wait, top, changes, update, prune, and the stat header of archive.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::{Deserialize as DeriveDeserialize, Serialize};

use crate::collection::{List, Map};
use crate::container_config::ContainerConfig;
use crate::health::Health;
use crate::host_config::HostConfig;
use crate::image::Descriptor;
use crate::lenient::{self, Document};
use crate::mount::MountPoint;
use crate::network::{EndpointSettings, NetworkingConfig};
use crate::ports::PortMap;

/// The body of `POST /containers/create`: the fields of [`ContainerConfig`] beside two objects.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateContainerRequest {
    #[serde(flatten)]
    pub config: ContainerConfig,
    /// `None` when the client left it out; the engine then takes the defaults.
    pub host_config: Option<HostConfig>,
    pub networking_config: Option<NetworkingConfig>,
}

impl CreateContainerRequest {
    /// Reads the body of a request.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, lenient::Error> {
        Ok(Self::read(&Document::parse(bytes)?)?)
    }

    // Two readings of one object instead of `flatten`, which would lose the case-insensitive keys.
    fn read(document: &Document<'_>) -> Result<Self, lenient::TypeError> {
        #[derive(Default, DeriveDeserialize)]
        #[serde(default, rename_all = "PascalCase", rename = "CreateRequest")]
        struct Objects {
            host_config: Option<HostConfig>,
            networking_config: Option<NetworkingConfig>,
        }
        let objects: Objects = document.read()?;
        Ok(Self {
            config: document.read()?,
            host_config: objects.host_config,
            networking_config: objects.networking_config,
        })
    }
}

impl<'de> Deserialize<'de> for CreateContainerRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(&Document::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateContainerResponse {
    pub id: String,
    /// Never null.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerInspect {
    pub id: String,
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: ContainerState,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    /// With a leading slash.
    pub name: String,
    pub restart_count: i64,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: List<String>,
    pub host_config: HostConfig,
    /// Up to API 1.51 (an engine with snapshots writes `Data: null`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph_driver: Option<DriverData>,
    /// From API 1.52.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<Storage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    pub mounts: Vec<MountPoint>,
    pub config: ContainerConfig,
    pub network_settings: NetworkSettings,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_manifest_descriptor: Option<Descriptor>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: i64,
    pub exit_code: i64,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DriverData {
    pub data: Option<Map<String>>,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default)]
pub struct Storage {
    #[serde(rename = "RootFS", skip_serializing_if = "Option::is_none")]
    pub root_fs: Option<RootFsStorage>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFsStorage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<RootFsStorageSnapshot>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RootFsStorageSnapshot {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, DeriveDeserialize)]
#[serde(default)]
pub struct NetworkSettings {
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    #[serde(rename = "SandboxKey")]
    pub sandbox_key: String,
    /// Exposed ports; one that is not published has a null list.
    #[serde(rename = "Ports")]
    pub ports: PortMap,
    #[serde(rename = "Networks")]
    pub networks: Map<EndpointSettings>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerWaitResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ContainerWaitExitError>,
    pub status_code: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerWaitExitError {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerTopResponse {
    pub processes: Vec<Vec<String>>,
    pub titles: Vec<String>,
}

/// `kind`: 0 modified, 1 added, 2 deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct FilesystemChange {
    pub path: String,
    pub kind: u8,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerUpdateResponse {
    pub warnings: List<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainersPruneReport {
    pub containers_deleted: List<String>,
    pub space_reclaimed: u64,
}

/// The header `X-Docker-Container-Path-Stat` (base64 of this document); `mode` holds Go's `os.FileMode` bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, DeriveDeserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathStat {
    pub name: String,
    pub size: i64,
    pub mode: u32,
    pub mtime: String,
    pub link_target: String,
}
