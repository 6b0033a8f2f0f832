//! `GET /metrics` on an address of its own, as Docker's daemon serves it: in OpenMetrics for those who say that they read
//! it, as Prometheus does, and otherwise in the older text format, which everybody reads.
//!
//! Sources: OpenMetrics 1.0; Prometheus text format 0.0.4.

use std::collections::HashSet;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::Engine;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

const OPEN: &str = "application/openmetrics-text";
const OPEN_TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

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

async fn text(State(engine): State<Engine>, headers: HeaderMap) -> Response {
    let mut accepted = headers.get_all(header::ACCEPT).iter();
    let open = accepted.any(|kinds| kinds.to_str().is_ok_and(|kinds| kinds.contains(OPEN)));
    match tokio::task::spawn_blocking(move || engine.metrics_text()).await {
        Ok(Ok(text)) if open => ([(header::CONTENT_TYPE, OPEN_TEXT)], text).into_response(),
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, PLAIN_TEXT)], plain(&text)).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, error.message).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// OpenMetrics in the older format: it knows no units and no end, and names a counter as its samples are named.
fn plain(text: &str) -> String {
    let kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let counters: HashSet<&str> = kinds.filter_map(|kind| kind.strip_suffix(" counter")).collect();
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        if line.starts_with("# UNIT ") || line == "# EOF" {
            continue;
        }
        let described = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
            let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
            counters.contains(name).then_some((word, name, rest))
        });
        match described {
            Some((word, name, rest)) => plain.extend([word, name, "_total ", rest]),
            None => plain.push_str(line),
        }
        plain.push('\n');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_as_their_samples() {
        let open = "# HELP a_events Events.\n# TYPE a_events counter\na_events_total 3\n\
                    # HELP a_seconds Times.\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                    a_seconds_count 0\n# EOF\n";
        let older = "# HELP a_events_total Events.\n# TYPE a_events_total counter\na_events_total 3\n\
                     # HELP a_seconds Times.\n# TYPE a_seconds histogram\na_seconds_count 0\n";
        assert_eq!(plain(open), older);
    }
}
