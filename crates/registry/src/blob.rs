//! Reading a blob as a stream that survives breaks.
//!
//! After a break the reader asks for the rest with `Range` (distribution-spec 1.1, "Resumable Pull"); a registry
//! that sends everything again is read past what is already known. It gives up after the configured number of
//! attempts that brought no byte. A body longer than the descriptor says is an error, never delivered.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_RANGE, RANGE};
use http::{Method, StatusCode};
use spec::{Digest, Reference};
use url::Url;

use crate::error::Error;
use crate::repository::Repository;
use crate::session::{Call, SILENCE, Session, backoff};

/// A blob being read.
pub struct BlobReader {
    session: Arc<Session>,
    reference: Reference,
    digest: Digest,
    url: Url,
    size: u64,
    position: u64,
    /// Bytes that the present body still has before `position`.
    surplus: u64,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    failures: u32,
}

impl BlobReader {
    pub(crate) async fn open(
        session: Arc<Session>,
        reference: &Reference,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Result<BlobReader, Error> {
        let url = session.url(&format!("blobs/{digest}")).await?;
        let mut reader = BlobReader {
            session,
            reference: reference.clone(),
            digest,
            url,
            size,
            position: offset.min(size),
            surplus: 0,
            body: None,
            failures: 0,
        };
        if reader.position < reader.size {
            reader.connect().await?;
        }
        Ok(reader)
    }

    /// The position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, or `None` when all have been given.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while self.position < self.size {
            match self.next().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(bytes) => {
                    self.failures = 0;
                    self.position += bytes.len() as u64;
                    return Ok(Some(bytes));
                }
                Err(error) => {
                    self.body = None;
                    self.failures += 1;
                    if !error.is_transient() || self.failures >= self.session.client.inner.config().attempts {
                        return Err(error);
                    }
                    tracing::info!(digest = %self.digest, at = self.position, %error, "download resumes");
                    tokio::time::sleep(backoff(self.failures)).await;
                }
            }
        }
        Ok(None)
    }

    async fn next(&mut self) -> Result<Bytes, Error> {
        if self.body.is_none() {
            self.connect().await?;
        }
        let Some(body) = &mut self.body else {
            return Ok(Bytes::new());
        };
        let mut bytes = match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(bytes))) => bytes,
            Ok(Some(Err(error))) => return Err(Error::from_transport(&Method::GET, &self.url, &error)),
            Ok(None) => {
                return Err(Error::Broken {
                    verb: "Get",
                    url: self.url.to_string(),
                    detail: format!("unexpected EOF: {} of {} bytes arrived", self.position, self.size),
                });
            }
            Err(_) => return Err(Error::silent(&Method::GET, &self.url, SILENCE.as_secs())),
        };
        let skipped = self.surplus.min(bytes.len() as u64);
        self.surplus -= skipped;
        bytes.advance(skipped as usize);
        if bytes.len() as u64 > self.size - self.position {
            return Err(Error::protocol(
                &self.url,
                format!("blob is longer than its {} bytes", self.size),
            ));
        }
        Ok(bytes)
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let mut call = Call::new(Method::GET, self.url.clone());
        if self.position > 0 {
            call = call.header(RANGE, &format!("bytes={}-{}", self.position, self.size - 1));
        }
        let response = self.session.send(call).await?;
        self.surplus = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|r| r.to_str().ok());
                if range.and_then(range_start) != Some(self.position) {
                    return Err(Error::protocol(
                        &self.url,
                        "answered with another range than was asked for",
                    ));
                }
                0
            }
            status if status.is_success() => self.position,
            StatusCode::NOT_FOUND => {
                return Err(Error::BlobUnknown {
                    repository: self.reference.familiar_name(),
                    digest: self.digest.clone(),
                });
            }
            _ => {
                let repository = Repository::new(self.reference.clone(), vec![self.session.clone()]);
                return Err(repository.refused(response).await);
            }
        };
        self.body = Some(response.bytes_stream().boxed());
        Ok(())
    }
}

/// The first position in `bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    text.trim()
        .strip_prefix("bytes")?
        .trim_start()
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::range_start;

    #[test]
    fn reads_ranges() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        assert_eq!(range_start("bytes 0-0/*"), Some(0));
        assert_eq!(range_start("bytes */10"), None);
        assert_eq!(range_start("5-9"), None);
    }
}
