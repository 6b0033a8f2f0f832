//! `GET` and `POST /system/check`, of this engine alone: what is not as it should be, and with POST, putting it right.

use axum::extract::State;
use axum::response::Response;
use http::Method;

use crate::answer::ok;
use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;

pub async fn handle(State(state): State<AppState>, method: Method, query: Query) -> Result<Response> {
    let content = query.flag("content");
    // A client that goes takes this future along, and a daemon that stops waits for no reading of a whole disk.
    let stop = state.shutdown.child_token();
    let _gone = stop.clone().drop_guard();
    Ok(ok(&state
        .engine
        .check(method == Method::POST, content, stop)
        .await?))
}
