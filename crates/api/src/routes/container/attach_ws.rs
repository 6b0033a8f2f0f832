//! `GET /containers/{id}/attach/ws`: attach over a WebSocket. Messages carry bare bytes both ways; with several streams they
//! are mixed, since the protocol has no frames for them.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use bytes::Bytes;
use engine::AttachOptions;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::Result;
use crate::request::Query;
use crate::state::AppState;
use crate::stream::{DetachKeys, Unframe};
use crate::version::ApiVersion;

const BUFFER: usize = 32 << 10;

pub async fn handle(
    State(state): State<AppState>,
    Path(name): Path<String>,
    version: ApiVersion,
    query: Query,
    socket: WebSocketUpgrade,
) -> Result<Response> {
    let keys = DetachKeys::parse(query.get("detachKeys"))?;
    // Before API 1.42 all three were always meant.
    let wants = |stream: &str| !version.has(42) || query.flag(stream);
    let options = AttachOptions {
        stdin: wants("stdin"),
        stdout: wants("stdout"),
        stderr: wants("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
        detach_keys: query.text("detachKeys"),
    };
    let attachment = state.engine.container_attach(&name, options).await?;
    let keys = attachment.tty.then_some(keys);
    let shutdown = state.shutdown.clone();
    let tasks = state.streams.clone();
    Ok(socket.on_upgrade(move |socket| async move {
        let _counted = tasks.token();
        tokio::select! {
            () = serve(socket, attachment, keys) => {}
            () = shutdown.cancelled() => {}
        }
    }))
}

async fn serve(socket: WebSocket, attachment: engine::Attachment, mut keys: Option<DetachKeys>) {
    let (mut to_client, mut from_client) = socket.split();
    let mut unframe = (!attachment.tty).then(Unframe::default);
    let mut plain = move |bytes: &[u8]| match &mut unframe {
        Some(unframe) => unframe.push(bytes),
        None => Bytes::copy_from_slice(bytes),
    };
    if let Some(mut earlier) = attachment.prefix {
        while let Some(Ok(bytes)) = earlier.recv().await {
            if to_client.send(Message::Binary(plain(&bytes))).await.is_err() {
                return;
            }
        }
    }
    let Some(stream) = attachment.stream else {
        let _ = to_client.close().await;
        return;
    };
    let (mut output, mut input) = tokio::io::split(stream);
    let outwards = async {
        let mut buffer = vec![0; BUFFER];
        while let Ok(length @ 1..) = output.read(&mut buffer).await {
            let data = plain(buffer.get(..length).unwrap_or_default());
            if !data.is_empty() && to_client.send(Message::Binary(data)).await.is_err() {
                break;
            }
        }
        let _ = to_client.close().await;
    };
    let inwards = async {
        while let Some(Ok(message)) = from_client.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            let (passed, detached) = match &mut keys {
                Some(keys) => keys.filter(&data),
                None => (data.to_vec(), false),
            };
            if input.write_all(&passed).await.is_err() || detached {
                return;
            }
        }
    };
    tokio::select! {
        () = outwards => {}
        () = inwards => {}
    }
}
