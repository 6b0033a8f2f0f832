//! Hijacked connections: attach and exec turn HTTP into a raw two-way stream.
//!
//! The result is a plain blocking socket, because two threads that copy bytes are faster and simpler than tasks. A TLS
//! connection is bridged through a socket pair by a task.

use super::body::Body;
use super::{Client, Reply, json_headers};
use crate::connect::stream::Stream;
use crate::failure::Failure;
use bytes::Bytes;
use http::{HeaderValue, Method, header};
use hyper_util::rt::TokioIo;
use std::fs::File;
use std::os::fd::OwnedFd;

/// A raw stream to a container's first process or an exec.
pub struct Hijacked {
    pub socket: File,
    /// A task of the client's runtime has to carry the bytes meanwhile.
    pub bridged: bool,
    /// Bytes that came with the answer's headers.
    pub early: Bytes,
    /// 8-byte headers tell stdout from stderr; `None`: the daemon did not say.
    pub multiplexed: Option<bool>,
    /// The id of an exec that was made and started by one request.
    pub exec: Option<String>,
}

/// What became of a request to take over the connection.
pub enum Upgraded<'a> {
    Taken(Hijacked),
    /// An ordinary answer: the daemon does not know the protocol.
    Answered(Reply<'a>),
}

impl Hijacked {
    /// Ends our side; the other side sees end of file and may still write.
    pub fn close_write(socket: &File) {
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
    }
}

impl Client {
    /// A connection to the daemon without any HTTP of ours on it.
    pub async fn raw(&self) -> Result<File, Failure> {
        blocking(self.open().await?).map_err(|error| Failure::text(error.to_string()))
    }

    /// Sends a request that takes over the connection.
    pub async fn hijack(&self, path: &str, document: Option<Vec<u8>>) -> Result<Hijacked, Failure> {
        match self.upgrade(path, document, "tcp").await? {
            Upgraded::Taken(hijacked) => Ok(hijacked),
            Upgraded::Answered(reply) => {
                let status = reply.status().as_u16();
                Err(failed(format!("received {status}")))
            }
        }
    }

    /// Sends a request that changes the connection to `protocol`, which our caller speaks.
    pub async fn take_over(
        &self,
        path: &str,
        mut headers: http::HeaderMap,
        protocol: &'static str,
    ) -> Result<TokioIo<hyper::upgrade::Upgraded>, Failure> {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
        let reply = self.send(Method::POST, path, headers, Body::empty()).await?;
        let failed = |reason: String| {
            Failure::text(format!(
                "the daemon does not speak {protocol} at {path}: {reason}"
            ))
        };
        if reply.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(failed(format!("it answered {}", reply.status())));
        }
        let Some(mut response) = reply.into_response() else {
            return Err(failed("no answer".into()));
        };
        let upgraded = hyper::upgrade::on(&mut response).await;
        upgraded
            .map(TokioIo::new)
            .map_err(|error| failed(error.to_string()))
    }

    /// Sends a request that may take over the connection, where the daemon knows the protocol.
    pub async fn upgrade(
        &self,
        path: &str,
        document: Option<Vec<u8>>,
        protocol: &'static str,
    ) -> Result<Upgraded<'_>, Failure> {
        let mut headers = if document.is_some() {
            json_headers()
        } else {
            http::HeaderMap::new()
        };
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
        let body = document.map_or_else(Body::empty, Body::full);
        let reply = self.send(Method::POST, path, headers, body).await?;
        if reply.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Upgraded::Answered(reply));
        }
        let multiplexed = match reply.header("content-type") {
            Some("application/vnd.docker.raw-stream") => Some(false),
            Some("application/vnd.docker.multiplexed-stream") => Some(true),
            _ => None,
        };
        let exec = reply.header("berth-exec-id").map(str::to_owned);
        let Some(mut response) = reply.into_response() else {
            return Err(failed("no answer".into()));
        };
        let upgraded = hyper::upgrade::on(&mut response)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .map_err(|_| failed("the connection is of another kind".into()))?;
        let stream = parts.io.into_inner();
        let bridged = matches!(stream, Stream::Tls(_));
        let socket = blocking(stream).map_err(|error| failed(error.to_string()))?;
        Ok(Upgraded::Taken(Hijacked {
            socket,
            bridged,
            early: parts.read_buf,
            multiplexed,
            exec,
        }))
    }
}

fn failed(reason: String) -> Failure {
    Failure::text(format!("unable to upgrade to tcp, {reason}"))
}

fn blocking(stream: Stream) -> std::io::Result<File> {
    let fd: OwnedFd = match stream {
        Stream::Unix(stream) => {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.into()
        }
        Stream::Tcp(stream) => {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            stream.into()
        }
        Stream::Tls(mut stream) => {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            theirs.set_nonblocking(true)?;
            let mut theirs = tokio::net::UnixStream::from_std(theirs)?;
            tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut *stream, &mut theirs).await;
            });
            ours.into()
        }
    };
    Ok(File::from(fd))
}
