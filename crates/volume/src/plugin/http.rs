//! One question to a plugin and its answer: HTTP/1.1 with JSON in both directions, a connection for each.
//!
//! The whole exchange has one deadline, and the answer a limit, whatever the other side does.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// More than any list of volumes needs.
const LIMIT: usize = 16 << 20;
const KIND: &str = "application/vnd.docker.plugins.v1.2+json";

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Address::Unix(path.into()));
        }
        if let Some(host) = text.strip_prefix("tcp://").filter(|host| !host.is_empty()) {
            return Ok(Address::Tcp(host.trim_end_matches('/').to_owned()));
        }
        Err(format!(
            "the address {text:?} is neither unix:///PATH nor tcp://HOST:PORT"
        ))
    }
}

/// Status and body.
pub(super) fn ask(
    address: &Address,
    path: &str,
    body: Vec<u8>,
    timeout: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let asked = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let answer = runtime.block_on(async {
            let exchange = exchange(address, path, body);
            tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
                let late = "its time is over (--volume-plugin-timeout)";
                Err(io::Error::new(io::ErrorKind::TimedOut, late))
            })
        });
        // Looking up a name cannot be broken off.
        runtime.shutdown_background();
        answer
    };
    // Callers may be anywhere, in another runtime too, and none of this may wait there.
    std::thread::scope(|scope| {
        let asking = std::thread::Builder::new().name("plugin".to_owned());
        let answer = asking.spawn_scoped(scope, asked)?.join();
        answer.unwrap_or_else(|_| Err(io::Error::other("the exchange broke down")))
    })
}

async fn exchange(address: &Address, path: &str, body: Vec<u8>) -> io::Result<(u16, Vec<u8>)> {
    match address {
        Address::Unix(socket) => converse(UnixStream::connect(socket).await?, path, body).await,
        Address::Tcp(host) => converse(TcpStream::connect(host).await?, path, body).await,
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    path: &str,
    body: Vec<u8>,
) -> io::Result<(u16, Vec<u8>)> {
    let request = Request::post(path)
        .header(header::HOST, "plugin")
        .header(header::USER_AGENT, "berth")
        .header(header::ACCEPT, KIND)
        .header(header::CONTENT_TYPE, KIND)
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(wrong)?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(wrong)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), LIMIT).collect().await;
    connection.abort();
    match body {
        Ok(body) => Ok((status, body.to_bytes().into())),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => wrong(*error),
            Err(_) => io::Error::other(format!("the answer is longer than {LIMIT} bytes")),
        }),
    }
}

fn wrong(error: hyper::Error) -> io::Error {
    if error.is_parse() {
        return io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    }
    if error.is_incomplete_message() {
        return io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection ended before the answer did",
        );
    }
    io::Error::other(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            Address::parse("unix:///run/x"),
            Ok(Address::Unix("/run/x".into()))
        );
        assert_eq!(Address::parse("tcp://host:1/"), Ok(Address::Tcp("host:1".into())));
        for wrong in ["", "unix://x", "http://x", "tcp://"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
