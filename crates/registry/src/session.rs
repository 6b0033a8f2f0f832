//! One endpoint with one set of credentials: sends requests, answers challenges, follows redirects, tries again.
//!
//! Rules: `Authorization` is sent only to the endpoint's own origin; HTTPS is never left for HTTP by a redirect;
//! a token server that a registry names over HTTPS must itself be HTTPS before it is shown a password.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use http::{Method, StatusCode};
use reqwest::Response;
use tokio::sync::OnceCell;
use url::Url;

use crate::auth::{Auth, TokenKey, bearer_header};
use crate::challenge::Challenge;
use crate::client::Client;
use crate::endpoint::{Endpoint, Security};
use crate::error::{Error, ErrorBody, is_transient_status};
use crate::pace::Sending;
use crate::repository::Access;

/// Silence after the last byte of an upload: registries verify and move large blobs before they answer.
const COMMIT_SILENCE: Duration = Duration::from_secs(600);
/// Most that is read of an answer that is not content.
pub(crate) const MAX_ANSWER: usize = 1 << 20;
const MAX_REDIRECTS: usize = 10;
/// Longest pause a `Retry-After` can ask for.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(120);

pub(crate) struct Session {
    pub client: Client,
    pub endpoint: Endpoint,
    pub auth: Auth,
    access: Access,
    origin: OnceCell<Url>,
}

/// A request body that can be made anew for each attempt.
pub(crate) enum Payload<'a> {
    None,
    Bytes(Bytes),
    /// Tells in `sending` what went out, so that silence can be told from slowness. Not sent twice: what a second
    /// attempt needs is another offset.
    Stream {
        body: &'a mut Option<reqwest::Body>,
        length: u64,
        sending: Arc<Sending>,
    },
}

pub(crate) struct Call<'a> {
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub payload: Payload<'a>,
    /// Scopes beside the repository's own.
    pub extra_scope: Option<String>,
}

/// An answer of which all has come.
pub(crate) struct Whole {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, url: Url) -> Call<'a> {
        Call {
            method,
            url,
            headers: HeaderMap::new(),
            payload: Payload::None,
            extra_scope: None,
        }
    }

    pub fn header(mut self, name: http::HeaderName, value: &str) -> Call<'a> {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }
}

impl Session {
    pub fn new(client: Client, endpoint: Endpoint, auth: Auth, access: Access) -> Session {
        Session {
            client,
            endpoint,
            auth,
            access,
            origin: OnceCell::new(),
        }
    }

    /// How long nothing may come.
    pub fn silence(&self) -> Duration {
        self.client.inner.config().silence
    }

    pub fn is_push(&self) -> bool {
        self.access == Access::Push
    }

    pub async fn origin(&self) -> Result<&Url, Error> {
        self.origin
            .get_or_try_init(|| self.client.inner.origin(&self.endpoint))
            .await
    }

    /// `<origin><prefix>/v2/<repository>/<rest>`.
    pub async fn url(&self, rest: &str) -> Result<Url, Error> {
        let origin = self.origin().await?;
        let path = format!("{}/v2/{}/{rest}", self.endpoint.prefix, self.endpoint.repository);
        origin
            .join(&path)
            .map_err(|e| Error::protocol(origin, e.to_string()))
    }

