//! `ContainerConfig`: the portable part of a container, also the body of commit.
//!
//! `Cmd`, `Entrypoint`, `Shell` and `OnBuild` may arrive as one string (API of old); `Entrypoint` null means "the image's",
//! an empty list means "none".

use serde::{Deserialize, Serialize};

use crate::collection::{Empty, List, Map, string_or_list};
use crate::health::HealthConfig;
use crate::is_false;
use crate::ports::ExposedPorts;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ContainerConfig {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "ExposedPorts::is_empty")]
    pub exposed_ports: ExposedPorts,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: List<String>,
    #[serde(deserialize_with = "string_or_list")]
    pub cmd: List<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    pub image: String,
    pub volumes: Map<Empty>,
    pub working_dir: String,
    #[serde(deserialize_with = "string_or_list")]
    pub entrypoint: List<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub network_disabled: bool,
    /// Container-wide address of old; since API 1.44 it belongs to the endpoint.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    #[serde(skip_serializing_if = "List::is_empty", deserialize_with = "string_or_list")]
    pub on_build: List<String>,
    pub labels: Map<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "List::is_empty", deserialize_with = "string_or_list")]
    pub shell: List<String>,
}
