//! `GET /system/tasks`: what the engine is doing. An endpoint of this engine's own; `docs/api.md` describes it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Tasks {
    /// The oldest first.
    pub tasks: Vec<Task>,
}

/// Something that is under way.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    /// `request`, `container`, `health check`, `build step`.
    pub kind: String,
    /// Whose it is: a path without its query, a container's name, a build step's id.
    pub subject: String,
    /// The method of a request; `start`, `stop`, …
    pub action: String,
    /// The number that the log's lines about a request carry.
    pub request: Option<u64>,
    /// When it began (RFC 3339), and how long ago.
    pub since: String,
    pub seconds: f64,
}