    /// Sends a call until it is answered with something other than a challenge, a redirect (of GET and HEAD) or
    /// a passing failure. A stream is sent once.
    pub async fn send(&self, mut call: Call<'_>) -> Result<Response, Error> {
        let attempts = self.client.inner.config().attempts.max(1);
        let replayable = !matches!(call.payload, Payload::Stream { .. });
        let origin = self.origin().await?.clone();
        // Also of where an upload goes on and of the next page of a list, which the registry names.
        check_downgrade(&origin, &call.url)?;
        let (mut failures, mut challenged, mut redirects) = (0, false, 0);
        loop {
            let own = same_origin(&call.url, &origin);
            let authorization = if own {
                self.authorization(&call).await?
            } else {
                None
            };
            let shown = authorization.is_some();
            let outcome = self.once(&mut call, authorization).await;
            let pause = match outcome {
                Ok(response) => {
                    let status = response.status();
                    if status == StatusCode::UNAUTHORIZED && own && !challenged && replayable {
                        if let Some(challenge) = Challenge::best(response.headers()) {
                            challenged = true;
                            if self.accept_challenge(&origin, challenge, &call, shown).await? {
                                continue;
                            }
                        }
                        return Ok(response);
                    }
                    let readonly = matches!(call.method, Method::GET | Method::HEAD);
                    if status.is_redirection() && readonly && response.headers().contains_key(LOCATION) {
                        redirects += 1;
                        if redirects > MAX_REDIRECTS {
                            return Err(Error::protocol(&call.url, "more than 10 redirects"));
                        }
                        call.url = self.redirect_target(&call.url, response.headers())?;
                        continue;
                    }
                    let busy = status == StatusCode::TOO_MANY_REQUESTS || is_transient_status(status);
                    let after = retry_after(response.headers());
                    // Nobody waits for hours without a word: when the limit is lifted is told instead.
                    let too_long = after.is_some_and(|after| after > MAX_PAUSE);
                    if !replayable || !busy || too_long || failures + 1 >= attempts {
                        return Ok(response);
                    }
                    after
                }
                Err(error) => {
                    // A connection that does not come about takes its whole timeout: one more try tells.
                    let most = if matches!(error, Error::Connect { .. }) {
                        attempts.min(2)
                    } else {
                        attempts
                    };
                    if !replayable || !error.is_transient() || failures + 1 >= most {
                        return Err(error);
                    }
                    None
                }
            };
            failures += 1;
            let pause = pause.unwrap_or_else(|| backoff(failures)).min(MAX_PAUSE);
            tracing::debug!(url = %call.url.path(), ?pause, failures, "registry request will be repeated");
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a call, which `make` makes anew for each attempt, until its answer of at most `most` bytes is here: one that
    /// breaks off or falls silent is asked for again. An answer that is no success is given back unread.
    pub async fn whole(
        &self,
        make: impl Fn() -> Call<'static>,
        most: usize,
    ) -> Result<Result<Whole, Response>, Error> {
        let attempts = self.client.inner.config().attempts.max(1);
        let mut failures = 0;
        loop {
            let response = self.send(make()).await?;
            if !response.status().is_success() {
                return Ok(Err(response));
            }
            let headers = response.headers().clone();
            let error = match read_answer(response, most, self.silence()).await {
                Ok(body) => return Ok(Ok(Whole { headers, body })),
                Err(error) => error,
            };
            failures += 1;
            if !error.is_transient() || failures >= attempts {
                return Err(error);
            }
            tracing::debug!(%error, failures, "a registry's answer will be asked for again");
            tokio::time::sleep(backoff(failures)).await;
        }
    }

    /// Sends a request without credentials and gives back whatever answers it.
    pub async fn ping(&self, url: Url) -> Result<Response, Error> {
        self.bare(Call::new(Method::GET, url)).await
    }

    /// Sends a request as it is: no challenge is answered, nothing is repeated.
    pub async fn bare(&self, mut call: Call<'_>) -> Result<Response, Error> {
        self.once(&mut call, None).await
    }

    async fn once(&self, call: &mut Call<'_>, authorization: Option<HeaderValue>) -> Result<Response, Error> {
        let verify = self.endpoint.security == Security::Verified
            || !self.origin().await.is_ok_and(|o| same_origin(o, &call.url));
        let http = self.client.inner.http(&call.url, verify)?;
        let mut request = http
            .request(call.method.clone(), call.url.clone())
            .headers(call.headers.clone());
        if let Some(value) = authorization {
            request = request.header(AUTHORIZATION, value);
        }
        let mut progress = None;
        match &mut call.payload {
            Payload::None => {
                if matches!(call.method, Method::POST | Method::PUT | Method::PATCH) {
                    request = request.header(http::header::CONTENT_LENGTH, 0);
                }
            }
            Payload::Bytes(bytes) => request = request.body(bytes.clone()),
            Payload::Stream {
                body,
                length,
                sending,
            } => {
                if let Some(body) = body.take() {
                    request = request.header(http::header::CONTENT_LENGTH, *length).body(body);
                }
                progress = Some((sending.clone(), *length));
            }
        }
        let answer = request.send();
        tokio::pin!(answer);
        let mut seen = 0;
        loop {
            let patience = match &progress {
                Some((sending, length)) if sending.sent() >= *length => COMMIT_SILENCE,
                _ => self.silence(),
            };
            match tokio::time::timeout(patience, &mut answer).await {
                Ok(Ok(response)) => {
                    if self.endpoint.security == Security::Insecure && call.url.scheme() == "http" {
                        self.client.inner.remember_scheme(&self.endpoint.host, "http");
                    }
                    return Ok(response);
                }
                Ok(Err(error)) => {
                    let error = Error::from_transport(&call.method, &call.url, &error);
                    if matches!(error, Error::Connect { .. }) {
                        self.client.inner.forget_scheme(&self.endpoint.host);
                    }
                    return Err(error);
                }
                Err(_) => {
                    let held = progress.as_ref().is_some_and(|(sending, _)| sending.is_held());
                    let now = progress.as_ref().map_or(0, |(sending, _)| sending.sent());
                    if now == seen && !held {
                        return Err(Error::silent(&call.method, &call.url, patience.as_secs()));
                    }
                    seen = now;
                }
            }
        }
    }

    fn redirect_target(&self, from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
        let target = headers
            .get(LOCATION)
            .and_then(|l| l.to_str().ok())
            .and_then(|l| from.join(l).ok())
            .ok_or_else(|| Error::protocol(from, "redirect to something that is not a URL"))?;
        check_downgrade(from, &target)?;
        Ok(target)
    }

    /// The header for the endpoint's own origin, as far as it is known what it wants.
    async fn authorization(&self, call: &Call<'_>) -> Result<Option<HeaderValue>, Error> {
        if let Auth::Registry(token) = &self.auth {
            return Ok(bearer_header(token));
        }
        let origin = self.origin().await?;
        match self
            .client
            .inner
            .challenge(&origin.origin().ascii_serialization())
        {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.auth.basic_header()),
            Some(Challenge::Bearer { realm, service, .. }) => {
                let key = self.token_key(&realm, service.as_deref(), call, None);
                if let Some(token) = self.client.inner.tokens.get(&key) {
                    return Ok(bearer_header(&token));
                }
                let answer = self.fetch_token(origin, &key, false).await?;
                self.client.inner.tokens.put(key, &answer);
                Ok(answer.token().and_then(bearer_header))
            }
        }
    }

    /// Prepares the answer to a challenge. False if there is nothing to answer with; `shown` says that the refused call
    /// carried credentials already.
    async fn accept_challenge(
        &self,
        origin: &Url,
        challenge: Challenge,
        call: &Call<'_>,
        shown: bool,
    ) -> Result<bool, Error> {
        let name = origin.origin().ascii_serialization();
        match &challenge {
            Challenge::Basic => {
                self.client.inner.remember_challenge(&name, &challenge);
                // Another call may have met the same challenge first; what counts is what this one said.
                Ok(!shown && self.auth.basic_header().is_some())
            }
            Challenge::Bearer {
                realm,
                service,
                scope,
            } => {
                if matches!(self.auth, Auth::Registry(_)) {
                    return Ok(false);
                }
                self.client.inner.remember_challenge(&name, &challenge);
                let key = self.token_key(realm, service.as_deref(), call, scope.as_deref());
                // Whatever is cached was just refused.
                self.client.inner.tokens.forget(&key);
                let answer = self.fetch_token(origin, &key, false).await?;
                self.client.inner.tokens.put(key, &answer);
                Ok(answer.token().is_some())
            }
        }
    }

    fn token_key(
        &self,
        realm: &str,
        service: Option<&str>,
        call: &Call<'_>,
        asked: Option<&str>,
    ) -> TokenKey {
        let mut scope = if self.endpoint.repository.is_empty() {
            asked.unwrap_or_default().to_owned()
        } else {
            let actions = match self.access {
                Access::Pull => "pull",
                Access::Push => "pull,push",
            };
            format!("repository:{}:{actions}", self.endpoint.repository)
        };
        if let Some(extra) = &call.extra_scope {
            scope.push(' ');
            scope.push_str(extra);
        }
        TokenKey::new(realm, service.unwrap_or_default(), &scope, &self.auth)
    }
}

/// HTTPS must not be left for HTTP.
pub(crate) fn check_downgrade(from: &Url, to: &Url) -> Result<(), Error> {
    match (from.scheme(), to.scheme()) {
        ("https", "https") | ("http", "http" | "https") => Ok(()),
        _ => Err(Error::protocol(
            from,
            format!(
                "refers to {:?}, which is not HTTPS",
                to.origin().ascii_serialization()
            ),
        )),
    }
}

pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Pause before the n-th repetition: half a second, doubling, with up to a quarter of chance.
pub(crate) fn backoff(failures: u32) -> Duration {
    let base = Duration::from_millis(500) * 2u32.pow(failures.saturating_sub(1).min(6));
    // The clock's low digits keep several clients from returning in step.
    let chance = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    base + base * (chance % 64) / 256
}

/// When to come back: seconds or a date (RFC 9110, 10.2.3), or the second since 1970 that Docker Hub gives.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    let until = |time: jiff::Timestamp| {
        let left = time.duration_since(jiff::Timestamp::now());
        Some(Duration::try_from(left).unwrap_or_default())
    };
    if let Some(text) = text(RETRY_AFTER.as_str()) {
        if let Ok(seconds) = text.parse() {
            return Some(Duration::from_secs(seconds));
        }
        if let Ok(date) = jiff::fmt::rfc2822::parse(text) {
            return until(date.timestamp());
        }
    }
    let second = text("x-retry-after")?.parse().ok()?;
    until(jiff::Timestamp::from_second(second).ok()?)
}

