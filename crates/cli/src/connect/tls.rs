//! TLS to a remote daemon: `--tls`, `--tlsverify`, and the three PEM files.

use super::endpoint::TlsFiles;
use super::stream::ConnectError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::path::Path;
use std::sync::Arc;
use tokio::net::TcpStream;

fn bad(path: &Path, reason: impl std::fmt::Display) -> ConnectError {
    ConnectError::Tls(format!("could not read {}: {reason}", path.display()))
}

/// What stands in a PEM file that should hold a `what`.
fn pem(path: &Path, what: &str, error: pem::Error) -> ConnectError {
    match error {
        pem::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => bad(path, "no such file"),
        pem::Error::NoItemsFound => bad(path, format!("there is no {what} in it")),
        other => bad(path, other),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|error| pem(path, "certificate", error))?;
    match found.is_empty() {
        true => Err(pem(path, "certificate", pem::Error::NoItemsFound)),
        false => Ok(found),
    }
}

pub async fn wrap(
    stream: TcpStream,
    host: &str,
    files: &TlsFiles,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ConnectError> {
    let config = config(files)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| ConnectError::Tls(format!("{host} is no name a certificate can carry")))?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(ConnectError::Io)
}

fn config(files: &TlsFiles) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Tls(error.to_string()))?;
    let builder = if files.verify {
        let mut roots = RootCertStore::empty();
        match &files.ca {
            Some(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|error| bad(path, error))?;
                }
            }
            None => {
                let native = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(native.certs);
            }
        }
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    };
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, "private key", error))?;
    builder
        .with_client_auth_cert(certificates(cert)?, secret)
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                bad(key, format!("it does not belong to {}", cert.display()))
            }
            other => bad(cert, other),
        })
}

/// `--tls` without `--tlsverify`: encrypted, but not told who is at the other end; the user asked for that.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
