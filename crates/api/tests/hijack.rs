//! Connections taken over from HTTP, on real sockets: what a client's bytes look like before, in and after the upgrade.
//!
//! The container is a task that echoes its input and says goodbye when the input ends, so that half-close is seen.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use api::Server;
use api::stream::{self, Hijack, relay};
use axum::Router;
use axum::extract::Request;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

async fn container(mut side: tokio::io::DuplexStream) {
    let mut input = Vec::new();
    let _ = side.read_to_end(&mut input).await;
    let _ = side.write_all(&input).await;
    let _ = side.write_all(b"|bye").await;
}

async fn attach(request: Request) -> axum::response::Response {
    let (ours, theirs) = tokio::io::duplex(1024);
    tokio::spawn(container(theirs));
    let hijack = Hijack::of(request);
    hijack.take_over(stream::RAW, &TaskTracker::new(), move |client| async move {
        relay(client, ours, None).await;
    })
}

fn serve() -> (Server, UnixStream, CancellationToken) {
    let shutdown = CancellationToken::new();
    let router = Router::new().route("/attach", post(attach)).route(
        "/slow",
        get(async || {
            tokio::task::yield_now().await;
            "done"
        }),
    );
    let server = Server::new(router, shutdown.clone());
    let (client, theirs) = UnixStream::pair().expect("a pair of sockets");
    server.spawn(theirs);
    (server, client, shutdown)
}

async fn read_all(client: &mut UnixStream) -> String {
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn an_upgrade_gives_the_bare_connection() {
    let (_server, mut client, _shutdown) = serve();
    // Input may follow the headers in the same packet.
    client
        .write_all(b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst,")
        .await
        .expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a header"));
    }
    let head = String::from_utf8(head).expect("text");
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    let lower = head.to_ascii_lowercase();
    assert!(
        lower.contains("content-type: application/vnd.docker.raw-stream"),
        "{head}"
    );
    assert!(
        lower.contains("connection: upgrade") && lower.contains("upgrade: tcp"),
        "{head}"
    );
    client.write_all(b"second").await.expect("sent");
    client.shutdown().await.expect("half-closed");
    assert_eq!(read_all(&mut client).await, "first,second|bye");
}

#[tokio::test]
async fn without_upgrade_the_answer_is_the_output() {
    let (_server, mut client, _shutdown) = serve();
    client
        .write_all(b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
        .await
        .expect("sent");
    let answer = read_all(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("hi|bye"), "{answer}");
}

#[tokio::test]
async fn shutdown_ends_idle_connections() {
    let (server, mut client, shutdown) = serve();
    client
        .write_all(b"GET /slow HTTP/1.1\r\nHost: d\r\n\r\n")
        .await
        .expect("sent");
    let mut answer = vec![0; 512];
    let length = client.read(&mut answer).await.expect("an answer");
    assert!(answer[..length].ends_with(b"done"));
    shutdown.cancel();
    // A guard against hanging for ever, not a measurement.
    tokio::time::timeout(Duration::from_secs(30), server.drained())
        .await
        .expect("drained");
    assert_eq!(client.read(&mut answer).await.expect("the end"), 0);
}
