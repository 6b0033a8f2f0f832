//! `HostConfig`: what of a container depends on the host, and `UpdateConfig`, the part of it that may change later.
//!
//! Lists that Go writes as null when unset are `List`; those it leaves out are skipped when empty. `memory_swappiness`,
//! `oom_kill_disable`, `pids_limit` and `init` tell "not given" (`None`) from a value.

use serde::{Deserialize, Serialize};

use crate::collection::{List, Map, string_or_list};
use crate::exec::ConsoleSize;
use crate::mount::Mount;
use crate::network_address;
use crate::ports::PortMap;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostConfig {
    pub binds: List<String>,
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    pub log_config: LogConfig,
    pub network_mode: String,
    pub port_bindings: PortMap,
    pub restart_policy: RestartPolicy,
    pub auto_remove: bool,
    pub volume_driver: String,
    pub volumes_from: List<String>,
    pub console_size: ConsoleSize,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub annotations: Map<String>,
    #[serde(deserialize_with = "string_or_list")]
    pub cap_add: List<String>,
    #[serde(deserialize_with = "string_or_list")]
    pub cap_drop: List<String>,
    pub cgroupns_mode: String,
    #[serde(deserialize_with = "network_address::addresses")]
    pub dns: List<String>,
    pub dns_options: List<String>,
    pub dns_search: List<String>,
    pub extra_hosts: List<String>,
    pub group_add: List<String>,
    pub ipc_mode: String,
    pub cgroup: String,
    pub links: List<String>,
    pub oom_score_adj: i64,
    pub pid_mode: String,
    pub privileged: bool,
    pub publish_all_ports: bool,
    pub readonly_rootfs: bool,
    pub security_opt: List<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub storage_opt: Map<String>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub tmpfs: Map<String>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub userns_mode: String,
    pub shm_size: i64,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub sysctls: Map<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    pub isolation: String,
    pub cpu_shares: i64,
    pub memory: i64,
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: List<WeightDevice>,
    pub blkio_device_read_bps: List<ThrottleDevice>,
    pub blkio_device_write_bps: List<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: List<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: List<ThrottleDevice>,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: List<DeviceMapping>,
    pub device_cgroup_rules: List<String>,
    pub device_requests: List<DeviceRequest>,
    pub memory_reservation: i64,
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: List<Ulimit>,
    pub cpu_count: i64,
    pub cpu_percent: i64,
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
    #[serde(skip_serializing_if = "List::is_empty")]
    pub mounts: List<Mount>,
    pub masked_paths: List<String>,
    pub readonly_paths: List<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// The body of `POST /containers/{id}/update`; a zero or absent value leaves the setting as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateConfig {
    pub cpu_shares: i64,
    pub memory: i64,
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: List<WeightDevice>,
    pub blkio_device_read_bps: List<ThrottleDevice>,
    pub blkio_device_write_bps: List<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: List<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: List<ThrottleDevice>,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: List<DeviceMapping>,
    pub device_cgroup_rules: List<String>,
    pub device_requests: List<DeviceRequest>,
    pub memory_reservation: i64,
    pub memory_swap: i64,
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    pub pids_limit: Option<i64>,
    pub ulimits: List<Ulimit>,
    pub restart_policy: RestartPolicy,
    /// This engine's own: ports to publish besides, and ports to publish no longer, at once where the container runs.
    #[serde(skip_serializing_if = "PortMap::is_empty")]
    pub publish_add: PortMap,
    #[serde(skip_serializing_if = "PortMap::is_empty")]
    pub publish_remove: PortMap,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub kind: String,
    pub config: Map<String>,
}

/// `name` is empty, `no`, `always`, `on-failure` or `unless-stopped`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    pub name: String,
    pub maximum_retry_count: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceMapping {
    pub path_on_host: String,
    pub path_in_container: String,
    pub cgroup_permissions: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceRequest {
    pub driver: String,
    pub count: i64,
    #[serde(rename = "DeviceIDs")]
    pub device_ids: List<String>,
    pub capabilities: List<Vec<String>>,
    pub options: Map<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}
