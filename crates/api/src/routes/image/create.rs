//! `POST /images/create`: a pull (`fromImage`) or an import (`fromSrc`), both with progress in the answer.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::ImportImage;
use engine::image::{ImportOptions, PullOptions};
use http::HeaderMap;
use spec::image::ContainerSettings;

use super::progress::with_lines;
use crate::answer::stream_job;
use crate::error::{ApiError, Result};
use crate::request::{Query, auth, body, platform, reference};
use crate::state::AppState;

pub async fn handle(
    State(state): State<AppState>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    if query.get("fromImage").is_empty() {
        import(state, &query, body).await
    } else {
        pull(state, &query, &headers).await
    }
}

async fn pull(state: AppState, query: &Query, headers: &HeaderMap) -> Result<Response> {
    let reference = reference::from_image(query.get("fromImage"), query.get("tag"))?;
    let options = PullOptions {
        platform: platform::slashed(query)?,
        auth: auth::registry_auth(headers).map(|auth| auth::login(&auth)),
        // A name without tag or digest means all of them; clients add `latest` themselves.
        all_tags: reference.tag().is_none() && reference.digest().is_none(),
    };
    stream_job(move |lines| async move {
        with_lines(&lines, |progress| {
            state.engine.image_pull(&reference, options, progress)
        })
        .await?;
        Ok(())
    })
    .await
}

async fn import(state: AppState, query: &Query, body: Body) -> Result<Response> {
    let source = query.get("fromSrc").to_owned();
    if source != "-" {
        return Err(ApiError::not_implemented(format!(
            "cannot import from {source:?}: this engine imports what the request carries; download the archive and import \
             it with \"-\""
        )));
    }
    let mut changes = ContainerSettings::default();
    build::apply_changes(&mut changes, &query.all("changes"))
        .map_err(|error| ApiError::invalid(error.to_string()))?;
    let message = match query.get("message") {
        "" => format!("Imported from {source}"),
        message => message.to_owned(),
    };
    let options = ImportOptions {
        reference: reference::repo_and_tag(query.get("repo"), query.get("tag"))?,
        message,
        changes,
        platform: platform::slashed(query)?,
    };
    let request = ImportImage {
        source: body::channel(body),
        options,
    };
    stream_job(move |lines| async move {
        // The image room says the new ID itself.
        with_lines(&lines, |progress| state.engine.image_import(request, progress)).await?;
        Ok(())
    })
    .await
}
