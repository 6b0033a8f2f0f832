//! A failed file operation, with what was tried and where, and what to do when the disk is full.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use spec::ErrorClass;

/// An operation on a file or directory of the store failed.
#[derive(Debug)]
pub struct PathError {
    /// What was tried, as a verb phrase: "write", "create directory".
    pub action: &'static str,
    /// Where.
    pub path: PathBuf,
    /// The kernel's answer.
    pub cause: io::Error,
}

impl PathError {
    /// Whether the filesystem, or a quota on it, is full.
    pub fn no_space(&self) -> bool {
        is_no_space(&self.cause)
    }

    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        if self.no_space() {
            ErrorClass::Unavailable
        } else {
            ErrorClass::Internal
        }
    }
}

/// Whether an error says that the filesystem or a quota is full.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PathError { action, path, cause } = self;
        write!(f, "cannot {action} {}: {cause}", path.display())?;
        if self.no_space() {
            f.write_str("; free space there or choose another data root")?;
        }
        Ok(())
    }
}

impl std::error::Error for PathError {}

/// Names the operation and the path of a failed call.
pub(crate) trait Context<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, PathError> {
        self.map_err(|cause| PathError {
            action,
            path: path.to_owned(),
            cause: cause.into(),
        })
    }
}
