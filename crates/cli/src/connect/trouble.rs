//! What a connection's end means, in the user's words.
//!
//! A TLS library tells alerts by number and the HTTP library hides them beneath "connection error"; what helps is which
//! side distrusts which, and the option that changes it. With TLS 1.3 the daemon looks at the client's certificate only
//! after the client thinks it is connected, so a refusal may come with the first request.

use super::endpoint::{Address, Endpoint, TlsFiles};
use super::stream::ConnectError;
use crate::failure::Failure;
use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage};
use std::error::Error;
use std::io;

/// The words for a daemon that could not be reached.
pub fn unreachable(endpoint: &Endpoint, error: &ConnectError) -> Failure {
    match error {
        ConnectError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => Failure::text(format!(
            "permission denied while trying to connect to the Docker daemon socket at {}: {error}",
            endpoint.host
        ))
        .hint("run as root, or as a member of the socket's group"),
        ConnectError::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Failure::text(format!(
                "Cannot connect to the Docker daemon at {}. Is the docker daemon running?",
                endpoint.host
            ))
        }
        ConnectError::Io(error) if let Some(tls) = tls_error(error) => distrust(endpoint, tls),
        ConnectError::Tls(_) | ConnectError::Io(_) => Failure::text(format!(
            "error during connect: cannot reach {}: {error}",
            endpoint.host
        )),
    }
}

/// The words for a connection that ended before an answer came.
pub fn broken(endpoint: &Endpoint, error: &hyper::Error) -> Failure {
    if let Some(tls) = tls_error(error) {
        return distrust(endpoint, tls);
    }
    if error.is_parse() && encrypted(endpoint).is_none() && matches!(endpoint.address, Address::Tcp { .. }) {
        return Failure::text(format!(
            "error during connect: {} does not answer in HTTP: {error}",
            endpoint.host
        ))
        .hint("are you trying to connect to a TLS-enabled daemon without TLS? add --tlsverify, or set DOCKER_TLS_VERIFY=1");
    }
    let reason = error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string);
    Failure::text(format!(
        "error during connect: the daemon at {} broke off the connection: {reason}",
        endpoint.host
    ))
}

fn encrypted(endpoint: &Endpoint) -> Option<&TlsFiles> {
    match &endpoint.address {
        Address::Tcp { tls, .. } => tls.as_ref(),
        Address::Unix(_) => None,
    }
}

/// The TLS library's own error somewhere below; an I/O error carries it where `source` does not look.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn not_tls(endpoint: &Endpoint) -> Failure {
    Failure::text(format!(
        "error during connect: {} does not speak TLS",
        endpoint.host
    ))
    .hint("is its daemon without TLS? leave out --tls and --tlsverify and unset DOCKER_TLS_VERIFY, or start it with --tlsverify")
}

fn distrust(endpoint: &Endpoint, error: &rustls::Error) -> Failure {
    let host = &endpoint.host;
    let files = encrypted(endpoint);
    match error {
        rustls::Error::AlertReceived(alert) => {
            let certificate = files.and_then(|files| files.cert.as_ref());
            match (alert, certificate) {
                (Alert::CertificateRequired, _) | (Alert::HandshakeFailure, None) => Failure::text(format!(
                    "error during connect: the daemon at {host} wants a certificate from the client: certificate required"
                ))
                .hint("give --tlscert and --tlskey, or put cert.pem and key.pem into DOCKER_CERT_PATH"),
                (
                    Alert::UnknownCA
                    | Alert::BadCertificate
                    | Alert::CertificateUnknown
                    | Alert::CertificateExpired
                    | Alert::CertificateRevoked
                    | Alert::UnsupportedCertificate
                    | Alert::AccessDenied
                    | Alert::DecryptError,
                    Some(path),
                ) => Failure::text(format!(
                    "error during connect: the daemon at {host} does not accept the client certificate {}: {}",
                    path.display(),
                    alert_words(*alert)
                ))
                .hint("it must be signed by the authority that the daemon was given as --tlscacert"),
                _ => Failure::text(format!(
                    "error during connect: the daemon at {host} refuses TLS: {}",
                    alert_words(*alert)
                )),
            }
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => Failure::text(format!(
            "error during connect: the certificate of {host} is signed by an unknown authority"
        ))
        .hint("give the authority's certificate as --tlscacert, or as ca.pem in DOCKER_CERT_PATH"),
        rustls::Error::InvalidCertificate(reason) => Failure::text(format!(
            "error during connect: the certificate of {host} cannot be trusted: {reason}"
        )),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => not_tls(endpoint),
        other => Failure::text(format!("error during connect: TLS with {host} failed: {other}")),
    }
}

fn alert_words(alert: Alert) -> String {
    match alert {
        Alert::UnknownCA => "it is signed by an authority the daemon does not know",
        Alert::CertificateExpired => "it has expired",
        Alert::CertificateRevoked => "it was revoked",
        Alert::ProtocolVersion => "no common version of the protocol",
        Alert::HandshakeFailure => "no common settings",
        other => return format!("{other:?}"),
    }
    .to_owned()
}
