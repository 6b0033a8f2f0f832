//! `DELETE /images/{name}`.

use axum::extract::{Path, State};
use axum::response::Response;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::{Query, platform};
use crate::state::{AppState, carry_out};
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result<Response> {
    if name.trim().is_empty() {
        return Err(ApiError::invalid("image name cannot be blank"));
    }
    let force = query.flag("force");
    let with_parents = !query.flag("noprune");
    let platforms = match version.has(50) {
        true => platform::documents(&query, "platforms")?,
        false => Vec::new(),
    };
    let remove = async move {
        let engine = state.engine;
        engine.image_remove(&name, force, with_parents, platforms).await
    };
    let steps = carry_out(remove).await?;
    Ok(ok(&steps))
}
