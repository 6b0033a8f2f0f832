//! A thin HTTP/1.1 client for the Engine API.
//!
//! Connections are kept and used again one request at a time; a second request while one is under way opens a second
//! connection. The newest version is tried, and a daemon that refuses it says which one it speaks. Only where the first
//! request cannot be sent twice, a daemon that was named is asked before (`/_ping`).
//!
//! `request` answers with the response whatever its status is below 400; refusals become [`Failure::daemon`].

pub mod body;
pub mod hijack;
pub mod query;

use crate::answer::unreadable;
use crate::connect::endpoint::{Endpoint, Globals, resolve};
use crate::connect::launch;
use crate::connect::stream::{self, Stream};
use crate::connect::trouble;
use crate::failure::Failure;
use crate::json::Value;
use body::{Body, Lines};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use std::cell::{OnceCell, RefCell};

/// The newest version of the API this client speaks.
pub const API_VERSION: &str = "1.53";
/// Documents above this size are not read whole.
const DOCUMENT_LIMIT: usize = 256 << 20;

pub struct Client {
    globals: Globals,
    endpoint: OnceCell<Endpoint>,
    version: RefCell<Option<String>>,
    idle: RefCell<Vec<SendRequest<Body>>>,
}

impl Client {
    pub fn new(globals: Globals) -> Client {
        Client {
            globals,
            endpoint: OnceCell::new(),
            version: RefCell::default(),
            idle: RefCell::default(),
        }
    }

    pub fn endpoint(&self) -> Result<&Endpoint, Failure> {
        if let Some(endpoint) = self.endpoint.get() {
            return Ok(endpoint);
        }
        let endpoint = resolve(&self.globals)?;
        Ok(self.endpoint.get_or_init(|| endpoint))
    }

    async fn open(&self) -> Result<Stream, Failure> {
        let endpoint = self.endpoint()?;
        match stream::open(endpoint).await {
            Ok(stream) => Ok(stream),
            Err(error) if !endpoint.named && launch::nobody_listens(&error) => launch::start(endpoint).await,
            Err(error) => Err(trouble::unreachable(endpoint, &error)),
        }
    }

    async fn sender(&self) -> Result<SendRequest<Body>, Failure> {
        loop {
            let Some(mut idle) = self.idle.borrow_mut().pop() else {
                break;
            };
            if idle.ready().await.is_ok() {
                return Ok(idle);
            }
        }
        let stream = self.open().await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(&error))?;
        tokio::spawn(async move {
            // A connection that breaks is reported by the request that waits on it.
            let _ = connection.with_upgrades().await;
        });
        Ok(sender)
    }

    fn broken(&self, error: &hyper::Error) -> Failure {
        match self.endpoint() {
            Ok(endpoint) => trouble::broken(endpoint, error),
            Err(failure) => failure,
        }
    }

    fn give_back(&self, sender: SendRequest<Body>) {
        if !sender.is_closed() {
            self.idle.borrow_mut().push(sender);
        }
    }

    /// The version both sides speak.
    pub async fn version(&self) -> Result<String, Failure> {
        if let Some(version) = self.version.borrow().clone() {
            return Ok(version);
        }
        let version = match forced_version() {
            Some(version) => version,
            None if self.endpoint()?.named => self.ping().await?,
            None => API_VERSION.to_owned(),
        };
        *self.version.borrow_mut() = Some(version.clone());
        Ok(version)
    }

    /// Asks a daemon which version it speaks.
    async fn ping(&self) -> Result<String, Failure> {
        let mut sender = self.sender().await?;
        let request = self.build(Method::HEAD, "/_ping", &HeaderMap::new(), Body::empty())?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        let theirs = response
            .headers()
            .get("api-version")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let _ = response.into_body().collect().await;
        self.give_back(sender);
        Ok(theirs.map_or_else(|| "1.24".to_owned(), |theirs| common_version(&theirs)))
    }

    fn build(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Request<Body>, Failure> {
        let mut builder = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "berth");
        builder = builder.header(
            "user-agent",
            concat!("Berth-Client/", env!("CARGO_PKG_VERSION"), " (linux)"),
        );
        for (name, value) in headers {
            builder = builder.header(name, value);
        }
        builder
            .body(body)
            .map_err(|error| Failure::text(format!("cannot form the request {path}: {error}")))
    }

    /// Sends a request; refusals are failures.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Reply<'_>, Failure> {
        let again = body.replay();
        let known = self.version.borrow().clone();
        let version = match known {
            Some(version) => version,
            None if again.is_some() => forced_version().unwrap_or_else(|| API_VERSION.to_owned()),
            None => self.version().await?,
        };
        let first = self.send_as(&version, method.clone(), path, &headers, body).await;
        match (first, again) {
            (Err(failure), Some(body)) if failure.status == Some(400) => {
                let Some(spoken) = spoken_version(&failure.message) else {
                    return Err(failure);
                };
                *self.version.borrow_mut() = Some(spoken.clone());
                self.send_as(&spoken, method, path, &headers, body).await
            }
            (result, _) => result,
        }
    }

    async fn send_as(
        &self,
        version: &str,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Reply<'_>, Failure> {
        let mut sender = self.sender().await?;
        let request = self.build(method, &format!("/v{version}{path}"), headers, body)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(&error))?;
        let status = response.status();
        if self.version.borrow().is_none()
            && status.as_u16() < 400
            && let Some(theirs) = response
                .headers()
                .get("api-version")
                .and_then(|v| v.to_str().ok())
        {
            let spoken = forced_version().unwrap_or_else(|| common_version(theirs));
            *self.version.borrow_mut() = Some(spoken);
        }
        if status.as_u16() >= 400 {
            let failure = refusal(response).await;
            self.give_back(sender);
            return Err(failure);
        }
        Ok(Reply {
            client: self,
            sender: Some(sender),
            response: Some(response),
        })
    }

    pub async fn get(&self, path: &str) -> Result<Reply<'_>, Failure> {
        self.send(Method::GET, path, HeaderMap::new(), Body::empty())
            .await
    }

    pub async fn post(&self, path: &str) -> Result<Reply<'_>, Failure> {
        self.send(Method::POST, path, HeaderMap::new(), Body::empty())
            .await
    }

    pub async fn delete(&self, path: &str) -> Result<Reply<'_>, Failure> {
        self.send(Method::DELETE, path, HeaderMap::new(), Body::empty())
            .await
    }

    /// Posts a JSON document.
    pub async fn post_json<T: serde::Serialize>(
        &self,
        path: &str,
        document: &T,
    ) -> Result<Reply<'_>, Failure> {
        let bytes = serde_json::to_vec(document)
            .map_err(|error| Failure::text(format!("cannot encode the request: {error}")))?;
        self.send(Method::POST, path, json_headers(), Body::full(bytes))
            .await
    }
}

