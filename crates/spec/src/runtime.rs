//! The OCI runtime specification's documents: `config.json` of a bundle and the state of a container.
//!
//! Reading is lenient where the writers in the field are: unknown fields are ignored, `null` stands for an
//! absent list or map, and names of capabilities, signals, system calls and mount options stay strings, so
//! that a newer name never makes a whole document unreadable (whoever uses the name refuses it, by name).
//! Writing omits what is absent. Maps and lists keep a fixed order: the same value gives the same bytes.
//!
//! Source: OCI runtime-spec 1.3, `config.md`, `config-linux.md`, `runtime.md`.

mod linux;
mod resources;
mod seccomp;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

pub use linux::{
    Device, IdMapping, IntelRdt, Linux, MemoryPolicy, Namespace, NamespaceType, NetDevice, Personality,
    TimeOffset,
};
pub use resources::{
    BlockIo, Cpu, DeviceCgroup, HugepageLimit, InterfacePriority, Memory, Network, Pids, Rdma, Resources,
    ThrottleDevice, WeightDevice,
};
pub use seccomp::{Seccomp, SeccompArg, SeccompSyscall};

/// The version of the specification that documents written by this engine name.
pub const VERSION: &str = "1.3.0";

/// Accepts `null` where the specification has a list, a map or a structure with defaults: Go writes a nil
/// slice so.
pub(crate) fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn is_false(value: &bool) -> bool {
    !*value
}

pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `config.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    #[serde(deserialize_with = "null_default")]
    pub oci_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

/// The process a container starts with, or an additional one (`exec`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_false")]
    pub terminal: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "null_default")]
    pub user: User,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    pub cwd: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_false")]
    pub no_new_privileges: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Where an additional process may run on its way into the container, and from its beginning on.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

/// Who the process is, in numbers of the container's user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub username: String,
}

/// The five capability sets, by name (`CAP_CHOWN`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

/// One resource limit, `RLIMIT_NOFILE` and the like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub r#type: String,
    #[serde(default)]
    pub hard: u64,
    #[serde(default)]
    pub soft: u64,
}

/// Scheduling class of the process's input and output (`IOPRIO_CLASS_BE`, 0 to 7).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    pub class: String,
    pub priority: i32,
}

/// How the kernel shares out processors to the process (`SCHED_OTHER` and the like). Times are nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    pub policy: String,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub nice: i32,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub priority: i32,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub runtime: u64,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub deadline: u64,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub period: u64,
}

/// Lists of processors such as `0-3,7`; empty means no change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub initial: String,
    #[serde(
        rename = "final",
        deserialize_with = "null_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub r#final: String,
}

/// The root filesystem of the bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: PathBuf,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// One mount, in the order of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    pub destination: PathBuf,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// Programs of the host or the container that are run at fixed moments of a container's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// One program to run; `timeout` is in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    pub path: PathBuf,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// What a runtime answers to `state`, and what a hook reads from its standard input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub oci_version: String,
    pub id: String,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    pub bundle: PathBuf,
    #[serde(
        default,
        deserialize_with = "null_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
}

/// What goes to the answerer of a container's system calls, with the descriptors named in `fds`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProcessState {
    pub oci_version: String,
    pub fds: Vec<String>,
    pub pid: i32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    pub state: State,
}

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_null_lists_unknown_fields_and_unknown_names() {
        let text = r#"{"ociVersion":"9.9","mounts":null,"future":{"a":1},
            "process":{"args":null,"cwd":"/","user":{"uid":1,"gid":2,"additionalGids":null},
                       "capabilities":{"bounding":["CAP_FROM_THE_FUTURE"],"ambient":null}},
            "linux":{"namespaces":[{"type":"pid"},{"type":"network","path":"/n"}],"sysctl":null,
                     "resources":{"memory":{"limit":-1,"disableOOMKiller":false},"blockIO":{}}}}"#;
        let spec: Spec = serde_json::from_str(text).unwrap();
        let process = spec.process.unwrap();
        assert_eq!(process.capabilities.unwrap().bounding, ["CAP_FROM_THE_FUTURE"]);
        assert_eq!(
            process.user,
            User {
                uid: 1,
                gid: 2,
                ..User::default()
            }
        );
        let linux = spec.linux.unwrap();
        assert_eq!(linux.namespaces[1].r#type, NamespaceType::Network);
        assert_eq!(linux.namespaces[1].path.as_deref(), Some("/n".as_ref()));
        assert_eq!(linux.resources.unwrap().memory.unwrap().limit, Some(-1));
    }

    #[test]
    fn writes_only_what_is_there() {
        let spec = Spec {
            oci_version: VERSION.into(),
            ..Spec::default()
        };
        assert_eq!(serde_json::to_string(&spec).unwrap(), r#"{"ociVersion":"1.3.0"}"#);
        let state = State {
            oci_version: VERSION.into(),
            id: "a".into(),
            status: Status::Created,
            pid: Some(1),
            bundle: "/b".into(),
            annotations: BTreeMap::new(),
        };
        assert_eq!(
            serde_json::to_string(&state).unwrap(),
            r#"{"ociVersion":"1.3.0","id":"a","status":"created","pid":1,"bundle":"/b"}"#
        );
    }
}
