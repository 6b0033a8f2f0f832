//! What can go wrong with a registry, in the words that Docker's clients match on.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use spec::{Digest, ErrorClass};
use url::Url;

use crate::config::ConfigError;
use crate::session::MAX_PAUSE;

/// A failure of a request to a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such repository, or none this user may see: registries do not tell the two apart.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require 'docker login': {detail}"
    )]
    PullDenied { repository: String, detail: String },
    /// The user may not write there.
    #[error(
        "push access denied for {repository}, repository does not exist or may require authorization: server message: {detail}"
    )]
    PushDenied { repository: String, detail: String },
    #[error("manifest for {reference} not found: manifest unknown: {detail}")]
    ManifestUnknown { reference: String, detail: String },
    #[error("blob {digest} of {repository} not found: blob unknown to registry")]
    BlobUnknown { repository: String, digest: Digest },
    /// The credentials were refused.
    #[error("{0}")]
    Unauthorized(String),
    /// The registry limits how much may be asked of it, until `after` has passed.
    #[error("toomanyrequests: {detail}{}", reset(*.after))]
    TooManyRequests { detail: String, after: Option<Duration> },
    /// No connection came about.
    #[error("{verb} {url:?}: {detail}")]
    Connect {
        verb: &'static str,
        url: String,
        detail: String,
        refused: bool,
    },
    /// The connection broke off or fell silent.
    #[error("{verb} {url:?}: {detail}")]
    Broken {
        verb: &'static str,
        url: String,
        detail: String,
    },
    /// An answer that the operation does not know.
    #[error("received unexpected HTTP status: {status} from {url:?}{detail}")]
    Status {
        status: StatusCode,
        url: String,
        detail: String,
    },
    /// The registry broke the protocol.
    #[error("registry answered {url:?} wrongly: {detail}")]
    Protocol { url: String, detail: String },
    #[error("manifest {wanted} does not match its digest: the registry sent {found}")]
    Digest { wanted: Digest, found: Digest },
    /// A rule of this engine's configuration.
    #[error(
        "{name} is blocked: the rule for {prefix:?} in this engine's configuration (registries) forbids pulls and pushes"
    )]
    Blocked { name: String, prefix: String },
    #[error("credentials in {}: {detail}", .path.display())]
    AuthFile {
        path: std::path::PathBuf,
        detail: String,
    },
    #[error("{0}")]
    Tls(String),
    #[error("reading the blob to upload: {0}")]
    Source(#[source] io::Error),
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Error {
    /// What kind of failure this is for the faces of the engine.
    pub fn class(&self) -> ErrorClass {
        match self {
            Error::PullDenied { .. } | Error::ManifestUnknown { .. } | Error::BlobUnknown { .. } => {
                ErrorClass::NotFound
            }
            Error::PushDenied { .. } | Error::Blocked { .. } => ErrorClass::Forbidden,
            Error::Unauthorized(_) => ErrorClass::Unauthorized,
            Error::TooManyRequests { .. } => ErrorClass::Unavailable,
            Error::Config(_) => ErrorClass::Invalid,
            Error::Status { status, .. } if !status.is_server_error() => ErrorClass::Internal,
            Error::Status { .. } | Error::Broken { .. } => ErrorClass::Unavailable,
            Error::Connect { .. }
            | Error::Protocol { .. }
            | Error::Digest { .. }
            | Error::Tls(_)
            | Error::AuthFile { .. }
            | Error::Source(_) => ErrorClass::Internal,
        }
    }

    /// Whether the same request may well succeed a little later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Error::Broken { .. } => true,
            Error::TooManyRequests { after, .. } => after.is_none_or(|after| after <= MAX_PAUSE),
            Error::Connect { refused, .. } => !refused,
            Error::Status { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }

    /// Translates a failure of the HTTP client; `url` never carries credentials.
    pub(crate) fn from_transport(method: &Method, url: &Url, error: &reqwest::Error) -> Error {
        let (verb, url_text) = (verb(method), shown(url));
        let refused = io_kind(error) == Some(io::ErrorKind::ConnectionRefused);
        let address = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        );
        if error.is_connect() {
            let name_unknown = deepest(error).contains("lookup address") || error.is_dns();
            let certificate = is_certificate(error);
            let detail = if let Some(detail) = tls_detail(&whole(error), &shown_host(url)) {
                detail
            } else if refused {
                format!("dial tcp {address}: connect: connection refused")
            } else if name_unknown {
                format!(
                    "dial tcp: lookup {}: no such host",
                    url.host_str().unwrap_or_default()
                )
            } else if error.is_timeout() {
                format!("dial tcp {address}: i/o timeout")
            } else {
                format!("dial tcp {address}: {}", deepest(error))
            };
            return Error::Connect {
                verb,
                url: url_text,
                detail,
                refused: refused || name_unknown || certificate || is_plain_http(&deepest(error)),
            };
        }
        // In TLS 1.3 a server refuses the client's certificate after the handshake, by an alert or by closing.
        if let Some(detail) = tls_detail(&whole(error), &shown_host(url)) {
            return Error::Connect {
                verb,
                url: url_text,
                detail,
                refused: true,
            };
        }
        Error::Broken {
            verb,
            url: url_text,
            detail: deepest(error),
        }
    }

    pub(crate) fn silent(method: &Method, url: &Url, seconds: u64) -> Error {
        Error::Broken {
            verb: verb(method),
            url: shown(url),
            detail: format!("no answer and no progress for {seconds} seconds"),
        }
    }

    pub(crate) fn protocol(url: &Url, detail: impl Into<String>) -> Error {
        Error::Protocol {
            url: shown(url),
            detail: detail.into(),
        }
    }
}

