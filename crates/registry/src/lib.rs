//! Client of the OCI distribution API (distribution-spec 1.1), which Docker's registry API is a part of.
//!
//! ```text
//!  Client ── one per engine: configuration with its rules, TLS clients, token cache, which scheme a host speaks
//!    └─ Repository ── one name, one set of credentials: mirrors first, then the registry itself
//!         ├─ manifest / manifest_head / manifest_put / tags / referrers
//!         ├─ blob -> BlobReader      resumes by Range after every break, large ones by several connections
//!         └─ upload / mount / blob_size
//! ```
//!
//! Invariants: credentials go only to the origin that asked for them and to the token server it named, never
//! along a redirect; bytes of a blob are *not* verified here (the caller hashes what it stores); manifests are
//! bounded and verified. Failures that may pass (breaks, timeouts, 429, 5xx) are tried again with growing
//! pauses as long as there is progress. Error texts follow Docker's where it has one.

#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")
)]

mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod endpoint;
mod error;
#[cfg(test)]
mod foreign;
mod login;
mod manifest;
mod pace;
mod parts;
mod referrers;
mod repository;
mod rule;
mod search;
mod session;
mod tls;
mod token;
mod upload;

pub use auth::Auth;
pub use client::Client;
pub use config::{ClientConfig, ConfigError, Proxies, Ranges};
pub use error::Error;
pub use login::LoginResult;
pub use manifest::{MAX_MANIFEST, RemoteManifest};
pub use parts::BlobReader;
pub use repository::{Access, Repository};
pub use rule::Rule;
pub use search::SearchResult;
pub use upload::BlobSource;
