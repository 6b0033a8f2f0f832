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

use rustls::ClientConfig;
use serde::{Deserialize, Deserializer};
use tls::{Identity, Trust};

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
        let trust = match given(&self.ca_file) {
            _ if self.insecure_skip_verify => Trust::Anyone,
            Some(file) => Trust::HostAnd(file),
            None => Trust::Host,
        };
        let identity = match (given(&self.cert_file), given(&self.key_file)) {
            (Some(certificates), Some(key)) => Some(Identity { certificates, key }),
            (None, None) => None,
            _ => return Err("TLSConfig has one of CertFile and KeyFile without the other".to_owned()),
        };
        let client = tls::client(trust, identity).map_err(|error| format!("TLSConfig: {error}"))?;
        Ok(Arc::new(client))
    }
}

fn given(path: &Path) -> Option<&Path> {
    (!path.as_os_str().is_empty()).then_some(path)
}
