//! `GET /containers/{id}/isolation`: what separates a running container from the host, read from the kernel, beside
//! what was asked for. An endpoint of this engine's own; `docs/api.md` describes it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Isolation {
    pub id: String,
    pub name: String,
    /// The first process as the host numbers it. Everything below is that process's.
    pub pid: i64,
    pub namespaces: Vec<NamespaceView>,
    pub user: UserView,
    pub capabilities: CapabilityView,
    pub no_new_privileges: Compared<bool>,
    pub seccomp: SeccompView,
    /// Of a Linux security module; empty where none has labelled the process.
    pub label: Compared<String>,
    pub cgroup: CgroupView,
    pub mounts: Vec<MountView>,
    pub devices: DeviceView,
    /// Open descriptors: those handed in, and what the program has opened since.
    pub descriptors: Vec<DescriptorView>,
}

/// A setting and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Compared<T> {
    pub asked: T,
    pub actual: T,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct NamespaceView {
    /// As in /proc/PID/ns: `mnt`, `pid`, `net`, …
    pub r#type: String,
    pub inode: u64,
    /// Whether the configuration asks for one that is not the host's.
    pub asked: bool,
    /// Whether it is the daemon's, which is the host's.
    pub host: bool,
    /// Names of the other containers in it.
    pub shared_with: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UserView {
    /// Ids of the host.
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    #[serde(rename = "UIDMap")]
    pub uid_map: Vec<IdRange>,
    #[serde(rename = "GIDMap")]
    pub gid_map: Vec<IdRange>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CapabilityView {
    /// The bounding set of the configuration.
    pub asked: Vec<String>,
    pub effective: Vec<String>,
    pub permitted: Vec<String>,
    pub bounding: Vec<String>,
    pub inheritable: Vec<String>,
    pub ambient: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SeccompView {
    /// `builtin`, `profile` or `unconfined`.
    pub asked: String,
    /// `disabled`, `strict` or `filter`.
    pub mode: String,
    /// Filters that are loaded, the host's own among them.
    pub filters: u32,
    /// Of the profile: what happens to calls that it does not name.
    pub default_action: String,
    /// Of the profile: calls that are let through, without and with conditions on their arguments.
    pub allowed: usize,
    pub conditional: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CgroupView {
    pub path: String,
    pub limits: Vec<LimitView>,
}

/// One limit, in the kernel's own unit and words. Empty texts are what is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LimitView {
    pub name: String,
    pub file: String,
    pub asked: String,
    pub actual: String,
    pub used: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MountView {
    pub destination: String,
    pub filesystem: String,
    pub source: String,
    pub read_only: bool,
    pub options: String,
    /// Who wanted it: `image`, `engine`, `default`, `mask`, `read-only`, or `bind`, `volume NAME`, `tmpfs`, `image NAME`.
    pub origin: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DeviceView {
    /// Rules of the configuration, `allow c 1:3 rwm`, in their order.
    pub asked: Vec<String>,
    /// What the kernel lets through, where it tells (version 1 hierarchies).
    pub allowed: Option<Vec<String>>,
    /// Nodes beside the default ones.
    pub nodes: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DescriptorView {
    pub number: u32,
    pub target: String,
}
