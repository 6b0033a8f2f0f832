//! BuildKit's API on this engine's builder: what `docker build`, `docker buildx` and `docker compose build` speak.
//!
//! ```text
//!   POST /grpc ────> Control ──── Solve ─┐        ┌── frontend: attributes ──> build::BuildRequest
//!                    LLBBridge ── Solve ─┴─> Job ─┤
//!                                                 └── export: image, archive, directory, registry
//!   POST /build?version=2 ──> Job, of clients that know no gRPC
//!   POST /session ─> Session: files, secrets, agents and logins of the client, which we call
//! ```
//!
//! - Nothing here builds: a request becomes one for the `build` room, with the client's session as the place from
//!   which its files and secrets come; what the builder says becomes the steps that clients show.
//! - A build ends with the request that asked for it: when the client goes, everything that runs for it ends, too.
//! - What clients send is foreign: paths are taken beneath a directory descriptor and through no link, names and
//!   numbers are checked before use.

// A test that panics says so; product code may not.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod address;
mod cache;
mod capabilities;
mod content;
mod control;
mod error;
mod export;
mod files;
mod frontend;
mod gateway;
mod health;
mod history;
mod job;
mod layouts;
mod llb;
mod locals;
mod provenance;
mod request;
mod result;
mod sbom;
mod service;
mod session;
mod uploads;
mod usage;

pub use request::SessionBuild;
pub use service::Service;
pub use session::Greeting;
