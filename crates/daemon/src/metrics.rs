//! `GET /metrics` on an address of its own, as Docker's daemon serves it.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Listens, and serves until `shutdown`.
pub(crate) async fn serve(address: &str, engine: Engine, shutdown: CancellationToken) -> Result<(), String> {
    let failed = |error| format!("cannot listen on {address} for metrics (--metrics-addr): {error}");
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address, "serving metrics");
    let routes = Router::new().route("/metrics", get(text)).with_state(engine);
    tokio::spawn(async move {
        let served = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "metrics are not served any more");
        }
    });
    Ok(())
}

async fn text(State(engine): State<Engine>) -> Response {
    match tokio::task::spawn_blocking(move || engine.metrics_text()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.message).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
