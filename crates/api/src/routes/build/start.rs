//! `POST /build`: the context comes as the request's body, what the builder says goes out as a stream of JSON lines.

use api_types::ProgressMessage;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use build::{BuildError, BuildEvent, BuildRequest};
use http::{HeaderMap, header};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::backlog::Backlog;
use super::context;
use super::options::{self, Options};
use super::session;
use crate::answer::{Lines, stream_job};
use crate::error::{ApiError, Result};
use crate::request::{Query, auth};
use crate::routes::image::progress;
use crate::state::AppState;

/// Events that may wait to be taken.
const PENDING: usize = 64;

pub async fn handle(
    State(state): State<AppState>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response> {
    if query.get("version") == "2" {
        return session::handle(&state, &query, body).await;
    }
    refuse_documents(&headers)?;
    let mut options = options::read(&query)?;
    // Dropped with the job when the client goes away, which ends every step that runs.
    let stop = CancellationToken::new();
    let root = &state.engine.config().root;
    let (directory, context) = match options.remote.as_str() {
        "" => {
            let directory = context::unpack(root, body).await?;
            let path = directory.path().to_owned();
            (directory, path)
        }
        url => {
            let directory = context::make(root).await?;
            let keep = options.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR");
            let keep = matches!(keep, Some(Some(value)) if matches!(value.as_str(), "1" | "true"));
            let remote = build::fetch_context(url, directory.path(), keep, None, &stop).await;
            let remote = remote.map_err(|error| ApiError::new(error.class(), error.to_string()))?;
            options.dockerfile = remote.dockerfile.unwrap_or(options.dockerfile);
            (directory, remote.directory)
        }
    };
    let quiet = options.quiet;
    let request = BuildRequest {
        stop: stop.clone(),
        logins: auth::registry_logins(&headers),
        ..request(options, &context)
    };
    let names = request.tags.clone();
    stream_job(move |lines| async move {
        let _end_with_client = stop.drop_guard();
        let (output, events) = mpsc::channel(PENDING);
        let building = state.builder.build(request, output);
        let (built, ()) = tokio::join!(building, tell(events, &lines, quiet));
        // Removing a large context takes its time.
        let _ = tokio::task::spawn_blocking(move || drop(directory)).await;
        match built {
            Ok(image) => {
                state.engine.image_built(&image, &names);
                if quiet {
                    lines
                        .send(ProgressMessage::stream(format!("{}\n", image.shown)))
                        .await;
                }
                Ok(())
            }
            Err(error) => refuse(&lines, error).await,
        }
    })
    .await
}

fn request(options: Options, context: &std::path::Path) -> BuildRequest {
    BuildRequest {
        dockerfile: options.dockerfile,
        tags: options.tags,
        build_args: options.build_args,
        labels: options.labels,
        target: options.target,
        no_cache: options.no_cache,
        pull: options.pull,
        platform: options.platform,
        network_mode: options.network_mode,
        extra_hosts: options.extra_hosts,
        shm_size: options.shm_size,
        limits: options.limits,
        cache_sources: options.cache_sources,
        cache_targets: options.cache_targets,
        squash: options.squash,
        ..BuildRequest::new(context)
    }
}

/// A document is no context.
fn refuse_documents(headers: &HeaderMap) -> Result<()> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/x-tar'"
        )));
    }
    Ok(())
}

/// Tells what a build says, which never waits for the client.
async fn tell(mut events: mpsc::Receiver<BuildEvent>, lines: &Lines, quiet: bool) {
    let backlog = Backlog::default();
    let taking = async {
        while let Some(event) = events.recv().await {
            if let Some(message) = message(event).filter(|_| !quiet) {
                backlog.push(message);
            }
        }
        backlog.end();
    };
    let sending = async {
        while let Some(message) = backlog.next().await {
            lines.send(message).await;
        }
    };
    tokio::join!(taking, sending);
}

/// What clients hear; news of single steps are for other readers.
fn message(event: BuildEvent) -> Option<ProgressMessage> {
    Some(match event {
        BuildEvent::Text(text) => ProgressMessage::stream(text),
        // Clients of the classic builder show this as they get it: bright red.
        BuildEvent::ErrorText(text) => ProgressMessage::stream(format!("\u{1b}[91m{text}\u{1b}[0m")),
        BuildEvent::Progress(event) => progress::message(event),
        BuildEvent::Image(digest) => ProgressMessage::aux(json!({"ID": digest.to_string()})),
        BuildEvent::Step { .. } | BuildEvent::Reference(_) | BuildEvent::Explained(_) => return None,
    })
}

/// The exit code of a failed command goes with the text; everything else is refused as usual.
async fn refuse(lines: &Lines, error: BuildError) -> Result<()> {
    match error.exit_code() {
        Some(code) => {
            lines
                .send(ProgressMessage::failure(i64::from(code), error.to_string()))
                .await;
            Ok(())
        }
        None => Err(ApiError::new(error.class(), error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_clients_know_them() {
        let line = |event| serde_json::to_string(&message(event).unwrap()).unwrap();
        assert_eq!(
            line(BuildEvent::Text("Step 1/1 : FROM x\n".to_owned())),
            r#"{"stream":"Step 1/1 : FROM x\n"}"#
        );
        assert!(line(BuildEvent::ErrorText("e".to_owned())).contains(r"\u001b[91me\u001b[0m"));
    }

    #[test]
    fn a_json_body_is_no_context() {
        let mut headers = HeaderMap::new();
        assert!(refuse_documents(&headers).is_ok());
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        assert!(refuse_documents(&headers).is_err());
        headers.insert(header::CONTENT_TYPE, "application/x-tar".parse().unwrap());
        assert!(refuse_documents(&headers).is_ok());
    }
}
