//! Every request has a number, which the log's lines about it carry, and is timed until its answer begins.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument as _;

use crate::state::AppState;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// A layer around routes: the pattern that matched is known there, and only it is counted by. Paths hold names.
pub(crate) async fn measured(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let span = tracing::info_span!("request", id = number);
    let response = next.run(request).instrument(span).await;
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let status = response.status().as_u16();
    state
        .engine
        .metrics()
        .request(method.as_str(), route, status, begun.elapsed());
    response
}
