//! `POST /containers/{id}/attach`: a taken-over connection to the container's streams.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use engine::AttachOptions;
use http::StatusCode;
use tokio::io::AsyncWriteExt;

use crate::answer::with_type;
use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;
use crate::stream::{self, Client, DetachKeys, End, Hijack, relay};
use crate::version::ApiVersion;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
    request: Request,
) -> Response {
    match attach(state, &name, version, &query, request).await {
        Ok(response) => response,
        // Clients read the refusal of an attach as plain text.
        Err(error) if error.status() != StatusCode::NOT_MODIFIED => with_type(
            error.status(),
            stream::RAW,
            Body::from(format!("{}\r\n", error.message)),
        ),
        Err(error) => error.into_response(),
    }
}

async fn attach(
    state: AppState,
    name: &str,
    version: ApiVersion,
    query: &Query,
    request: Request,
) -> Result<Response> {
    let keys = DetachKeys::parse(query.get("detachKeys"))?;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys"),
    };
    let id = state.engine.container(name)?.id.to_string();
    let attachment = state.engine.container_attach(&id, options).await?;
    let hijack = Hijack::of(request);
    let media_type = if hijack.is_upgrade() {
        stream::media_type(attachment.tty, version)
    } else {
        stream::RAW
    };
    let keys = attachment.tty.then_some(keys);
    let engine = state.engine.clone();
    let shutdown = state.shutdown.clone();
    Ok(
        hijack.take_over(media_type, &state.streams, move |client| async move {
            let serve = serve(client, attachment, keys);
            let end = tokio::select! {
                end = serve => end,
                () = shutdown.cancelled() => return,
            };
            if end == End::Detached
                && let Ok(container) = engine.container(&id)
            {
                engine.publish_event("container", "detach", &id, super::attributes(&container));
            }
        }),
    )
}

/// What was written before, then what is written from now on.
pub(super) async fn serve(
    mut client: Client,
    attachment: engine::Attachment,
    keys: Option<DetachKeys>,
) -> End {
    if let Some(mut earlier) = attachment.prefix {
        while let Some(Ok(bytes)) = earlier.recv().await {
            if client.output.write_all(&bytes).await.is_err() {
                return End::ClientGone;
            }
        }
    }
    match attachment.stream {
        Some(stream) => relay(client, stream, keys).await,
        None => {
            let _ = client.output.shutdown().await;
            End::Finished
        }
    }
}
