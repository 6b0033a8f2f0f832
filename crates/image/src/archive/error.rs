//! What can go wrong with copying from or to a root filesystem.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use spec::ErrorClass;

use crate::layer::LayerError;

/// A copy from or to a root filesystem failed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Nothing is there.
    #[error("{}: no such file or directory", .0.display())]
    NotFound(PathBuf),
    /// Something is there, but nothing can be put into it.
    #[error("extraction point is not a directory")]
    NotDirectory,
    /// Refused by the client's wish.
    #[error("cannot overwrite directory {path:?} with non-directory {dest:?}")]
    DirectoryInTheWay { path: PathBuf, dest: PathBuf },
    /// Refused by the client's wish.
    #[error("cannot overwrite non-directory {path:?} with directory {dest:?}")]
    FileInTheWay { path: PathBuf, dest: PathBuf },
    /// A path in the root could not be used.
    #[error("cannot {action} {}: {cause}", path.display())]
    Path {
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    /// The archive, or one of its entries, failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

impl ArchiveError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            ArchiveError::NotFound(_) => ErrorClass::NotFound,
            ArchiveError::NotDirectory
            | ArchiveError::DirectoryInTheWay { .. }
            | ArchiveError::FileInTheWay { .. } => ErrorClass::Invalid,
            ArchiveError::Path { cause, .. } => {
                let unusable = [Errno::NOTDIR, Errno::LOOP, Errno::NAMETOOLONG];
                match Errno::from_io_error(cause) {
                    Some(errno) if unusable.contains(&errno) => ErrorClass::Invalid,
                    _ => ErrorClass::Internal,
                }
            }
            ArchiveError::Layer(error) => error.class(),
        }
    }

    pub(super) fn at(action: &'static str, path: &Path, cause: impl Into<io::Error>) -> ArchiveError {
        let cause = cause.into();
        if cause.kind() == io::ErrorKind::NotFound {
            return ArchiveError::NotFound(path.to_owned());
        }
        ArchiveError::Path {
            action,
            path: path.to_owned(),
            cause,
        }
    }
}
