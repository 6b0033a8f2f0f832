//! Every request has a number, which the log's lines about it carry, is shown among what is under way, and is timed until
//! its answer begins.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use engine::Activity;
use hyper::body::{Frame, SizeHint};
use tracing::Instrument as _;

use crate::state::AppState;

static REQUESTS: AtomicU64 = AtomicU64::new(0);

/// Shows a request as under way for as long as anyone has it: the answer's body, or who took the connection over.
#[derive(Clone)]
pub(crate) struct UnderWay(#[expect(dead_code, reason = "what counts is that it is held")] Arc<Activity>);

/// Around everything: the number, and a place among what is under way until the last byte of the answer.
pub(crate) async fn numbered(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let number = REQUESTS.fetch_add(1, Ordering::Relaxed) + 1;
    let span = tracing::info_span!("request", id = number);
    let method = request.method().as_str();
    // Without the query, where build arguments may be secrets.
    let activities = state.engine.activities();
    let activity = activities.begin_request(number, method, request.uri().path());
    let under_way = UnderWay(Arc::new(activity));
    request.extensions_mut().insert(under_way.clone());
    let response = next.run(request).instrument(span).await;
    response.map(|body| {
        Body::new(Answering {
            body,
            _under_way: under_way,
        })
    })
}

/// A layer around routes: the pattern that matched is known there, and only it is counted by. Paths hold names.
pub(crate) async fn timed(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or("", MatchedPath::as_str);
    let status = response.status().as_u16();
    state
        .engine
        .metrics()
        .request(method.as_str(), route, status, begun.elapsed());
    response
}

/// An answer's body, with its request.
struct Answering {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
