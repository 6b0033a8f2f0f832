//! The engine about itself.

mod auth;
mod check;
mod df;
mod events;
mod space;
mod tasks;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, options, post};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::answer::{ok, with_type};
use crate::error::Result;
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::versions;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/_ping", get(ping).head(ping).options(nothing))
        .route("/info", get(info))
        .route("/version", get(version))
        .route("/events", get(events::handle))
        .route("/system/df", get(df::handle))
        .route("/system/space", get(space::handle))
        .route("/system/check", get(check::handle).post(check::handle))
        .route("/system/tasks", get(tasks::handle))
        .route("/auth", post(auth::handle))
        .route("/{*any}", options(nothing))
}

/// Any path may be asked for its options.
async fn nothing() -> StatusCode {
    StatusCode::OK
}

/// What clients ask first: who is there, and what it speaks.
pub(crate) async fn ping(method: Method) -> Response {
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from("OK")
    };
    let mut response = with_type(StatusCode::OK, "text/plain; charset=utf-8", body);
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    // Clients that can use BuildKit's API do.
    headers.insert(
        HeaderName::from_static("builder-version"),
        HeaderValue::from_static("2"),
    );
    headers.insert(
        HeaderName::from_static("swarm"),
        HeaderValue::from_static("inactive"),
    );
    response
}

async fn info(State(state): State<AppState>, version: ApiVersion) -> Result<Response> {
    Ok(ok(&versions::system::info(state.engine.info().await?, version)))
}

async fn version(State(state): State<AppState>) -> Response {
    ok(&state.engine.version())
}
