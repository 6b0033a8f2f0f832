//! `GET /containers/{id}/ports`: who reaches the published ports of a container, and which rules say so. An endpoint of
//! this engine's own; `docs/api.md` describes it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortReaches {
    pub ports: Vec<PortReach>,
}

/// A published port, or several side by side.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct PortReach {
    /// `80/tcp`, `9000-9099/udp`.
    pub port: String,
    /// `0.0.0.0:8080`, `[::]:9000-9099`.
    pub published: String,
    pub network: String,
    /// The container's address and first port.
    pub target: String,
    /// The host's addresses that it answers on, loopback left out.
    pub addresses: Vec<String>,
    /// Who reaches it.
    pub from: Vec<String>,
    /// Which rules lead there and let it pass.
    pub rules: Vec<String>,
    pub notes: Vec<String>,
}
