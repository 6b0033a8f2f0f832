//! `POST /containers/{id}/start`: 304 when it runs already.
//!
//! With the header `Berth-Timings` in the request the answer tells where the time went (`Server-Timing`, W3C).

use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use spec::ErrorClass;

use crate::answer::no_content;
use crate::error::{ApiError, Result};
use crate::request::Query;
use crate::state::{AppState, carry_out};

/// A document that could say anything is longer.
const LARGEST_EMPTY_BODY: u64 = 7;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    if !body.is_end_stream()
        && body
            .size_hint()
            .exact()
            .is_none_or(|length| length > LARGEST_EMPTY_BODY)
    {
        return Err(ApiError::invalid(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24",
        ));
    }
    if query.has("checkpoint") && !query.get("checkpoint").is_empty() {
        return Err(ApiError::not_implemented(
            "this engine has no checkpoints: start the container without one",
        ));
    }
    let engine = state.engine.clone();
    let begun = Instant::now();
    let of = name.clone();
    let started = carry_out(async move { engine.container_start(&of).await }).await?;
    if !started {
        return Err(ApiError::new(ErrorClass::NotModified, ""));
    }
    let mut answer = no_content();
    if headers.contains_key("berth-timings")
        && let Ok(container) = state.engine.container(&name)
        && let Ok(value) = HeaderValue::from_str(&server_timing(&container.start_phases, begun.elapsed()))
    {
        answer.headers_mut().insert("server-timing", value);
    }
    Ok(answer)
}

/// `name;dur=MILLISECONDS`, and the rest up to the whole: waiting, the database, the answer.
fn server_timing(phases: &[(&'static str, Duration)], whole: Duration) -> String {
    let known: Duration = phases.iter().map(|(_, took)| *took).sum();
    let rest = ("record", whole.saturating_sub(known));
    let entries = phases.iter().chain([&rest]);
    let entries = entries.map(|(name, took)| {
        format!(
            "{};dur={:.3}",
            name.replace(' ', "-"),
            took.as_secs_f64() * 1000.0
        )
    });
    entries.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_makes_it_whole() {
        let ms = Duration::from_millis;
        assert_eq!(
            server_timing(&[("network", ms(2)), ("control group", ms(1))], ms(5)),
            "network;dur=2.000, control-group;dur=1.000, record;dur=2.000"
        );
    }
}
