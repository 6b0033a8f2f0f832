//! `GET /events`: what happened, and what happens, as a stream of JSON documents.

use std::sync::Arc;
use std::time::Duration;

use api_types::Event;
use axum::extract::State;
use axum::response::Response;
use engine::{EventFilter, event_matches};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;

use crate::answer::{Feed, LineFormat, encode_line, feed, with_type};
use crate::error::{ApiError, Result};
use crate::request::filters::filters;
use crate::request::{Query, time};
use crate::state::AppState;
use crate::version::ApiVersion;
use crate::versions;

pub async fn handle(
    State(state): State<AppState>,
    version: ApiVersion,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let since = time::parameter(&query, "since", '\'')?;
    let until = time::parameter(&query, "until", '\'')?;
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(ApiError::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            query.get("since"),
            query.get("until")
        )));
    }
    let now = Timestamp::now();
    // An end without a beginning asks for the past from its beginning.
    let since = since.or(until.map(|_| Timestamp::UNIX_EPOCH));
    let filter = EventFilter {
        since,
        until,
        filters: filters(&query)?,
    };
    let format = LineFormat::accepted(&headers).unwrap_or(match version.has(52) {
        true => LineFormat::JsonLines,
        false => LineFormat::Json,
    });
    let (past, mut live) = state.engine.events(&filter);
    let show = move |event: Event| versions::event::event(event, version);
    let body = feed(move |feed| async move {
        for event in past {
            if !send(&feed, format, show(Arc::unwrap_or_clone(event))).await {
                return;
            }
        }
        let end = match until {
            Some(until) if until <= now => return,
            Some(until) => Some(Duration::try_from(until.duration_since(now)).unwrap_or_default()),
            None => None,
        };
        let deadline = async {
            match end {
                Some(end) => tokio::time::sleep(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(deadline);
        loop {
            let received = tokio::select! {
                received = live.recv() => received,
                () = &mut deadline => return,
                () = state.shutdown.cancelled() => return,
            };
            match received {
                Ok(event) if event_matches(&event, &filter.filters) => {
                    if !send(&feed, format, show(Arc::unwrap_or_clone(event))).await {
                        return;
                    }
                }
                // A client that is too slow loses events, not its connection.
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(with_type(StatusCode::OK, format.media_type(), body))
}

async fn send(feed: &Feed, format: LineFormat, event: Option<versions::View<Event>>) -> bool {
    match event {
        Some(event) => feed.send(encode_line(format, &event)).await.is_ok(),
        None => true,
    }
}
