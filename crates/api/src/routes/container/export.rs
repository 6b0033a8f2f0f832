//! `GET /containers/{id}/export`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;

use crate::answer::{channel_body, with_type};
use crate::error::Result;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    let body: Body = channel_body(state.engine.container_export(&name).await?);
    Ok(with_type(StatusCode::OK, "application/octet-stream", body))
}
