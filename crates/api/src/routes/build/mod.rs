//! Building, and the builder's cache.

mod buildkit;
mod cache;
mod call;
mod context;
mod extras;
mod history;
mod options;
mod start;

use axum::Router;
use axum::routing::{get, post};

use crate::error::ApiError;
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

/// A build ends when the client that started it goes away; there is nothing else to name it by.
async fn cancel(query: Query) -> ApiError {
    match query.get("id") {
        "" => ApiError::invalid("build ID not provided"),
        id => ApiError::not_found(format!(
            "no build with ID {id}: close the connection of the build to end it"
        )),
    }
}
