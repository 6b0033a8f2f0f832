//! `GET /images/{name}/history`.

use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::{Query, platform};
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::views;

pub async fn handle(
    State(state): State<AppState>,
    name: &str,
    version: ApiVersion,
    query: &Query,
) -> Result<Response> {
    let platform = platform::one(query, "platform", version, 48)?;
    let image = state.engine.image(name, platform.as_ref()).await?;
    let items = state
        .engine
        .images()
        .history(&image)
        .map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    let rows: Vec<_> = items.into_iter().map(views::image::history).collect();
    Ok(ok(&rows))
}
