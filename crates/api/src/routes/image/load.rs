//! `POST /images/load`.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::image::LoadOptions;

use super::progress::with_lines;
use crate::answer::stream_job;
use crate::error::Result;
use crate::request::{Query, body, platform};
use crate::state::AppState;
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    version: ApiVersion,
    query: Query,
    body: Body,
) -> Result<Response> {
    let options = LoadOptions {
        platforms: platform::several(&query, version)?,
        quiet: query.flag_or("quiet", true),
    };
    let archive = body::channel(body);
    stream_job(move |lines| async move {
        // The image room names what it loaded itself.
        with_lines(&lines, |progress| {
            state.engine.image_load(archive, options, progress)
        })
        .await?;
        Ok(())
    })
    .await
}
