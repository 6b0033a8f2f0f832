//! Execs: made on a container, started once, their streams taken over from HTTP.

use api_types::{ExecCreateRequest, ExecStartRequest, IdResponse};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use engine::{Exec, ExecStart, Status};
use http::{HeaderValue, StatusCode};
use spec::ErrorClass;
use tokio::io::AsyncWriteExt;

use crate::answer::{created, ok};
use crate::error::{ApiError, Result};
use crate::request::{Query, body};
use crate::state::{AppState, carry_out};
use crate::stream::{self, DetachKeys, End, FrameKind, Hijack, frame, relay_then};
use crate::version::ApiVersion;
use crate::views;

pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/containers/{name}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

async fn create(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let mut document: ExecCreateRequest = body::read_json(&parts.headers, body).await?;
    if document.cmd.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    if !version.has(42) {
        document.console_size = None;
    }
    // Nonsense is refused now and not when the keys are pressed.
    DetachKeys::parse(&document.detach_keys)?;
    let terminal = document.tty;
    let engine = state.engine.clone();
    let id = carry_out(async move { engine.exec_create(&name, document).await }).await?;
    let hijack = Hijack::of(Request::from_parts(parts, Body::empty()));
    if terminal || hijack.protocol() != Some(stream::EXEC_PROTOCOL) {
        return Ok(created(&IdResponse { id: id.to_string() }));
    }
    let exec = state.engine.exec_inspect(id.as_str()).await?;
    let mut response = take_over(
        &state,
        hijack,
        stream::MULTIPLEXED,
        exec,
        ExecStart::default(),
        true,
    )?;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(stream::EXEC_ID, value);
    }
    Ok(response)
}

async fn inspect(State(state): State<AppState>, Path(id): Path<String>) -> Result<Response> {
    let exec = state.engine.exec_inspect(&id).await?;
    let container = state.engine.container(exec.container.as_str());
    let user = container
        .map(|container| container.config.user.clone())
        .unwrap_or_default();
    Ok(ok(&views::exec::inspect(&exec, &user)))
}

async fn resize(State(state): State<AppState>, Path(id): Path<String>, query: Query) -> Result<Response> {
    let (rows, columns) = (query.size("h", "height")?, query.size("w", "width")?);
    state.engine.exec_resize(&id, rows, columns).await?;
    Ok(StatusCode::OK.into_response())
}

async fn start(
    State(state): State<AppState>,
    Path(id): Path<String>,
    version: ApiVersion,
    request: Request,
) -> Result<Response> {
    // The document is read first; on a connection that is taken over it is the body of the request, and the exec's input
    // is what follows.
    let (parts, body) = request.into_parts();
    let options: ExecStartRequest = body::read_json(&parts.headers, body).await?;
    let exec = state.engine.exec_inspect(&id).await?;
    refuse_unless_running(&state, &exec)?;
    let console_size = options
        .console_size
        .filter(|_| version.has(42) && options.tty)
        .and_then(|size| {
            Some([
                u16::try_from(size.height()).ok()?,
                u16::try_from(size.width()).ok()?,
            ])
        });
    let start = ExecStart {
        detach: options.detach,
        tty: options.tty,
        console_size,
        ..ExecStart::default()
    };
    if options.detach {
        carry_out(async move { state.engine.exec_start(&id, start).await }).await?;
        return Ok(StatusCode::OK.into_response());
    }
    let hijack = Hijack::of(Request::from_parts(parts, Body::empty()));
    let media_type = if hijack.is_upgrade() {
        stream::media_type(options.tty, version)
    } else {
        stream::RAW
    };
    take_over(&state, hijack, media_type, exec, start, false)
}

/// Starts the exec on a connection that stops being HTTP; `tell_exit` ends its stream with the exit code.
fn take_over(
    state: &AppState,
    hijack: Hijack,
    media_type: &'static str,
    exec: Exec,
    start: ExecStart,
    tell_exit: bool,
) -> Result<Response> {
    let keys = DetachKeys::parse(&exec.config.detach_keys)?;
    let (engine, shutdown) = (state.engine.clone(), state.shutdown.clone());
    Ok(
        hijack.take_over(media_type, &state.streams, move |mut client| async move {
            let last = async {
                match tell_exit {
                    true => exit(&engine, &exec.id).await,
                    false => Bytes::new(),
                }
            };
            let attachment = match engine.exec_start(&exec.id, start).await {
                Ok(attachment) => attachment,
                Err(error) => {
                    // HTTP is over: the refusal goes where the output would.
                    let refused = refusal(&error.message, exec.config.tty);
                    let _ = client.output.write_all(&refused).await;
                    let _ = client.output.write_all(&last.await).await;
                    let _ = client.output.shutdown().await;
                    return;
                }
            };
            let Some(stream) = attachment.and_then(|attachment| attachment.stream) else {
                return;
            };
            let keys = exec.config.tty.then_some(keys);
            let end = tokio::select! {
                end = relay_then(client, stream, keys, last) => end,
                () = shutdown.cancelled() => return,
            };
            if end == End::Detached {
                detached(&engine, &exec);
            }
        }),
    )
}

/// The last frame of a stream whose client asked for it. None without an exit code: it asks again by the exec's id.
async fn exit(engine: &engine::Engine, id: &str) -> Bytes {
    match engine.exec_inspect(id).await {
        Ok(Exec {
            exit_code: Some(code),
            ..
        }) => frame(FrameKind::Exit, code.to_string().as_bytes()),
        _ => Bytes::new(),
    }
}

fn refuse_unless_running(state: &AppState, exec: &Exec) -> Result<()> {
    let container = state.engine.container(exec.container.as_str())?;
    match container.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(ApiError::new(
            ErrorClass::Conflict,
            format!(
                "Container {} is paused, unpause the container before exec",
                container.id
            ),
        )),
        _ => Err(ApiError::new(
            ErrorClass::Conflict,
            format!("container {} is not running", container.id),
        )),
    }
}

fn refusal(message: &str, tty: bool) -> Bytes {
    let text = format!("{message}\r\n");
    if tty {
        text.into()
    } else {
        frame(FrameKind::Stdout, text.as_bytes())
    }
}

fn detached(engine: &engine::Engine, exec: &Exec) {
    if let Ok(container) = engine.container(exec.container.as_str()) {
        let mut attributes = super::container::attributes(&container);
        attributes.insert("execID".to_owned(), exec.id.clone());
        engine.publish_event("container", "exec_detach", container.id.as_str(), attributes);
    }
}
