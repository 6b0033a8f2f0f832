//! TLS for registries: rustls with the ring provider, the system's roots, and the certificates of a host's
//! folder in `certs.d`.
//!
//! The roots are read once, at the first registry that needs them: engines that only speak to loopback never
//! pay for them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::error::Error;

/// What TLS is made of for one host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TlsChoice {
    /// Certificates are checked.
    pub verify: bool,
    /// A folder of `certs.d` that exists for the host, as it was then: a changed one makes another choice.
    pub folder: Option<(PathBuf, SystemTime)>,
}

/// When something in the folder was changed last.
pub(crate) fn changed(folder: &Path) -> SystemTime {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let times = entries.filter_map(|entry| std::fs::metadata(entry.path()).ok()?.modified().ok());
    let own = std::fs::metadata(folder).and_then(|meta| meta.modified());
    times.chain(own).max().unwrap_or(SystemTime::UNIX_EPOCH)
}

pub(crate) fn client_config(choice: &TlsChoice) -> Result<ClientConfig, Error> {
    let provider = tls::provider();
    let certificates = match &choice.folder {
        Some((folder, _)) => Folder::read(folder)?,
        None => Folder::default(),
    };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Tls(e.to_string()))?;
    let builder = if choice.verify && certificates.roots.is_empty() {
        builder.with_root_certificates(tls::host_authorities().clone())
    } else if choice.verify {
        let verifier = Pinned::new(certificates.roots, provider)?;
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    } else {
        builder
            .dangerous()
            // The administrator declared the registry insecure.
            .with_custom_certificate_verifier(Arc::new(tls::Unverified::new()))
    };
    let mut config = match certificates.identity {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| Error::Tls(format!("client certificate cannot be used: {e}")))?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What a host's folder holds: `*.crt` are roots, `*.cert` with the `*.key` of the same name the identity.
#[derive(Default)]
struct Folder {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Folder {
    fn read(folder: &Path) -> Result<Folder, Error> {
        let wrong = |path: &Path, why: &dyn std::fmt::Display| {
            Error::Tls(format!("certificate {}: {why}", path.display()))
        };
        let mut names: Vec<PathBuf> = std::fs::read_dir(folder)
            .map_err(|e| wrong(folder, &e))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        names.sort();
        let mut found = Folder::default();
        for path in names {
            let file = |error: tls::FileError| Error::Tls(format!("certificate {error}"));
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.roots.extend(tls::certificates(&path).map_err(file)?),
                Some("cert") if found.identity.is_none() => {
                    let key_path = path.with_extension("key");
                    if !key_path.exists() {
                        return Err(wrong(
                            &key_path,
                            &"missing, though the certificate of that name exists",
                        ));
                    }
                    let key = tls::private_key(&key_path).map_err(file)?;
                    found.identity = Some((tls::certificates(&path).map_err(file)?, key));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// The system's roots and those of a host's folder. A certificate that is itself in the folder is taken too, though it
/// is marked as an authority: that is what `openssl req -x509` makes, and what registries that sign for themselves
/// show. It must be valid for the host and at this time all the same.
#[derive(Debug)]
struct Pinned {
    roots: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl Pinned {
    fn new(own: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Pinned, Error> {
        let mut roots = tls::host_authorities().clone();
        roots.add_parsable_certificates(own.iter().cloned());
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| Error::Tls(error.to_string()))?;
        Ok(Pinned { roots, own })
    }

    /// Whether the only thing against the certificate is that it is an authority's; its time was looked at before that.
    fn is_own_authority(&self, shown: &CertificateDer<'_>, error: &rustls::Error) -> bool {
        matches!(error, rustls::Error::InvalidCertificate(reason) if format!("{reason:?}").contains("CaUsedAsEndEntity"))
            && self.own.iter().any(|own| own.as_ref() == shown.as_ref())
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified =
            self.roots
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            Err(error) if self.is_own_authority(end_entity, &error) => {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                verify_server_name(&parsed, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.roots.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}
