//! `POST /containers/{id}/start`: 304 when it runs already.

use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::response::Response;
use spec::ErrorClass;

use crate::answer::no_content;
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::{AppState, carry_out};

/// A document that could say anything is longer.
const LARGEST_EMPTY_BODY: u64 = 7;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
    body: Body,
) -> Result<Response> {
    if !body.is_end_stream()
        && body
            .size_hint()
            .exact()
            .is_none_or(|length| length > LARGEST_EMPTY_BODY)
    {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if query.has("checkpoint") && !query.get("checkpoint").is_empty() {
        return Err(ApiError::not_implemented(
            "this engine has no checkpoints: start the container without one",
        ));
    }
    let started = carry_out(async move { state.engine.container_start(&name).await }).await?;
    if started {
        Ok(no_content())
    } else {
        Err(ApiError::new(ErrorClass::NotModified, ""))
    }
}
