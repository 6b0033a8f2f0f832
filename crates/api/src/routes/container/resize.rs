//! `POST /containers/{id}/resize`.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let (rows, columns) = (query.size("h", "height")?, query.size("w", "width")?);
    state.engine.container_resize(&name, rows, columns).await?;
    Ok(StatusCode::OK.into_response())
}
