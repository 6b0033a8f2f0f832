//! `GET /containers/{id}/json`.

use axum::extract::{Path, State};
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::{versions, views};

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result<Response> {
    let container = state.engine.container(&name)?;
    let sizes = match query.flag("size") {
        true => Some(state.engine.container_sizes(container.id.as_str()).await?),
        false => None,
    };
    Ok(ok(&versions::container::inspect(
        views::container::inspect(
            &container,
            state.engine.images().ids(),
            state.engine.store().snapshots().driver(),
            sizes,
        ),
        version,
    )))
}
