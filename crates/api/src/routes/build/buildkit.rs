//! `POST /grpc` and `POST /session`: connections that become HTTP/2, one way round or the other.
//!
//! On the first we serve BuildKit's API; on the second the client serves and we call. Both need the upgrade: without it
//! there is no connection to hand over.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use buildkit::Greeting;
use http::{HeaderMap, Request};

use crate::error::{ApiError, Result};
use crate::state::AppState;
use crate::stream::Hijack;

/// The protocol that both connections change to.
const H2C: &str = "h2c";

pub async fn grpc(State(state): State<AppState>, request: Request<Body>) -> Result<Response> {
    let hijack = upgrade(request)?;
    let (buildkit, shutdown) = (state.buildkit.clone(), state.shutdown.clone());
    Ok(
        hijack.take_over_whole(&state.streams, move |connection| async move {
            tokio::select! {
                () = buildkit.serve(connection) => {}
                () = shutdown.cancelled() => {}
            }
        }),
    )
}

pub async fn session(State(state): State<AppState>, request: Request<Body>) -> Result<Response> {
    let greeting = greeting(request.headers());
    let hijack = upgrade(request)?;
    let (buildkit, shutdown) = (state.buildkit.clone(), state.shutdown.clone());
    Ok(
        hijack.take_over_whole(&state.streams, move |connection| async move {
            tokio::select! {
                () = buildkit.serve_session(greeting, connection) => {}
                () = shutdown.cancelled() => {}
            }
        }),
    )
}

fn greeting(headers: &HeaderMap) -> Greeting {
    let texts = headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
    Greeting::read(texts)
}

fn upgrade(request: Request<Body>) -> Result<Hijack> {
    let hijack = Hijack::of(request);
    match hijack.protocol() {
        Some(H2C) => Ok(hijack),
        Some(other) => Err(ApiError::invalid(format!(
            "protocol {other} not supported: this connection changes to {H2C}"
        ))),
        None => Err(ApiError::invalid("no upgrade proto in request")),
    }
}
