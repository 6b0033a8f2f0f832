//! `POST /containers/{id}/rename`.

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
    let new = query.get("name").to_owned();
    carry_out(async move { state.engine.container_rename(&name, &new).await }).await?;
    Ok(no_content())
}
