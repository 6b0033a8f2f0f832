//! Reading a span of a blob as a stream that survives breaks.
//!
//! After a break the reader asks for the rest with `Range` (distribution-spec 1.1, "Resumable Pull"); a registry
//! that sends everything again is read past what is already known. It gives up after the configured number of
//! attempts that brought no byte. A body longer than the descriptor says is an error, never delivered.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::header::{CONTENT_RANGE, RANGE};
use http::{Method, StatusCode};
use spec::{Digest, Reference};
use url::Url;

use crate::error::Error;
use crate::pace::Pace;
use crate::repository::Repository;
use crate::session::{Call, Session, backoff};

/// What a reader reads of which blob, from where.
#[derive(Clone)]
pub(crate) struct Target {
    pub session: Arc<Session>,
    pub reference: Reference,
    pub digest: Digest,
    pub url: Url,
    /// Of the whole blob.
    pub size: u64,
    pub pace: Pace,
}

/// A span of a blob being read over one connection at a time.
pub(crate) struct Span {
    target: Target,
    position: u64,
    /// Where to end; the rest of a body that goes on is left.
    end: u64,
    /// A registry that sends the whole blob instead of the span will not do.
    only_range: bool,
    /// Bytes that the present body still has before `position`.
    surplus: u64,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    failures: u32,
}

impl Span {
    /// Nothing is asked for before the first byte is wanted.
    pub fn new(target: Target, range: Range<u64>, only_range: bool) -> Span {
        Span {
            target,
            position: range.start,
            end: range.end,
            only_range,
            surplus: 0,
            body: None,
            failures: 0,
        }
    }

    /// Asks for the first byte now, so that a refusal is told at once.
    pub async fn open(mut self) -> Result<Span, Error> {
        if self.position < self.end {
            self.connect().await?;
        }
        Ok(self)
    }

    /// The position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Ends earlier than it was to.
    pub fn cut(&mut self, end: u64) {
        self.end = end.max(self.position).min(self.end);
    }

    /// The next bytes, or `None` when all have been given.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while self.position < self.end {
            match self.next().await {
                Ok(bytes) if bytes.is_empty() => {}
                Ok(mut bytes) => {
                    self.failures = 0;
                    let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
                    bytes.truncate(left);
                    self.position += bytes.len() as u64;
                    self.target.pace.moved(bytes.len()).await;
                    return Ok(Some(bytes));
                }
                Err(error) => {
                    self.body = None;
                    self.failures += 1;
                    let attempts = self.target.session.client.inner.config().attempts;
                    if !error.is_transient() || self.failures >= attempts {
                        return Err(error);
                    }
                    tracing::info!(digest = %self.target.digest, at = self.position, %error, "download resumes");
                    tokio::time::sleep(backoff(self.failures)).await;
                }
            }
        }
        self.body = None;
        Ok(None)
    }

    async fn next(&mut self) -> Result<Bytes, Error> {
        if self.body.is_none() {
            self.connect().await?;
        }
        let (url, size) = (&self.target.url, self.target.size);
        let silence = self.target.session.silence();
        let Some(body) = &mut self.body else {
            return Ok(Bytes::new());
        };
        let mut bytes = match tokio::time::timeout(silence, body.next()).await {
            Ok(Some(Ok(bytes))) => bytes,
            Ok(Some(Err(error))) => return Err(Error::from_transport(&Method::GET, url, &error)),
            Ok(None) => {
                return Err(Error::Broken {
                    verb: "Get",
                    url: url.to_string(),
                    detail: format!("unexpected EOF: {} of {size} bytes arrived", self.position),
                });
            }
            Err(_) => return Err(Error::silent(&Method::GET, url, silence.as_secs())),
        };
        let skipped = self.surplus.min(bytes.len() as u64);
        self.surplus -= skipped;
        bytes.advance(skipped as usize);
        if bytes.len() as u64 > size - self.position {
            return Err(Error::protocol(
                url,
                format!("blob is longer than its {size} bytes"),
            ));
        }
        Ok(bytes)
    }

    async fn connect(&mut self) -> Result<(), Error> {
        let target = &self.target;
        let mut call = Call::new(Method::GET, target.url.clone());
        if self.position > 0 || self.end < target.size {
            call = call.header(RANGE, &format!("bytes={}-{}", self.position, self.end - 1));
        }
        let response = target.session.send(call).await?;
        self.surplus = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response
                    .headers()
                    .get(CONTENT_RANGE)
                    .and_then(|r| r.to_str().ok());
                if range.and_then(range_start) != Some(self.position) {
                    return Err(Error::protocol(
                        &target.url,
                        "answered with another range than was asked for",
                    ));
                }
                0
            }
            status if status.is_success() && self.only_range => {
                return Err(Error::protocol(
                    &target.url,
                    "the registry does not send parts of blobs",
                ));
            }
            status if status.is_success() => self.position,
            StatusCode::NOT_FOUND => {
                return Err(Error::BlobUnknown {
                    repository: target.reference.familiar_name(),
                    digest: target.digest.clone(),
                });
            }
            _ => {
                let sessions = vec![target.session.clone()];
                let repository = Repository::new(target.reference.clone(), sessions, Pace::default());
                return Err(repository.refused(response).await);
            }
        };
        self.body = Some(response.bytes_stream().boxed());
        Ok(())
    }
}

/// The first position in `bytes 5-9/10`.
pub(crate) fn range_start(text: &str) -> Option<u64> {
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
