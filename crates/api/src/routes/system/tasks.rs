//! `GET /system/tasks`, of this engine alone: what it is doing.

use api_types::tasks::Tasks;
use axum::extract::State;
use axum::response::Response;

use crate::answer::ok;
use crate::error::Result;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>) -> Result<Response> {
    Ok(ok(&Tasks {
        tasks: state.engine.activities().list(),
    }))
}
