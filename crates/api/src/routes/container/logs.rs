//! `GET /containers/{id}/logs`.

use axum::extract::{Path, State};
use axum::response::Response;
use engine::LogOptions;
use http::StatusCode;

use crate::answer::{channel_body, with_type};
use crate::error::{ApiError, Result};
use crate::request::{Query, time};
use crate::state::AppState;
use crate::stream;
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
) -> Result<Response> {
    let (stdout, stderr) = (query.flag("stdout"), query.flag("stderr"));
    if !stdout && !stderr {
        return Err(ApiError::invalid(
            "must specify at least one of 'stdout' or 'stderr'",
        ));
    }
    let options = LogOptions {
        stdout,
        stderr,
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        details: query.flag("details"),
        since: time::parameter(&query, "since", '"')?,
        until: time::parameter(&query, "until", '"')?,
        // `all`, nothing, negative and nonsense all mean every line.
        tail: query.get("tail").parse().ok(),
    };
    let logs = state.engine.container_logs(&name, options).await?;
    Ok(with_type(
        StatusCode::OK,
        stream::media_type(logs.tty, version),
        channel_body(logs.stream),
    ))
}
