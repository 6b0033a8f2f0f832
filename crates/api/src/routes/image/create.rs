//! `POST /images/create`: a pull (`fromImage`) or an import (`fromSrc`), both with progress in the answer.

use api_types::ProgressMessage;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use engine::ImportImage;
use engine::image::{ImportOptions, PullOptions};
use http::HeaderMap;
use spec::image::ContainerSettings;
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use super::progress::with_lines;
use crate::answer::{Lines, stream_job};
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
        limit_rate: rate(query)?,
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

/// Most bytes a second that a transfer may take.
pub fn rate(query: &Query) -> Result<Option<u64>> {
    let text = query.get("limitrate");
    match text.parse() {
        Ok(rate) if rate > 0 => Ok(Some(rate)),
        _ if text.is_empty() => Ok(None),
        _ => Err(ApiError::invalid(format!(
            "invalid limitrate {text:?}: expected a number of bytes a second"
        ))),
    }
}

/// The archive at `url`, fetched whole before it is read, so that a server that breaks off costs no image.
async fn download(state: &AppState, url: &str, lines: &Lines) -> Result<Body> {
    let room = state.engine.config().root.join("tmp");
    std::fs::create_dir_all(&room)
        .map_err(|error| ApiError::from_io(format_args!("cannot make {}", room.display()), &error))?;
    // Ends the fetch with the client.
    let stop = CancellationToken::new();
    let fetched = build::fetch(url, None, &room, &stop).await;
    let fetched = fetched.map_err(|error| ApiError::new(error.class(), error.to_string()))?;
    let file = fetched
        .open()
        .map_err(|error| ApiError::from_io("cannot read what was downloaded", &error))?;
    lines
        .send(ProgressMessage::status(None, format!("Downloaded {url}")))
        .await;
    Ok(Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(
        file,
    ))))
}

async fn import(state: AppState, query: &Query, body: Body) -> Result<Response> {
    let source = match query.get("fromSrc") {
        "-" => "-".to_owned(),
        "" => {
            return Err(ApiError::invalid(
                "import needs a source: \"-\" for the request's body, or a URL",
            ));
        }
        url if url.contains("://") => url.to_owned(),
        // As Docker does with a bare host and path.
        bare => format!("http://{bare}"),
    };
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
    stream_job(move |lines| async move {
        let body = match source.as_str() {
            "-" => body,
            url => download(&state, url, &lines).await?,
        };
        let request = ImportImage {
            source: body::channel(body),
            options,
        };
        // The image room says the new ID itself.
        with_lines(&lines, |progress| state.engine.image_import(request, progress)).await?;
        Ok(())
    })
    .await
}
