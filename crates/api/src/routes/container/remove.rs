//! `DELETE /containers/{id}`.

use axum::extract::{Path, State};
use axum::response::Response;
use engine::RemoveOptions;

use crate::answer::no_content;
use crate::error::Result;
use crate::request::Query;
use crate::state::{AppState, carry_out};

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response> {
    let options = RemoveOptions {
        force: query.flag("force"),
        volumes: query.flag("v"),
        link: query.flag("link"),
    };
    carry_out(async move { state.engine.container_remove(&name, options).await }).await?;
    Ok(no_content())
}