/// Reads an answer of bounded size, giving up on silence.
pub(crate) async fn read_answer(
    response: Response,
    most: usize,
    silence: Duration,
) -> Result<Vec<u8>, Error> {
    let url = response.url().clone();
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    loop {
        match tokio::time::timeout(silence, stream.next()).await {
            Ok(None) => return Ok(body),
            Ok(Some(Ok(bytes))) => {
                if body.len() + bytes.len() > most {
                    return Err(Error::protocol(&url, format!("answer larger than {most} bytes")));
                }
                body.extend_from_slice(&bytes);
            }
            Ok(Some(Err(error))) => return Err(Error::from_transport(&Method::GET, &url, &error)),
            Err(_) => return Err(Error::silent(&Method::GET, &url, silence.as_secs())),
        }
    }
}

/// Turns a refusal into an error, for answers with no meaning of their own to the caller.
pub(crate) async fn refusal(
    response: Response,
    silence: Duration,
) -> (StatusCode, ErrorBody, Url, Option<Duration>) {
    let (status, url) = (response.status(), response.url().clone());
    let after = retry_after(response.headers());
    let body = read_answer(response, MAX_ANSWER, silence).await;
    let body = body.unwrap_or_default();
    (status, ErrorBody::parse(&body), url, after)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ClientConfig;

    #[tokio::test]
    async fn https_is_not_left_for_http() {
        let client = Client::new(ClientConfig::default()).unwrap();
        let endpoint = Endpoint::registry(&client.inner.config(), "registry.invalid", "app");
        let origin = Url::parse("https://registry.invalid").unwrap();
        let session = Session {
            origin: OnceCell::new_with(Some(origin)),
            ..Session::new(client, endpoint, Auth::Anonymous, Access::Push)
        };
        // Nothing listens there, which would be another error.
        let upload = Url::parse("http://127.0.0.1:1/upload").unwrap();
        let refused = session.send(Call::new(Method::PUT, upload)).await.unwrap_err();
        assert!(refused.to_string().contains("is not HTTPS"), "{refused}");
    }
}
