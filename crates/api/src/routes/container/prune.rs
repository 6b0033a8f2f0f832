//! `POST /containers/prune`.

use api_types::{ContainersPruneReport, List};
use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::request::Query;
use crate::request::filters::filters;
use crate::state::{AppState, carry_out};

pub async fn handle(State(state): State<AppState>, query: Query) -> Result<Response> {
    let filters = filters(&query)?;
    let rehearse = query.flag("dryrun");
    let pruned = carry_out(async move { state.engine.containers_prune(&filters, rehearse).await }).await?;
    let containers_deleted = if pruned.deleted.is_empty() {
        List::null()
    } else {
        List::from(pruned.deleted)
    };
    Ok(ok(&ContainersPruneReport {
        containers_deleted,
        space_reclaimed: pruned.space,
    }))
}
