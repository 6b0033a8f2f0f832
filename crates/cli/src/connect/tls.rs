//! TLS to a remote daemon: `--tls`, `--tlsverify`, and the three PEM files.

use super::endpoint::TlsFiles;
use super::stream::ConnectError;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use tls::{Identity, Trust};
use tokio::net::TcpStream;

pub async fn wrap(
    stream: TcpStream,
    host: &str,
    files: &TlsFiles,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let trust = match (&files.ca, files.verify) {
        (Some(ca), true) => Trust::Only(ca),
        (None, true) => Trust::Host,
        // `--tls` without `--tlsverify`: the user asked for that.
        (_, false) => Trust::Anyone,
    };
    let identity = files.cert.as_ref().zip(files.key.as_ref());
    let identity = identity.map(|(certificates, key)| Identity { certificates, key });
    let config = tls::client(trust, identity).map_err(|error| match error {
        tls::Error::File(error) => ConnectError::Tls(format!("could not read {error}")),
        other => ConnectError::Tls(other.to_string()),
    })?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Tls(format!("{host} is no name a certificate can carry")))?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(ConnectError::Io)
}
