//! TLS to a plugin on another host: what the `TLSConfig` of a description says, as rustls takes it.
//!
//! ```text
//! {"Name": …, "Addr": "https://HOST:PORT",
//!  "TLSConfig": {"CAFile": PATH, "CertFile": PATH, "KeyFile": PATH, "InsecureSkipVerify": false}}
//! ```
//!
//! Whoever answers for a plugin says what is mounted as root, so its certificate is checked, against the system's roots
//! and those of `CAFile`, unless the description says in words that it is not to be. Files are read each time, so renewed
//! ones count at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::{Deserialize, Deserializer};

/// `TLSConfig` of a description; what is empty is absent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TlsSettings {
    #[serde(rename = "CAFile", deserialize_with = "or_empty")]
    ca_file: PathBuf,
    #[serde(rename = "CertFile", deserialize_with = "or_empty")]
    cert_file: PathBuf,
    #[serde(rename = "KeyFile", deserialize_with = "or_empty")]
    key_file: PathBuf,
    #[serde(rename = "InsecureSkipVerify", deserialize_with = "or_empty")]
    insecure_skip_verify: bool,
}

/// `null` is as good as nothing.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(given: D) -> Result<T, D::Error> {
    Option::deserialize(given).map(Option::unwrap_or_default)
}

impl TlsSettings {
    /// Reads the files. An error names the one that cannot be used.
    pub(super) fn client(&self) -> Result<Arc<ClientConfig>, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let builder = match self.insecure_skip_verify {
            true => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider))),
            false => builder.with_root_certificates(self.roots()?),
        };
        let is_given = |path: &Path| !path.as_os_str().is_empty();
        match (is_given(&self.cert_file), is_given(&self.key_file)) {
            (false, false) => Ok(Arc::new(builder.with_no_client_auth())),
            (true, true) => {
                let key = PrivateKeyDer::from_pem_file(&self.key_file)
                    .map_err(|error| format!("TLSConfig.KeyFile {}: {error}", self.key_file.display()))?;
                let chain = certificates("CertFile", &self.cert_file)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map(Arc::new)
                    .map_err(|error| format!("TLSConfig.CertFile {}: {error}", self.cert_file.display()))
            }
            _ => Err("TLSConfig has one of CertFile and KeyFile without the other".to_owned()),
        }
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if !self.ca_file.as_os_str().is_empty() {
            let read = certificates("CAFile", &self.ca_file)?;
            let (taken, _) = roots.add_parsable_certificates(read);
            if taken == 0 {
                return Err(format!(
                    "TLSConfig.CAFile {} has no certificate in it",
                    self.ca_file.display()
                ));
            }
        }
        Ok(roots)
    }
}

fn certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error| format!("TLSConfig.{field} {}: {error}", path.display());
    CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<_, _>>()
        .map_err(wrong)
}

/// Takes any certificate. The handshake's signatures are checked all the same, so the other side has the key it shows.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
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
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
