//! `POST /images/{name}/tag`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

use crate::error::{ApiError, Result};
use crate::request::{Query, reference};
use crate::state::{AppState, carry_out};

pub async fn handle(State(state): State<AppState>, name: &str, query: &Query) -> Result<Response> {
    let target = reference::repo_and_tag(query.get("repo"), query.get("tag"))?
        .ok_or_else(|| ApiError::invalid("invalid reference format"))?;
    if target.familiar_name() == "sha256" {
        return Err(ApiError::invalid(
            "refusing to create an ambiguous tag using digest algorithm as name",
        ));
    }
    let name = name.to_owned();
    carry_out(async move { state.engine.image_tag(&name, &target).await }).await?;
    Ok(StatusCode::CREATED.into_response())
}
