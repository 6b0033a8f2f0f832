//! What can go wrong with a volume. The texts of failures that clients can cause are Docker's.

use std::io;
use std::path::{Path, PathBuf};

use spec::ErrorClass;
use store::DbError;

use crate::PluginError;

/// An operation on a volume failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// No such volume.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// The volume has no such snapshot.
    #[error("volume {volume} has no snapshot {snapshot:?}")]
    NoSnapshot { volume: String, snapshot: String },
    /// It has one already.
    #[error("volume {volume} has a snapshot {snapshot:?} already")]
    SnapshotTaken { volume: String, snapshot: String },
    /// Its content cannot be exchanged under who uses it.
    #[error(
        "restore {name}: containers that run have the volume - [{}]: stop them, or restore to a new volume",
        holders.join(", ")
    )]
    Held { name: String, holders: Vec<String> },
    /// Nothing in the trash is called so.
    #[error("{0}: no such volume in the trash")]
    NotInTrash(String),
    /// Several removed volumes had the name.
    #[error("{name}: several removed volumes were called so, name one by its id: {}", ids.join(", "))]
    AmbiguousTrash { name: String, ids: Vec<String> },
    /// Its content is on a filesystem of its own.
    #[error("{action} {name}: its content is not a directory of this host but what its options mount")]
    NotLocal { action: &'static str, name: String },
    /// Its content is a plugin's.
    #[error("{action} {name}: its content is not a directory of ours but the volume plugin {driver}'s")]
    OfPlugin {
        action: &'static str,
        name: String,
        driver: String,
    },
    /// The plugin that has the volume fails.
    #[error("{action} {name}: {cause}")]
    Plugin {
        action: &'static str,
        name: String,
        cause: PluginError,
    },
    /// The name can not be a directory's.
    #[error(
        "create {0}: {0:?} includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    InvalidName(String),
    /// A name of one character is taken for a mistake.
    #[error("create {0}: volume name is too short, names should be at least two alphanumeric characters")]
    NameTooShort(String),
    /// Longer than a directory's name can be.
    #[error("create {0}: volume name is too long, names have at most 255 characters")]
    NameTooLong(String),
    /// There is another volume of this name.
    #[error("create {0}: conflict: volume name must be unique")]
    NameTaken(String),
    /// There is no such driver, neither ours nor a plugin's.
    #[error("create {name}: error looking up volume plugin {driver}: plugin {driver:?} not found")]
    UnknownDriver { name: String, driver: String },
    /// The local driver does not know the option.
    #[error("create {name}: invalid option: {option:?}")]
    UnknownOption { name: String, option: String },
    /// An option is useless without another one.
    #[error("create {name}: missing required option: {option:?}")]
    MissingOption { name: String, option: String },
    /// The filesystem of the data root can not limit a directory's size.
    #[error(
        "create {0}: quota size requested but no quota support: the filesystem of the data root must be ext4 or xfs, mounted with \
         prjquota"
    )]
    NoQuota(String),
    /// The size is none.
    #[error("create {name}: invalid size {size:?}: {why}")]
    Size {
        name: String,
        size: String,
        why: &'static str,
    },
    /// The host named in the options has no address.
    #[error(
        "error while mounting volume {name:?}: error resolving passed in network volume address: {cause}"
    )]
    Unresolved { name: String, cause: io::Error },
    /// What its options say cannot be mounted to be filled.
    #[error("error while mounting volume {name:?}: cannot mount {device}{server}: {cause}")]
    Mount {
        name: String,
        device: String,
        /// With the words before it, or empty.
        server: String,
        cause: io::Error,
    },
    /// What its options mount cannot be filled.
    #[error(
        "cannot copy what the image has there to volume {name}: {cause}: mount it with the option nocopy to leave it as it is"
    )]
    Fill { name: String, cause: io::Error },
    /// A file operation failed.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        cause: io::Error,
    },
    /// The database refused.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl VolumeError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            VolumeError::NotFound(_)
            | VolumeError::NotInTrash(_)
            | VolumeError::NoSnapshot { .. }
            | VolumeError::UnknownDriver { .. } => ErrorClass::NotFound,
            VolumeError::NameTaken(_)
            | VolumeError::AmbiguousTrash { .. }
            | VolumeError::SnapshotTaken { .. }
            | VolumeError::Held { .. } => ErrorClass::Conflict,
            VolumeError::InvalidName(_)
            | VolumeError::NameTooShort(_)
            | VolumeError::NameTooLong(_)
            | VolumeError::UnknownOption { .. }
            | VolumeError::MissingOption { .. }
            | VolumeError::NotLocal { .. }
            | VolumeError::OfPlugin { .. }
            | VolumeError::Size { .. }
            | VolumeError::NoQuota(_) => ErrorClass::Invalid,
            VolumeError::Plugin {
                cause: PluginError::NotFound(_),
                ..
            } => ErrorClass::NotFound,
            VolumeError::Plugin {
                cause: PluginError::Refused { .. } | PluginError::Nonsense { .. },
                ..
            } => ErrorClass::Internal,
            VolumeError::Unresolved { .. } | VolumeError::Mount { .. } | VolumeError::Plugin { .. } => {
                ErrorClass::Unavailable
            }
            VolumeError::Io { cause, .. } | VolumeError::Fill { cause, .. } => match cause.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorClass::Unavailable,
                _ => ErrorClass::Internal,
            },
            VolumeError::Db(error) => error.class(),
        }
    }

    pub(crate) fn at(action: &'static str, path: &Path, cause: impl Into<io::Error>) -> VolumeError {
        VolumeError::Io {
            action,
            path: path.to_owned(),
            cause: cause.into(),
        }
    }
}

impl From<store::rusqlite::Error> for VolumeError {
    fn from(error: store::rusqlite::Error) -> VolumeError {
        VolumeError::Db(error.into())
    }
}
