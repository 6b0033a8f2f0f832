//! `GET /containers/{id}/stats`: one sample, or one each second.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use http::StatusCode;
use tokio::time::{MissedTickBehavior, interval};

use crate::answer::{LineFormat, encode_line, feed, ok, with_type};
use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;
use crate::version::ApiVersion;

/// Between two samples that make a rate.
const PERIOD: Duration = Duration::from_secs(1);

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result<Response> {
    let container = state.engine.container(&name)?;
    // The id stays the same when the name is given to another container.
    let id = container.id.to_string();
    if !query.flag_or("stream", true) {
        let one_shot = version.has(41) && query.flag("one-shot");
        let mut sample = state.engine.container_stats(&id, None).await?;
        if !one_shot && container.state.status.is_alive() {
            tokio::time::sleep(PERIOD).await;
            sample = state.engine.container_stats(&id, Some(&sample)).await?;
        }
        return Ok(ok(&sample));
    }
    let body = feed(move |feed| async move {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent = false;
        let mut before = None;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = state.shutdown.cancelled() => return,
            }
            let Ok(container) = state.engine.container(&id) else {
                return;
            };
            // A container that does not run has one, empty, sample.
            let alive = container.state.status.is_alive();
            if !alive && silent {
                continue;
            }
            silent = !alive;
            let Ok(sample) = state.engine.container_stats(&id, before.as_ref()).await else {
                continue;
            };
            if feed.send(encode_line(LineFormat::Json, &sample)).await.is_err() {
                return;
            }
            before = Some(sample);
        }
    });
    Ok(with_type(StatusCode::OK, "application/json", body))
}
