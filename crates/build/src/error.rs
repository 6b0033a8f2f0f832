//! What can go wrong with a build.
//!
//! The first line of each message is Docker's own where Docker has one; clients match on it. Errors can be
//! cloned, because one failed step fails every step that needs it.

use std::io;
use std::sync::Arc;

use spec::ErrorClass;

use crate::source::{Diagnostic, Snippet};

/// A build failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BuildError {
    /// The Dockerfile says something that can not be done; displays the line with a caret.
    #[error("{0}")]
    Dockerfile(Diagnostic),
    #[error("Cannot locate specified Dockerfile: {0}")]
    NoDockerfile(String),
    #[error("failed to reach build target {target} in Dockerfile{}", alike(.target, .known))]
    NoTarget { target: String, known: Vec<String> },
    /// A RUN ended with another exit code than 0.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Command {
        command: String,
        code: i32,
        at: Snippet,
        /// What may have been the cause, a sentence each.
        hints: Vec<String>,
    },
    /// A step failed otherwise.
    #[error("{message}")]
    Step {
        message: String,
        class: ErrorClass,
        at: Option<Snippet>,
    },
    #[error("{message}")]
    Engine { message: String, class: ErrorClass },
    #[error("Build cancelled")]
    Cancelled,
}

/// Hints as lines below a place in the Dockerfile.
pub(crate) fn advice(hints: &[String]) -> String {
    hints.iter().map(|hint| format!("  = help: {hint}\n")).collect()
}

impl BuildError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            BuildError::Dockerfile(_) | BuildError::NoTarget { .. } => ErrorClass::Invalid,
            // Docker answers 500 here; its clients look at the words.
            BuildError::NoDockerfile(_) => ErrorClass::Internal,
            BuildError::Command { .. } | BuildError::Cancelled => ErrorClass::Internal,
            BuildError::Step { class, .. } | BuildError::Engine { class, .. } => *class,
        }
    }

    /// The exit code of the command that failed, for the `code` of Docker's error detail.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            BuildError::Command { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What may have been the cause, a sentence each.
    pub fn hints(&self) -> &[String] {
        match self {
            BuildError::Command { hints, .. } => hints,
            _ => &[],
        }
    }

    /// All that can be said of it to a person: the place in the Dockerfile, advice, and what it is.
    pub fn report(&self) -> String {
        match (self, self.snippet()) {
            // It shows its place itself.
            (BuildError::Dockerfile(_), _) | (_, None) => self.to_string(),
            (_, Some(snippet)) => format!("{snippet}\n{}{self}", advice(self.hints())),
        }
    }

    /// Where in the Dockerfile it happened.
    pub fn snippet(&self) -> Option<&Snippet> {
        match self {
            BuildError::Command { at, .. } => Some(at),
            BuildError::Step { at, .. } => at.as_ref(),
            BuildError::Dockerfile(diagnostic) => diagnostic.snippet.as_ref(),
            _ => None,
        }
    }

    /// A failure of what a build asks of others.
    pub fn new(message: impl Into<String>, class: ErrorClass) -> BuildError {
        BuildError::step(message, class)
    }

    /// A failure of a step whose place is added by [`BuildError::at`].
    pub(crate) fn step(message: impl Into<String>, class: ErrorClass) -> BuildError {
        BuildError::Step {
            message: message.into(),
            class,
            at: None,
        }
    }

    /// A mistake of whoever wrote the Dockerfile or made the request.
    pub(crate) fn invalid(message: impl Into<String>) -> BuildError {
        BuildError::step(message, ErrorClass::Invalid)
    }

    /// A failed file operation.
    pub(crate) fn io(what: impl std::fmt::Display, error: &io::Error) -> BuildError {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        let class = if full {
            ErrorClass::Unavailable
        } else {
            ErrorClass::Internal
        };
        BuildError::step(format!("{what}: {error}"), class)
    }

    /// The same error, of a larger undertaking.
    pub(crate) fn context(self, what: impl std::fmt::Display) -> BuildError {
        match self {
            BuildError::Step { message, class, at } => BuildError::Step {
                message: format!("{what}: {message}"),
                class,
                at,
            },
            BuildError::Engine { message, class } => BuildError::Engine {
                message: format!("{what}: {message}"),
                class,
            },
            other => other,
        }
    }

    /// The same error with advice behind it.
    pub(crate) fn hint(self, advice: impl std::fmt::Display) -> BuildError {
        match self {
            BuildError::Step { message, class, at } => BuildError::Step {
                message: format!("{message} ({advice})"),
                class,
                at,
            },
            BuildError::Engine { message, class } => BuildError::Engine {
                message: format!("{message} ({advice})"),
                class,
            },
            other => other,
        }
    }

    /// The same error with its place, where it has none yet.
    pub(crate) fn at(self, snippet: &Snippet) -> BuildError {
        match self {
            BuildError::Step {
                message,
                class,
                at: None,
            } => BuildError::Step {
                message,
                class,
                at: Some(snippet.clone()),
            },
            BuildError::Engine { message, class } => BuildError::Step {
                message,
                class,
                at: Some(snippet.clone()),
            },
            other => other,
        }
    }
}

/// The stage that was probably meant.
fn alike(target: &str, known: &[String]) -> String {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    match crate::instruction::nearest(target, &known) {
        Some(near) => format!(" (did you mean {near}?)"),
        None => String::new(),
    }
}

impl From<Diagnostic> for BuildError {
    fn from(diagnostic: Diagnostic) -> BuildError {
        BuildError::Dockerfile(diagnostic)
    }
}

macro_rules! from_room {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for BuildError {
            fn from(error: $error) -> BuildError {
                BuildError::Engine { class: error.class(), message: error.to_string() }
            }
        })*
    };
}

from_room!(
    image::ImageError,
    store::DbError,
    store::NoRoom,
    store::SnapshotError,
    store::RemoveError,
    crate::executor::ExecError,
);

impl From<store::rusqlite::Error> for BuildError {
    fn from(error: store::rusqlite::Error) -> BuildError {
        BuildError::from(store::DbError::from(error))
    }
}

/// A blocking task that panicked or was given up.
impl From<tokio::task::JoinError> for BuildError {
    fn from(error: tokio::task::JoinError) -> BuildError {
        let message = format!("a worker of the builder ended unexpectedly: {error}");
        BuildError::Engine {
            message,
            class: ErrorClass::Internal,
        }
    }
}

impl From<Arc<BuildError>> for BuildError {
    fn from(error: Arc<BuildError>) -> BuildError {
        (*error).clone()
    }
}
