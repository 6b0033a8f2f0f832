//! `POST /images/load`.

use api_types::ProgressMessage;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::image::{LoadOptions, Loaded};

use super::progress::with_lines;
use super::save::single;
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
    let platform = single(platform::several(&query, version)?)?;
    let options = LoadOptions {
        platform,
        quiet: query.flag_or("quiet", true),
    };
    let archive = body::channel(body);
    stream_job(move |lines| async move {
        let loaded = with_lines(&lines, |progress| {
            state.engine.image_load(archive, options, progress)
        })
        .await?;
        for image in &loaded {
            lines.send(ProgressMessage::stream(result(image))).await;
        }
        Ok(())
    })
    .await
}

fn result(image: &Loaded) -> String {
    match &image.reference {
        Some(reference) => format!("Loaded image: {}\n", reference.familiar()),
        None => format!("Loaded image ID: {}\n", image.id),
    }
}
