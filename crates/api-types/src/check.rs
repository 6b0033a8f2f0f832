//! `GET` and `POST /system/check`: what is not as it should be. An endpoint of this engine's own; `docs/api.md` describes
//! it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SystemCheck {
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Finding {
    /// What it is: `cgroup`, `link`, `snapshot`, …
    pub kind: String,
    pub name: String,
    pub problem: String,
    /// What a repair does, or what a person can do where none is possible.
    pub remedy: String,
    pub repaired: bool,
    /// Why the repair failed, if it was tried and did.
    pub error: String,
}
