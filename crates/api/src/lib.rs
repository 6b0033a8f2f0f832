//! The Docker Engine API over HTTP: routes, versions, hijacked streams. Everything it knows about containers, images,
//! networks and volumes it asks of the `engine`; building it asks of `build`.
//!
//! ```text
//!  connection ──> serve ──> router (version, headers) ──> routes::<noun>::<verb> ──> engine
//!                                                             │ views: snapshot -> newest model
//!                                                             │ versions: newest model -> client's version
//!                                                             └ stream: attach, exec
//! ```
//!
//! - A handler parses, asks the engine, and shows the answer; rules of the domain do not live here.
//! - Requests that change something are carried to their end even if the client goes away.
//! - Wordings, status codes and shapes are held against answers recorded from a real engine (`tests/golden`).

// A test that panics says so; product code may not.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod answer;
pub mod error;
pub mod measured;
mod request;
mod router;
pub mod routes;
pub mod serve;
mod state;
pub mod stream;
pub mod version;
pub mod versions;
pub mod views;

pub use error::ApiError;
pub use router::router;
pub use serve::Server;
pub use state::AppState;
