//! `POST /images/prune`.

use api_types::ImagesPruneReport;
use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::request::Query;
use crate::request::filters::filters;
use crate::state::{AppState, carry_out};
use crate::views::null_when_empty;

pub async fn handle(State(state): State<AppState>, query: Query) -> Result<Response> {
    let filters = filters(&query)?;
    let rehearse = query.flag("dryrun");
    let pruned = carry_out(async move { state.engine.images_prune(&filters, rehearse).await }).await?;
    Ok(ok(&ImagesPruneReport {
        images_deleted: null_when_empty(pruned.deleted),
        space_reclaimed: pruned.space,
    }))
}