pub fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    headers
}

/// An answer under way; reading it to the end gives the connection back.
pub struct Reply<'a> {
    client: &'a Client,
    sender: Option<SendRequest<Body>>,
    response: Option<Response<Incoming>>,
}

impl<'a> Reply<'a> {
    pub fn status(&self) -> StatusCode {
        self.response.as_ref().map_or(StatusCode::OK, Response::status)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.as_ref()?.headers().get(name)?.to_str().ok()
    }

    /// The whole body.
    pub async fn bytes(mut self) -> Result<Bytes, Failure> {
        let Some(response) = self.response.take() else {
            return Ok(Bytes::new());
        };
        let limited = http_body_util::Limited::new(response.into_body(), DOCUMENT_LIMIT);
        let bytes = limited
            .collect()
            .await
            .map_err(|error| Failure::text(format!("the daemon's answer broke off: {error}")))?;
        if let Some(sender) = self.sender.take() {
            self.client.give_back(sender);
        }
        Ok(bytes.to_bytes())
    }

    /// The body as one of the API's models.
    pub async fn model<T: DeserializeOwned>(self) -> Result<T, Failure> {
        let bytes = self.bytes().await?;
        serde_json::from_slice(&bytes).map_err(|error| unreadable(&error))
    }

    /// The body as a document in its own order.
    pub async fn document(self) -> Result<Value, Failure> {
        let bytes = self.bytes().await?;
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        Value::parse(&bytes).map_err(|error| unreadable(&error))
    }

    /// Nothing of the body matters.
    pub async fn done(self) -> Result<(), Failure> {
        self.bytes().await.map(|_| ())
    }

    /// The body piece by piece. The connection is not used again.
    pub fn stream(mut self) -> body::Chunks {
        let response = self.response.take();
        body::Chunks::new(response.map(Response::into_body), self.sender.take())
    }

    /// The body as JSON documents, one a line.
    pub fn lines(self) -> Lines {
        Lines::new(self.stream())
    }

    pub(crate) fn into_response(mut self) -> Option<Response<Incoming>> {
        self.response.take()
    }
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let bytes = http_body_util::Limited::new(response.into_body(), 1 << 20)
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let message = match serde_json::from_slice::<api_types::ErrorResponse>(&bytes) {
        Ok(body) if !body.message.is_empty() => body.message,
        _ => {
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            if text.is_empty() {
                status.canonical_reason().unwrap_or("unknown error").to_owned()
            } else {
                text
            }
        }
    };
    Failure::daemon(status.as_u16(), &message)
}

/// The version that the user insists on.
fn forced_version() -> Option<String> {
    let version = std::env::var("DOCKER_API_VERSION").ok()?;
    (!version.is_empty()).then(|| version.trim_start_matches('v').to_owned())
}

/// The newest version that a daemon and this client speak.
fn common_version(theirs: &str) -> String {
    if older(theirs, API_VERSION) {
        theirs
    } else {
        API_VERSION
    }
    .to_owned()
}

/// "client version 1.53 is too new. Maximum supported API version is 1.44"
fn spoken_version(message: &str) -> Option<String> {
    let tail = message.split("supported API version is ").nth(1)?;
    let version: String = tail
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let version = version.trim_end_matches('.').to_owned();
    (version.contains('.')).then_some(version)
}

/// Whether `left` is an older version than `right`.
pub fn older(left: &str, right: &str) -> bool {
    let parts = |text: &str| {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        (
            major.parse::<u32>().unwrap_or(0),
            minor.parse::<u32>().unwrap_or(0),
        )
    };
    parts(left) < parts(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert!(older("1.9", "1.44") && !older("1.53", "1.53"));
        let text = "client version 1.53 is too new. Maximum supported API version is 1.44";
        assert_eq!(spoken_version(text).as_deref(), Some("1.44"));
        assert_eq!(spoken_version("other"), None);
    }
}
