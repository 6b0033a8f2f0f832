//! Removed volumes that can be had back. Of this engine alone.

use api_types::VolumesPruneReport;
use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};

use crate::answer::{created, ok};
use crate::error::Result;
use crate::request::Query;
use crate::state::{AppState, carry_out};
use crate::views;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/trash/volumes", get(list))
        .route("/trash/volumes/empty", post(empty))
        .route("/trash/volumes/{id}/restore", post(restore))
}

async fn list(State(state): State<AppState>) -> Result<Response> {
    Ok(ok(&state.engine.volume_trash().await?))
}

async fn restore(State(state): State<AppState>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let new = query.text("name");
    let volume = carry_out(async move { state.engine.volume_restore(&id, new.as_deref()).await }).await?;
    Ok(created(&views::volume::volume(&volume)))
}

async fn empty(State(state): State<AppState>, query: Query) -> Result<Response> {
    let which: Vec<String> = query.all("id");
    let rehearse = query.flag("dryrun");
    let pruned = carry_out(async move { state.engine.volume_trash_empty(&which, rehearse).await }).await?;
    Ok(ok(&VolumesPruneReport {
        volumes_deleted: pruned.deleted,
        space_reclaimed: pruned.space,
    }))
}
