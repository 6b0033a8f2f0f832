//! Request bodies: one JSON document, or a stream of bytes.
//!
//! The media type must be JSON unless there is no body; no body means the defaults. Bodies are bounded. Bodies that are
//! archives are streamed and never held.

use std::io;

use api_types::lenient;
use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::error::{ApiError, Result};

/// No request document of the API comes near this.
const LARGEST: usize = 16 << 20;
/// Pieces of a streamed body that may wait for a slow reader.
const PIECES: usize = 16;

/// Reads an optional document; without a body the defaults.
pub async fn read_json<T: DeserializeOwned + Default>(headers: &HeaderMap, body: Body) -> Result<T> {
    check_content_type(headers, &body)?;
    if is_absent(&body) {
        return Ok(T::default());
    }
    Ok(lenient::from_slice(&collect(body).await?)?)
}

/// Reads a document that must be there.
pub async fn require_json<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T> {
    require(headers, body, lenient::from_slice).await
}

/// Reads a document that must be there, in its own way.
pub async fn require<T>(
    headers: &HeaderMap,
    body: Body,
    read: impl FnOnce(&[u8]) -> std::result::Result<T, lenient::Error>,
) -> Result<T> {
    check_content_type(headers, &body)?;
    match read(&collect(body).await?) {
        Err(lenient::Error::Empty) => Err(ApiError::invalid("invalid JSON: EOF")),
        result => Ok(result?),
    }
}

/// Refuses a body that does not say it is JSON.
pub fn check_content_type(headers: &HeaderMap, body: &Body) -> Result<()> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if given.is_empty() && is_absent(body) {
        return Ok(());
    }
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() {
        return Err(ApiError::invalid(format!(
            "malformed Content-Type header ({given}): mime: no media type"
        )));
    }
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        Err(ApiError::invalid(format!(
            "unsupported Content-Type header ({given}): must be 'application/json'"
        )))
    }
}

/// Whether the body is known to be empty.
pub fn is_absent(body: &Body) -> bool {
    axum::body::HttpBody::is_end_stream(body)
}

/// The whole body, bounded.
pub async fn collect(body: Body) -> Result<Bytes> {
    match Limited::new(body, LARGEST).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::invalid(format!(
            "the request body is larger than {LARGEST} bytes"
        ))),
        Err(error) => Err(ApiError::invalid(format!(
            "the request body could not be read: {error}"
        ))),
    }
}

/// The body's bytes as a channel, for work on threads of the blocking pool. Ends when the reader is dropped.
pub fn channel(body: Body) -> mpsc::Receiver<io::Result<Bytes>> {
    let (pieces, receiver) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        let mut stream = body.into_data_stream();
        while let Some(piece) = stream.next().await {
            if pieces.send(piece.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_types::ExecStartRequest;

    fn headers(content_type: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, content_type.parse().unwrap());
        headers
    }

    #[tokio::test]
    async fn no_body_means_the_defaults() {
        let request: ExecStartRequest = read_json(&HeaderMap::new(), Body::empty()).await.unwrap();
        assert_eq!(request, ExecStartRequest::default());
    }

    #[tokio::test]
    async fn the_media_type_must_be_json() {
        let refuse = async |headers: HeaderMap| {
            read_json::<ExecStartRequest>(&headers, Body::from("{}"))
                .await
                .unwrap_err()
                .message
        };
        assert_eq!(
            refuse(headers("text/plain")).await,
            "unsupported Content-Type header (text/plain): must be 'application/json'"
        );
        assert_eq!(
            refuse(HeaderMap::new()).await,
            "malformed Content-Type header (): mime: no media type"
        );
        let json = headers("application/json; charset=utf-8");
        let good = read_json::<ExecStartRequest>(&json, Body::from("{}"));
        assert!(good.await.is_ok());
    }

    #[tokio::test]
    async fn a_required_document_must_be_there() {
        let error = require_json::<ExecStartRequest>(&HeaderMap::new(), Body::empty())
            .await
            .unwrap_err();
        assert_eq!(error.message, "invalid JSON: EOF");
    }

    #[tokio::test]
    async fn a_huge_body_is_refused() {
        let body = Body::from(vec![b' '; LARGEST + 1]);
        let error = require_json::<ExecStartRequest>(&headers("application/json"), body)
            .await
            .unwrap_err();
        assert!(error.message.contains("larger than"));
    }
}
