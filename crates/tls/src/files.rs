//! PEM files. An error names the file and what it lacks.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A file that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub reason: String,
}

fn wrong(path: &Path, reason: impl ToString) -> FileError {
    FileError {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// What is wrong with a file that should hold a `what`.
fn unread(path: &Path, what: &str, error: pem::Error) -> FileError {
    match error {
        pem::Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => wrong(path, "no such file"),
        pem::Error::Io(error) => wrong(path, error),
        pem::Error::NoItemsFound => wrong(path, format!("there is no {what} in it")),
        other => wrong(path, other),
    }
}

/// All certificates of a file, of which there must be one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unread(path, "certificate", pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(unread(path, "certificate", error)),
    }
}

pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| unread(path, "private key", error))
}

/// The certificates of a file as authorities.
pub fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| wrong(path, format!("it holds no usable authority: {error}")))?;
    }
    Ok(roots)
}

/// Why a certificate and a key, which both can be read, do not go together.
pub fn unusable(certificates: &Path, key: &Path, error: rustls::Error) -> FileError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            wrong(key, format!("it does not belong to {}", certificates.display()))
        }
        other => wrong(certificates, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let dir = std::env::temp_dir().join(format!("berth-tls-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("file.pem");
        let said = |error: FileError| error.to_string();
        let missing = certificates(&file).unwrap_err();
        assert_eq!(said(missing), format!("{}: no such file", file.display()));
        std::fs::write(&file, "hello\n").unwrap();
        for (error, what) in [
            (certificates(&file).unwrap_err(), "certificate"),
            (private_key(&file).unwrap_err(), "private key"),
            (authorities(&file).unwrap_err(), "certificate"),
        ] {
            let expected = format!("{}: there is no {what} in it", file.display());
            assert_eq!(said(error), expected);
        }
        let nothing = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(&file, nothing).unwrap();
        let said = said(authorities(&file).unwrap_err());
        assert!(
            said.contains("file.pem: it holds no usable authority: "),
            "{said}"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
