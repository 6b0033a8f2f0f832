//! `POST /containers/{id}/restart`.

use axum::extract::{Path, State};
use axum::response::Response;

use super::stop::options;
use crate::answer::no_content_but;
use crate::error::Result;
use crate::request::Query;
use crate::state::{AppState, carry_out};
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result<Response> {
    let (signal, timeout) = options(&query, version)?;
    let unheard = state
        .engine
        .container_unheard(&name, signal.as_deref(), timeout)?;
    carry_out(async move {
        state
            .engine
            .container_restart(&name, signal.as_deref(), timeout)
            .await
    })
    .await?;
    Ok(no_content_but(unheard))
}
