//! Every route of the API by noun. A file is one verb (or a few small ones), and does three things: read the request, ask
//! the engine, show the answer.

pub mod build;
pub mod container;
pub mod exec;
pub mod image;
pub mod network;
pub mod refused;
pub mod system;
pub mod volume;

use axum::Router;

use crate::state::AppState;

/// All routes, without version prefix.
pub fn all() -> Router<AppState> {
    Router::new()
        .merge(container::routes())
        .merge(exec::routes())
        .merge(image::routes())
        .merge(build::routes())
        .merge(volume::routes())
        .merge(network::routes())
        .merge(system::routes())
        .merge(refused::routes())
}
