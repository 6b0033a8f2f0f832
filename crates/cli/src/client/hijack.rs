//! Hijacked connections: attach and exec turn HTTP into a raw two-way stream.
//!
//! The result is a plain blocking socket, because two threads that copy bytes are faster and simpler than tasks. A TLS
//! connection is bridged through a socket pair by a task.

use super::body::Body;
use super::{Client, json_headers};
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
    /// Bytes that came with the answer's headers.
    pub early: Bytes,
    /// 8-byte headers tell stdout from stderr; `None`: the daemon did not say.
    pub multiplexed: Option<bool>,
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
        let mut headers = if document.is_some() {
            json_headers()
        } else {
            http::HeaderMap::new()
        };
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("tcp"));
        let body = document.map_or_else(Body::empty, Body::full);
        let reply = self.send(Method::POST, path, headers, body).await?;
        let multiplexed = match reply.header("content-type") {
            Some("application/vnd.docker.raw-stream") => Some(false),
            Some("application/vnd.docker.multiplexed-stream") => Some(true),
            _ => None,
        };
        let status = reply.status();
        let failed = |reason: String| Failure::text(format!("unable to upgrade to tcp, {reason}"));
        let Some(mut response) = reply.into_response() else {
            return Err(failed("no answer".into()));
        };
        if status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(failed(format!("received {}", status.as_u16())));
        }
        let upgraded = hyper::upgrade::on(&mut response)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let parts = upgraded
            .downcast::<TokioIo<Stream>>()
            .map_err(|_| failed("the connection is of another kind".into()))?;
        let socket = blocking(parts.io.into_inner()).map_err(|error| failed(error.to_string()))?;
        Ok(Hijacked {
            socket,
            early: parts.read_buf,
            multiplexed,
        })
    }
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
