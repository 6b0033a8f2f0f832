//! `POST /containers/{id}/pause` and `…/unpause`.

use axum::extract::{Path, State};
use axum::response::Response;

use crate::answer::no_content;
use crate::error::Result;
use crate::state::{AppState, carry_out};

pub async fn pause(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    carry_out(async move { state.engine.container_pause(&name).await }).await?;
    Ok(no_content())
}

pub async fn unpause(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    carry_out(async move { state.engine.container_unpause(&name).await }).await?;
    Ok(no_content())
}
