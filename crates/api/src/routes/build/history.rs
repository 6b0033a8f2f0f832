//! Builds of the past: which there were, and what differs between two. Docker's API has neither.

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::AppState;

/// `GET /build/history`: newest first.
pub async fn list(State(state): State<AppState>) -> Result<Response> {
    let builds = state.builder.builds().await;
    let builds = builds.map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    let rows: Vec<Value> = builds
        .into_iter()
        .map(|build| {
            json!({
                "ID": build.reference,
                "Dockerfile": build.dockerfile,
                "Target": build.target,
                "Tags": build.tags.split_whitespace().collect::<Vec<_>>(),
                "Begun": build.begun,
                "Ended": build.ended,
                "Image": build.image,
                "Error": build.error,
                "Steps": build.steps,
                "Hits": build.hits,
            })
        })
        .collect();
    Ok(ok(&rows))
}

/// `GET /build/diff?a=…&b=…`: a line per step that differs.
pub async fn diff(State(state): State<AppState>, query: Query) -> Result<Response> {
    let (first, second) = (query.get("a"), query.get("b"));
    if first.is_empty() || second.is_empty() {
        return Err(ApiError::invalid("two builds are compared: give both, a and b"));
    }
    let lines = state.builder.compare(first, second).await;
    let lines = lines.map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    Ok(ok(&json!({"Differences": lines})))
}
