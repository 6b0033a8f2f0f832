//! `GET /images/{name}/contents` and `GET /images/{name}/compare`: looking inside images. This engine's own.

use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::{Query, platform};
use crate::state::AppState;
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    name: &str,
    version: ApiVersion,
    query: &Query,
) -> Result<Response> {
    let platform = platform::one(query, "platform", version, 0)?;
    Ok(ok(&state.engine.image_contents(name, platform.as_ref()).await?))
}

pub async fn compare(State(state): State<AppState>, name: &str, query: &Query) -> Result<Response> {
    match query.get("with") {
        "" => Err(ApiError::invalid("with is missing: the image to compare with")),
        other => Ok(ok(&state.engine.image_compare(name, other).await?)),
    }
}
