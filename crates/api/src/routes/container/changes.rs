//! `GET /containers/{id}/changes`.

use api_types::FilesystemChange;
use axum::extract::{Path, State};
use axum::response::Response;
use engine::image::layer::Change;

use crate::answer::ok;
use crate::error::Result;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>, Path(name): Path<String>) -> Result<Response> {
    let changes = state.engine.container_changes(&name).await?;
    let rows: Vec<FilesystemChange> = changes.into_iter().map(row).collect();
    // An unchanged container answers null, as a Go slice without items does.
    Ok(if rows.is_empty() {
        ok(&serde_json::Value::Null)
    } else {
        ok(&rows)
    })
}

fn row(change: Change) -> FilesystemChange {
    FilesystemChange {
        path: change.path.to_string_lossy().into_owned(),
        kind: change.kind as u8,
    }
}
