//! `POST /containers/{id}/kill`.

use axum::extract::{Path, State};
use axum::response::Response;

use crate::answer::no_content;
use crate::error::Result;
use crate::request::Query;
use crate::state::{AppState, carry_out};

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let signal = query.text("signal");
    carry_out(async move { state.engine.container_kill(&name, signal.as_deref()).await }).await?;
    Ok(no_content())
}
