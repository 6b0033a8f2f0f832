//! What can go wrong with a control group, each naming the file, the value and what the kernel said.

use std::io;
use std::path::{Path, PathBuf};

use spec::ErrorClass;

/// A failed operation on a control group.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No control group file system is mounted at all.
    #[error("no cgroup file system is mounted (looked at {looked_at}); mount cgroup2 on /sys/fs/cgroup")]
    NoHierarchy { looked_at: String },
    /// A limit was asked for whose controller this host does not offer.
    #[error("{limit} cannot be set: the cgroup controller \"{controller}\" is not available on this host")]
    Missing {
        controller: &'static str,
        limit: &'static str,
    },
    /// The controller is there, but the kernel lacks the one file that the limit needs.
    #[error("{limit} cannot be set: this kernel has no {}", path.display())]
    NoFile { limit: &'static str, path: PathBuf },
    /// The kernel refused a value.
    #[error("cannot write {value:?} to {}", path.display())]
    Refused {
        path: PathBuf,
        value: String,
        #[source]
        source: io::Error,
    },
    /// The kernel accepted a write but holds another value.
    #[error("wrote {value:?} to {} but the kernel holds {found:?}", path.display())]
    NotTaken {
        path: PathBuf,
        value: String,
        found: String,
    },
    /// The asked memory limit is below what is in use already.
    #[error("unable to set memory limit to {limit} (current usage: {usage}, peak usage: {peak})")]
    BelowUsage { limit: i64, usage: u64, peak: u64 },
    /// A value that makes no sense, found before anything was written.
    #[error("{0}")]
    Invalid(String),
    /// The group exists and processes live in it.
    #[error("cgroup {} already exists and holds {count} process(es)", path.display())]
    Occupied { path: PathBuf, count: usize },
    /// The group cannot be removed: something still lives in it.
    #[error("cgroup {} is still busy after {waited_ms} ms", path.display())]
    Busy { path: PathBuf, waited_ms: u64 },
    /// A freeze or thaw was not reached in time.
    #[error("cgroup {} did not become {wanted} within {waited_ms} ms", path.display())]
    Stuck {
        path: PathBuf,
        wanted: &'static str,
        waited_ms: u64,
    },
    /// The device program of cgroup v2 could not be loaded or attached.
    #[error("cannot {action} the device filter of {}", path.display())]
    DeviceFilter {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// The systemd driver is asked for where no systemd answers.
    #[error(
        "no systemd can be reached (looked at {looked_at}): the systemd cgroup driver needs one that runs; use the \
         cgroupfs driver without it"
    )]
    NoSystemd {
        looked_at: String,
        #[source]
        source: io::Error,
    },
    /// systemd answered, but did not do it.
    #[error("systemd: cannot {action}: {reason}")]
    Systemd { action: String, reason: String },
    /// Any other failed file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Result of an operation on a control group.
pub type Result<T> = std::result::Result<T, CgroupError>;

impl CgroupError {
    /// The class that decides HTTP status and exit code.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Invalid(_) | Self::Missing { .. } | Self::NoFile { .. } | Self::BelowUsage { .. } => {
                ErrorClass::Invalid
            }
            Self::Refused { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                ErrorClass::Invalid
            }
            Self::Occupied { .. } => ErrorClass::Conflict,
            _ => ErrorClass::Internal,
        }
    }

    /// Whether the caller may not do it here at all.
    pub fn is_permission(&self) -> bool {
        let source = match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source,
            _ => return false,
        };
        matches!(
            source.kind(),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
        )
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source: source.into(),
        }
    }
}
