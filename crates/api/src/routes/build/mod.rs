//! Building, and the builder's cache.

mod backlog;
mod buildkit;
mod cache;
mod context;
mod history;
mod options;
mod session;
mod start;

use axum::Router;
use axum::routing::{get, post};

use axum::extract::State;
use http::StatusCode;

use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::AppState;

pub use cache::cache_rows;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/build", post(start::handle))
        .route("/build/history", get(history::list))
        .route("/build/diff", get(history::diff))
        .route("/build/prune", post(cache::prune))
        .route("/build/cancel", post(cancel))
        .route("/grpc", post(buildkit::grpc))
        .route("/session", post(buildkit::session))
}

/// A build ends when the client that started it goes away; those over a session have a name besides.
async fn cancel(State(state): State<AppState>, query: Query) -> Result<StatusCode> {
    match query.get("id") {
        "" => Err(ApiError::invalid("build ID not provided")),
        id if state.buildkit.give_up(id) => Ok(StatusCode::OK),
        id => Err(ApiError::not_found(format!(
            "no build with ID {id}: close the connection of the build to end it"
        ))),
    }
}
