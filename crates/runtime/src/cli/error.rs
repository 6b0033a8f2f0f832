//! Failures of the command line, each a sentence for its user.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use crate::LaunchError;
use crate::error::reason;

#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("{0}")]
    Usage(String),
    #[error("container does not exist: {0}")]
    NoContainer(String),
    #[error("container with id exists: {0} (choose another id, or delete it)")]
    Exists(String),
    #[error("invalid container id {0:?}: letters, digits and _ + - . only, at most 1024 of them")]
    Id(String),
    #[error("cannot {action} a container in the {status} state")]
    Status {
        action: &'static str,
        status: spec::runtime::Status,
    },
    /// Engines look for these words, to tell that there is nobody left to signal.
    #[error("container not running: {0}")]
    NotRunning(String),
    #[error("{}: {reason}", path.display())]
    Config { path: PathBuf, reason: String },
    #[error("{what}: {reason}")]
    Io { what: String, reason: String },
    #[error(transparent)]
    Cgroup(#[from] cgroup::CgroupError),
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

impl CliError {
    pub fn io(what: &str, error: io::Error) -> CliError {
        CliError::Io {
            what: what.to_owned(),
            reason: reason(&error),
        }
    }

    /// What failed, and what the kernel said to it.
    pub fn sentence(&self) -> String {
        let mut sentence = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = error.downcast_ref().map_or_else(|| error.to_string(), reason);
            sentence.push_str(": ");
            sentence.push_str(&text);
            cause = error.source();
        }
        sentence
    }

    pub fn exit_code(&self) -> i32 {
        match self {
            CliError::Launch(error) if error.exit_code() != 125 => error.exit_code(),
            _ => 1,
        }
    }
}
