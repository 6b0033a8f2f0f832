//! `POST /auth`: tries credentials at a registry.

use api_types::AuthConfig;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::{ApiError, Result};
use crate::request::body;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>, body: Body) -> Result<Response> {
    // Clients send this document without saying that it is JSON.
    let document = body::collect(body).await?;
    let auth: AuthConfig = api_types::lenient::from_slice(&document)
        .map_err(|error| ApiError::invalid(format!("invalid X-Registry-Auth header: {error}")))?;
    Ok(ok(&state.engine.auth_check(auth).await?))
}
