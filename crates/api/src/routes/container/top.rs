//! `GET /containers/{id}/top`.

use axum::extract::{Path, State};
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    Ok(ok(&state
        .engine
        .container_top(&name, query.get("ps_args"))
        .await?))
}
