//! `POST /containers/{id}/stop`: 304 when it does not run.

use axum::extract::{Path, State};
use axum::response::Response;
use spec::ErrorClass;

use crate::answer::no_content_but;
use crate::error::{ApiError, Result};
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
    let stopped = carry_out(async move {
        state
            .engine
            .container_stop(&name, signal.as_deref(), timeout)
            .await
    })
    .await?;
    if stopped {
        Ok(no_content_but(unheard))
    } else {
        Err(ApiError::new(ErrorClass::NotModified, ""))
    }
}

/// Signal and seconds of stop and restart.
pub(super) fn options(query: &Query, version: ApiVersion) -> Result<(Option<String>, Option<i64>)> {
    let signal = if version.has(42) {
        query.text("signal")
    } else {
        None
    };
    Ok((signal, query.integer("t")?))
}
