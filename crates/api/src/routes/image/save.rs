//! `GET /images/get` and `GET /images/{name}/get`: images as one archive.

use axum::extract::State;
use axum::response::Response;
use engine::image::SaveOptions;
use http::StatusCode;

use crate::answer::{channel_body, with_type};
use crate::error::{ApiError, Result};
use crate::request::{Query, platform};
use crate::state::AppState;
use crate::version::ApiVersion;

pub async fn several(State(state): State<AppState>, version: ApiVersion, query: Query) -> Result<Response> {
    save(state, query.all("names"), version, &query).await
}

pub async fn one(
    State(state): State<AppState>,
    name: &str,
    version: ApiVersion,
    query: &Query,
) -> Result<Response> {
    save(state, vec![name.to_owned()], version, query).await
}

async fn save(state: AppState, names: Vec<String>, version: ApiVersion, query: &Query) -> Result<Response> {
    let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    if names.is_empty() {
        return Err(ApiError::invalid("no image to save: name at least one"));
    }
    let platforms = platform::several(query, version)?;
    let archive = state.engine.image_save(names, SaveOptions { platforms }).await?;
    Ok(with_type(
        StatusCode::OK,
        "application/x-tar",
        channel_body(archive),
    ))
}
