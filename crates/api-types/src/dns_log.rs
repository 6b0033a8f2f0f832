//! `GET /networks/dns/log`: what containers asked the embedded resolver, and who answered. An endpoint of this engine's
//! own; `docs/api.md` describes it.

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsLog {
    /// Oldest first.
    pub queries: Vec<DnsQuery>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DnsQuery {
    /// Microseconds since 1970.
    pub time: u64,
    pub container: String,
    pub name: String,
    /// `A`, `AAAA`, `PTR`, …
    #[serde(rename = "Type")]
    pub kind: String,
    /// `names` for the names of the container's networks, else the server that answered, or `nobody`.
    pub answered_by: String,
    pub code: String,
    /// What the names gave; answers of other servers are passed on unread.
    pub answers: Vec<String>,
    /// How long the container waited.
    pub microseconds: u64,
}
