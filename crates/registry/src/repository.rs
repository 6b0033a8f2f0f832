//! One repository with one set of credentials, over its mirrors and the registry itself.
//!
//! Reads try the endpoints in order and stay with the one that answered; only the registry's own error is
//! reported, since a mirror may lack anything. Writes go to the registry alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::LINK;
use http::{Method, StatusCode};
use serde::Deserialize;
use spec::{Digest, Reference};

use crate::error::{Error, ErrorBody};
use crate::pace::{Limit, Pace};
use crate::parts::BlobReader;
use crate::session::{Call, Session, refusal};

/// What will be done with the repository; decides the scope of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Pull,
    Push,
}

/// Most tags that are listed.
const MAX_TAGS: usize = 100_000;
/// Most bytes of all pages of them, which is more than as many tags of the greatest length take.
const MAX_TAGS_BYTES: usize = 16 << 20;

/// A repository of a registry.
pub struct Repository {
    pub(crate) reference: Reference,
    sessions: Vec<Arc<Session>>,
    /// Which endpoint answered last.
    preferred: AtomicUsize,
    pub(crate) pace: Pace,
}

impl Repository {
    pub(crate) fn new(reference: Reference, sessions: Vec<Arc<Session>>, pace: Pace) -> Repository {
        Repository {
            reference,
            sessions,
            preferred: AtomicUsize::new(0),
            pace,
        }
    }

    /// With at most `rate` bytes a second for everything that goes through this repository.
    pub fn limited(mut self, rate: Option<u64>) -> Repository {
        if let Some(rate) = rate {
            self.pace.add(Limit::new(rate));
        }
        self
    }

    /// How long nothing may come.
    pub(crate) fn silence(&self) -> Duration {
        let session = self.sessions.last();
        session.map_or(Duration::ZERO, |session| session.silence())
    }

    /// The registry's own session.
    pub(crate) fn upstream(&self) -> Result<&Arc<Session>, Error> {
        self.sessions.last().ok_or_else(|| Error::Protocol {
            url: self.reference.canonical(),
            detail: "no endpoint".to_owned(),
        })
    }

    /// Runs `read` on the endpoints from the preferred one on, until one succeeds.
    pub(crate) async fn read<'a, T>(
        &'a self,
        read: impl Fn(Arc<Session>) -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let first = self.preferred.load(Ordering::Relaxed);
        for (index, session) in self.sessions.iter().enumerate().skip(first) {
            match read(session.clone()).await {
                Ok(value) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) if index + 1 < self.sessions.len() => {
                    tracing::info!(mirror = %session.endpoint.host, %error, "mirror skipped");
                }
                Err(error) => return Err(error),
            }
        }
        read(self.upstream()?.clone()).await
    }

    /// Opens a blob of `size` bytes for reading from byte `offset` on. The reader resumes by itself; what it
    /// gives is not verified.
    pub async fn blob(&self, digest: &Digest, size: u64, offset: u64) -> Result<BlobReader, Error> {
        self.read(|session| {
            Box::pin(async move { BlobReader::open(session, self, digest.clone(), size, offset).await })
        })
        .await
    }

    /// The size of a blob, if the registry has it.
    pub async fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let session = self.upstream()?;
        let url = session.url(&format!("blobs/{digest}")).await?;
        let response = session.send(Call::new(Method::HEAD, url)).await?;
        match response.status() {
            status if status.is_success() => Ok(Some(content_length(&response).unwrap_or(0))),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(response).await),
        }
    }

    /// All tags, in the registry's order.
    pub async fn tags(&self) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        self.read(|session| {
            Box::pin(async move {
                let mut url = session.url("tags/list").await?;
                let (mut tags, mut bytes) = (Vec::new(), 0);
                loop {
                    let ask = || Call::new(Method::GET, url.clone());
                    let answer = match session.whole(ask, MAX_TAGS_BYTES).await? {
                        Ok(answer) => answer,
                        Err(refused) => return Err(self.refused(refused).await),
                    };
                    bytes += answer.body.len();
                    let next = next_page(&url, &answer.headers);
                    let page: Page = serde_json::from_slice(&answer.body)
                        .map_err(|e| Error::protocol(&url, format!("tags list: {e}")))?;
                    let page = page.tags.unwrap_or_default();
                    let empty = page.is_empty();
                    tags.extend(page);
                    if tags.len() > MAX_TAGS || bytes > MAX_TAGS_BYTES {
                        return Err(Error::protocol(
                            &url,
                            format!("more than {MAX_TAGS} tags, or {MAX_TAGS_BYTES} bytes of them"),
                        ));
                    }
                    match next {
                        Some(next) if !empty && next != url => url = next,
                        _ => return Ok(tags),
                    }
                }
            })
        })
        .await
    }

    /// The error for an answer that says no.
    pub(crate) async fn refused(&self, response: reqwest::Response) -> Error {
        let push = self.upstream().is_ok_and(|s| s.is_push());
        let (status, body, url, after) = refusal(response, self.silence()).await;
        self.error(status, &body, &url, after, push)
    }

    pub(crate) fn error(
        &self,
        status: StatusCode,
        body: &ErrorBody,
        url: &url::Url,
        after: Option<Duration>,
        push: bool,
    ) -> Error {
        let repository = self.reference.familiar_name();
        let denied = || {
            if body.has("DENIED") {
                format!("denied: {}", body.message("DENIED"))
            } else {
                body.text()
                    .unwrap_or_else(|| "denied: requested access to the resource is denied".to_owned())
            }
        };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if push => Error::PushDenied {
                repository,
                detail: denied(),
            },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Error::PullDenied {
                repository,
                detail: denied(),
            },
            StatusCode::NOT_FOUND if body.has("NAME_UNKNOWN") && !push => Error::PullDenied {
                repository,
                detail: format!("name unknown: {}", body.message("NAME_UNKNOWN")),
            },
            StatusCode::TOO_MANY_REQUESTS => Error::TooManyRequests {
                detail: body.text().map_or_else(
                    || "the registry limits requests; wait, or log in for a higher limit".to_owned(),
                    |t| t.trim_start_matches("toomanyrequests: ").to_owned(),
                ),
                after,
            },
            status => {
                let mut shown = url.clone();
                shown.set_query(None);
                Error::Status {
                    status,
                    url: shown.to_string(),
                    detail: body.text().map(|t| format!(": {t}")).unwrap_or_default(),
                }
            }
        }
    }
}

/// Where the answer to `url` says that its next page is.
pub(crate) fn next_page(url: &url::Url, headers: &http::HeaderMap) -> Option<url::Url> {
    let link = headers.get(LINK)?.to_str().ok()?;
    url.join(next_link(link)?).ok()
}

/// The target of a `Link` header with `rel="next"` (RFC 8288).
fn next_link(value: &str) -> Option<&str> {
    value.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters
            .split(';')
            .any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next"));
        next.then_some(target)
    })
}

pub(crate) fn content_length(response: &reqwest::Response) -> Option<u64> {
    response
        .headers()
        .get(http::header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn reads_the_next_page() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(next_link(r#"<x>; rel="prev", <y>; rel="next""#), Some("y"));
        for none in ["", "x", "<x", "<x>; rel=prev"] {
            assert_eq!(next_link(none), None, "{none}");
        }
    }
}
