//! Snapshots of volumes. Of this engine alone.

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{delete, get, post};

use crate::answer::{created, no_content, ok};
use crate::error::Result;
use crate::request::Query;
use crate::state::{AppState, carry_out};
use crate::views;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/volumes/{name}/snapshots", get(list).post(create))
        .route("/volumes/{name}/snapshots/{snapshot}", delete(remove))
        .route("/volumes/{name}/snapshots/{snapshot}/restore", post(restore))
}

async fn list(State(state): State<AppState>, Path(volume): Path<String>) -> Result<Response> {
    Ok(ok(&state.engine.volume_snapshots(&volume).await?))
}

async fn create(State(state): State<AppState>, Path(volume): Path<String>, query: Query) -> Result<Response> {
    let (name, pause) = (query.text("name"), query.flag_or("pause", true));
    let made = carry_out(async move {
        let made = state
            .engine
            .volume_snapshot_create(&volume, name.as_deref(), pause);
        made.await
    });
    Ok(created(&made.await?))
}

async fn remove(
    State(state): State<AppState>,
    Path((volume, snapshot)): Path<(String, String)>,
) -> Result<Response> {
    carry_out(async move { state.engine.volume_snapshot_remove(&volume, &snapshot).await }).await?;
    Ok(no_content())
}

async fn restore(
    State(state): State<AppState>,
    Path((volume, snapshot)): Path<(String, String)>,
    query: Query,
) -> Result<Response> {
    let new = query.text("name");
    let is_new = new.is_some();
    let restored = carry_out(async move {
        let restored = state
            .engine
            .volume_snapshot_restore(&volume, &snapshot, new.as_deref());
        restored.await
    });
    let volume = views::volume::volume(&restored.await?);
    Ok(match is_new {
        true => created(&volume),
        false => ok(&volume),
    })
}
