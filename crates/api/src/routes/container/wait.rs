//! `POST /containers/{id}/wait`: the headers go out at once, the document when the condition holds.

use api_types::{ContainerWaitExitError, ContainerWaitResponse};
use axum::extract::{Path, State};
use axum::response::Response;
use engine::WaitCondition;
use http::StatusCode;

use crate::answer::{LineFormat, encode_line, feed, with_type};
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::AppState;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let condition = match query.get("condition") {
        "" | "not-running" => WaitCondition::NotRunning,
        "next-exit" => WaitCondition::NextExit,
        "removed" => WaitCondition::Removed,
        other => return Err(ApiError::invalid(format!("invalid condition: {other:?}"))),
    };
    let waiting = state.engine.container_wait(&name, condition).await?;
    let shutdown = state.shutdown.clone();
    let body = feed(move |feed| async move {
        let outcome = tokio::select! {
            outcome = waiting => outcome,
            () = shutdown.cancelled() => return feed.fail("the engine is shutting down").await,
        };
        let error = outcome.error.map(|message| ContainerWaitExitError { message });
        let answer = ContainerWaitResponse {
            error,
            status_code: outcome.status_code,
        };
        let _ = feed.send(encode_line(LineFormat::Json, &answer)).await;
    });
    Ok(with_type(StatusCode::OK, "application/json", body))
}
