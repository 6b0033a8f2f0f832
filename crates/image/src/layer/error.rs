//! What can go wrong with a layer or an archive.

use std::io;
use std::path::{Path, PathBuf};

use spec::ErrorClass;

use super::tar::{TarError, display};

/// A layer could not be applied, written or compared.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The archive can not be read.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A name leads out of the directory.
    #[error("{entry} leads outside of the directory it is unpacked to")]
    Outside { entry: String },
    /// A name no filesystem takes.
    #[error("{entry}: {reason}")]
    Name { entry: String, reason: &'static str },
    /// The file that a hard link names is not there.
    #[error("{entry} is a hard link to {target}, which does not exist")]
    LinkTarget { entry: String, target: String },
    /// The layers below never became complete.
    #[error("a layer below could not be unpacked: {0}")]
    Beneath(io::Error),
    /// An entry could not be made or read.
    #[error("cannot {action} {entry}: {cause}")]
    Entry {
        action: &'static str,
        entry: String,
        cause: io::Error,
    },
    /// Something of the engine's own could not be read or written.
    #[error("cannot {action} {}: {cause}", path.display())]
    Path {
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    /// The archive that is written could not be written.
    #[error("cannot write the archive: {0}")]
    Output(io::Error),
    /// The upper directory does not stand for itself: it was mounted with settings of another engine.
    #[error("{entry} was renamed or changed with overlayfs' {feature}, which cannot be told in a layer")]
    Redirected { entry: String, feature: &'static str },
}

/// The kernel makes no device nodes for this process: it has no CAP_MKNOD, or only over a user namespace.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is a device node ({kind} {major}:{minor}), which this engine may not make: start the daemon with the capability \
     CAP_MKNOD and outside of user namespaces, or use an image without that entry"
)]
pub(crate) struct NoDevices {
    pub(crate) kind: &'static str,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl LayerError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            LayerError::Tar(TarError::Read { cause, .. }) if cause.kind() != io::ErrorKind::FileTooLarge => {
                ErrorClass::Internal
            }
            LayerError::Tar(_)
            | LayerError::Outside { .. }
            | LayerError::Name { .. }
            | LayerError::LinkTarget { .. } => ErrorClass::Invalid,
            LayerError::Entry { cause, .. }
                if cause.get_ref().is_some_and(|inner| inner.is::<NoDevices>()) =>
            {
                ErrorClass::Forbidden
            }
            LayerError::Entry { cause, .. } | LayerError::Path { cause, .. } | LayerError::Output(cause) => {
                match cause.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::Unavailable,
                    // Of the archive: more comes out than is allowed.
                    io::ErrorKind::FileTooLarge => ErrorClass::Invalid,
                    // Something is mounted where the archive wants something else.
                    io::ErrorKind::ResourceBusy => ErrorClass::Conflict,
                    io::ErrorKind::ReadOnlyFilesystem => ErrorClass::Forbidden,
                    _ => ErrorClass::Internal,
                }
            }
            LayerError::Redirected { .. } | LayerError::Beneath(_) => ErrorClass::Internal,
        }
    }

    pub(crate) fn entry(action: &'static str, path: &[u8], cause: io::Error) -> LayerError {
        LayerError::Entry {
            action,
            entry: display(path),
            cause,
        }
    }

    pub(crate) fn path(action: &'static str, path: &Path, cause: io::Error) -> LayerError {
        LayerError::Path {
            action,
            path: path.to_owned(),
            cause,
        }
    }
}
