//! `GET /system/space`: every byte below the data root by what it is there for. This engine's own.

use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>) -> Result<Response> {
    Ok(ok(&state.engine.space().await?))
}
