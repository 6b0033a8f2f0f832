//! Volumes.

mod snapshot;
mod trash;

use api_types::{List, VolumeCreateRequest, VolumeListResponse, VolumesPruneReport};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderMap, StatusCode};
use spec::ErrorClass;

use crate::answer::{channel_body, created, no_content, ok, with_type};
use crate::error::{ApiError, Result};
use crate::request::body::channel;
use crate::request::filters::filters;
use crate::request::{Query, body};
use crate::state::{AppState, carry_out};
use crate::version::ApiVersion;
use crate::views;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}/rename", post(rename))
        .route("/volumes/{name}/clone", post(copy))
        .route("/volumes/{name}/export", get(export))
        .route("/volumes/{name}/import", post(import))
        .route("/volumes/{name}", get(inspect).delete(remove).put(update))
        .merge(snapshot::routes())
        .merge(trash::routes())
}

async fn list(State(state): State<AppState>, query: Query) -> Result<Response> {
    let filters = filters(&query).map_err(|error| error.context("error reading volume filters"))?;
    let volumes = state.engine.volume_list(&filters).await?;
    let volumes = volumes.iter().map(views::volume::volume).collect();
    Ok(ok(&VolumeListResponse {
        volumes,
        warnings: List::null(),
    }))
}

async fn inspect(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    Ok(ok(&views::volume::volume(
        &state.engine.volume_inspect(&name).await?,
    )))
}

async fn create(State(state): State<AppState>, headers: HeaderMap, body: Body) -> Result<Response> {
    let request: VolumeCreateRequest = body::read_json(&headers, body).await?;
    let volume = carry_out(async move { state.engine.volume_create(request).await }).await?;
    Ok(created(&views::volume::volume(&volume)))
}

/// Of this engine alone.
async fn rename(State(state): State<AppState>, Path(old): Path<String>, query: Query) -> Result<Response> {
    let new = query.get("name").to_owned();
    let volume = carry_out(async move { state.engine.volume_rename(&old, &new).await }).await?;
    Ok(ok(&views::volume::volume(&volume)))
}

/// Of this engine alone.
async fn copy(State(state): State<AppState>, Path(source): Path<String>, query: Query) -> Result<Response> {
    let new = query.get("name").to_owned();
    let volume = carry_out(async move { state.engine.volume_clone(&source, &new).await }).await?;
    Ok(created(&views::volume::volume(&volume)))
}

/// Of this engine alone.
async fn export(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    let stream = state.engine.volume_export(&name).await?;
    Ok(with_type(
        StatusCode::OK,
        "application/x-tar",
        channel_body(stream),
    ))
}

/// Of this engine alone.
async fn import(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
    body: Body,
) -> Result<Response> {
    let pair = |label: String| match label.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (label, String::new()),
    };
    let labels = query.all("label").into_iter().map(pair).collect();
    let stream = channel(body);
    let volume = carry_out(async move { state.engine.volume_import(&name, labels, stream).await }).await?;
    Ok(created(&views::volume::volume(&volume)))
}

async fn update() -> ApiError {
    ApiError::new(
        ErrorClass::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

async fn remove(State(state): State<AppState>, Path(name): Path<String>, query: Query) -> Result<Response> {
    let (force, at_once) = (query.flag("force"), query.flag("purge"));
    carry_out(async move { state.engine.volume_remove(&name, force, at_once).await }).await?;
    Ok(no_content())
}

async fn prune(State(state): State<AppState>, version: ApiVersion, query: Query) -> Result<Response> {
    let mut filters = filters(&query)?;
    if !version.has(42) {
        // Named volumes were pruned too.
        filters
            .entry("all".to_owned())
            .or_default()
            .push("true".to_owned());
    }
    let (rehearse, at_once) = (query.flag("dryrun"), query.flag("purge"));
    let pruned =
        carry_out(async move { state.engine.volumes_prune(&filters, rehearse, at_once).await }).await?;
    Ok(ok(&VolumesPruneReport {
        volumes_deleted: pruned.deleted,
        space_reclaimed: pruned.space,
    }))
}
