//! `GET /containers/{id}/ports`, of this engine alone.

use axum::extract::{Path, State};
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    Ok(ok(&state.engine.container_ports(&name).await?))
}