/// When a limit is lifted, in words.
fn reset(after: Option<Duration>) -> String {
    let Some(after) = after.filter(|after| !after.is_zero()) else {
        return String::new();
    };
    let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
    let (hours, minutes) = (seconds / 3600, seconds % 3600 / 60);
    let span = match (hours, minutes) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    };
    format!("; the registry takes requests again in {span}")
}

/// Statuses that gateways and busy registries answer with for a while.
pub(crate) fn is_transient_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 500 | 502 | 503 | 504)
}

/// The method as Docker's messages spell it.
fn verb(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "Get",
        "HEAD" => "Head",
        "POST" => "Post",
        "PUT" => "Put",
        "PATCH" => "Patch",
        _ => "Request",
    }
}

/// The URL without its query, which may hold signatures and upload state.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn deepest(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

/// The texts of all causes.
fn whole(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

fn io_kind(error: &reqwest::Error) -> Option<io::ErrorKind> {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = inner.source();
    }
    None
}

fn is_certificate(error: &reqwest::Error) -> bool {
    let text = deepest(error);
    text.contains("certificate") || text.contains("Certificate")
}

/// What a TLS client makes of the beginning of an HTTP answer.
fn is_plain_http(text: &str) -> bool {
    text.contains("InvalidContentType")
}

/// The host as configuration names it: without the port that HTTPS has anyway.
fn shown_host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Failures of TLS in Docker's words, with what to do about each.
fn tls_detail(text: &str, host: &str) -> Option<String> {
    let verify = "tls: failed to verify certificate: x509:";
    let insecure = format!("or name {host} in insecure-registries");
    if text.contains("UnknownIssuer") || text.contains("CaUsedAsEndEntity") {
        return Some(format!(
            "{verify} certificate signed by unknown authority; put the certificate of its authority into \
             /etc/berth/certs.d/{host}/ca.crt, {insecure}"
        ));
    }
    if text.contains("not valid for name") || text.contains("NotValidForName") {
        return Some(format!("{verify} certificate is not valid for {host}: {text}"));
    }
    if text.contains("expired") || text.contains("Expired") || text.contains("NotValidYet") {
        return Some(format!(
            "{verify} certificate has expired or is not yet valid: {text}"
        ));
    }
    if text.contains("CertificateRequired") {
        return Some(format!(
            "remote error: tls: certificate required; put this engine's into \
             /etc/berth/certs.d/{host}/client.cert and client.key"
        ));
    }
    is_plain_http(text)
        .then(|| format!("http: server gave HTTP response to HTTPS client; use HTTPS there, {insecure}"))
}

/// The body of a refusal (distribution-spec 1.1, "Error Codes").
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ErrorBody {
    #[serde(default)]
    errors: Vec<Entry>,
    /// Docker Hub's token server uses this instead.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl ErrorBody {
    pub fn parse(bytes: &[u8]) -> ErrorBody {
        serde_json::from_slice(bytes).unwrap_or_default()
    }

    pub fn has(&self, code: &str) -> bool {
        self.errors.iter().any(|e| e.code == code)
    }

    /// `code: message` of each entry, as Docker prints them.
    pub fn text(&self) -> Option<String> {
        let texts: Vec<String> = self
            .errors
            .iter()
            .map(|e| match (e.code.is_empty(), e.message.is_empty()) {
                (true, _) => e.message.clone(),
                (false, true) => spoken(&e.code),
                (false, false) => format!("{}: {}", spoken(&e.code), e.message),
            })
            .filter(|t| !t.is_empty())
            .collect();
        match (texts.is_empty(), &self.details) {
            (false, _) => Some(texts.join("; ")),
            (true, details) => details.clone(),
        }
    }

    /// The message of the entry with `code`, or its spoken code.
    pub fn message(&self, code: &str) -> String {
        self.errors
            .iter()
            .find(|e| e.code == code && !e.message.is_empty())
            .map_or_else(|| spoken(code), |e| e.message.clone())
    }
}

fn spoken(code: &str) -> String {
    code.to_ascii_lowercase().replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_docker_prints_them() {
        let body = ErrorBody::parse(
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
        );
        assert!(body.has("MANIFEST_UNKNOWN"));
        assert_eq!(body.text().unwrap(), "manifest unknown: manifest unknown");
        assert_eq!(body.message("MANIFEST_UNKNOWN"), "manifest unknown");
        assert_eq!(ErrorBody::parse(b"<html>").text(), None);
        assert_eq!(
            ErrorBody::parse(br#"{"details":"incorrect username or password"}"#)
                .text()
                .unwrap(),
            "incorrect username or password"
        );
    }

    #[test]
    fn failures_of_tls_say_what_to_do() {
        let said = |text: &str| tls_detail(text, "reg.lan:5000").unwrap_or_default();
        let unknown = said("invalid peer certificate: UnknownIssuer");
        assert!(
            unknown.contains("x509: certificate signed by unknown authority"),
            "{unknown}"
        );
        assert!(unknown.contains("certs.d/reg.lan:5000/ca.crt"), "{unknown}");
        assert!(said("received fatal alert: CertificateRequired").contains("client.cert"));
        assert!(
            said("received corrupt message of type InvalidContentType")
                .contains("HTTP response to HTTPS client")
        );
        assert_eq!(tls_detail("connection reset by peer", "h"), None);
    }

    #[test]
    fn queries_are_not_shown() {
        let url = Url::parse("https://r.example/v2/a/blobs/uploads/1?_state=secret").unwrap();
        let text = Error::protocol(&url, "x").to_string();
        assert!(!text.contains("secret"), "{text}");
    }
}
