//! TLS for every room that speaks it: certificates and keys from PEM files, who is believed, and what rustls makes of both.
//!
//! One provider of cryptography, one text for each thing that can be wrong with a file, and one place where a check can be
//! left out, always because somebody said so in words. Files are read at each call, so renewed ones count at once; the
//! host's authorities are read once, by the first who needs them.

mod files;
mod unverified;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};

pub use files::{FileError, authorities, certificates, private_key, unusable};
pub use unverified::Unverified;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("TLS cannot be set up: {0}")]
    Settings(#[from] rustls::Error),
}

/// Whose certificates a client believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust<'a> {
    /// Those that the host's authorities signed.
    Host,
    /// Those that authorities in a file signed.
    Only(&'a Path),
    /// Those of the host and of a file.
    HostAnd(&'a Path),
    /// Whoever answers.
    Anyone,
}

/// Who a client says it is: its certificates, and the key of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    pub certificates: &'a Path,
    pub key: &'a Path,
}

pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client that believes as said, and shows who it is where it is asked.
pub fn client(trust: Trust<'_>, identity: Option<Identity<'_>>) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::Host => builder.with_root_certificates(host_authorities().clone()),
        Trust::Only(file) => builder.with_root_certificates(authorities(file)?),
        Trust::HostAnd(file) => {
            let mut both = host_authorities().clone();
            both.roots.extend(authorities(file)?.roots);
            builder.with_root_certificates(both)
        }
        Trust::Anyone => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified::new())),
    };
    let Some(Identity {
        certificates: cert,
        key,
    }) = identity
    else {
        return Ok(builder.with_no_client_auth());
    };
    let secret = private_key(key)?;
    builder
        .with_client_auth_cert(certificates(cert)?, secret)
        .map_err(|error| files::unusable(cert, key, error).into())
}

/// The authorities that the host's programs believe.
pub fn host_authorities() -> &'static RootCertStore {
    static AUTHORITIES: OnceLock<RootCertStore> = OnceLock::new();
    AUTHORITIES.get_or_init(|| {
        let mut store = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::warn!(%error, "a system certificate could not be read");
        }
        store.add_parsable_certificates(loaded.certs);
        store
    })
}
