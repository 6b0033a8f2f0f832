//! The engine's one error: a class for the faces to translate and a text for people.
//!
//! Lower rooms have enums with fields; here, where their failures become an answer, only class and wording are
//! left. The wording is Docker's where Docker has one, since clients match on it.

use spec::ErrorClass;

/// A failed request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind of failure it is.
    pub class: ErrorClass,
    /// What, where and what to do.
    pub message: String,
    /// The exit code the client should end with, where a process could not be started (126, 127).
    pub exit_code: Option<i32>,
}

/// The result of a request to the engine.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Error {
        Error {
            class,
            message: message.into(),
            exit_code: None,
        }
    }

    pub fn not_found(message: impl Into<String>) -> Error {
        Error::new(ErrorClass::NotFound, message)
    }

    pub fn conflict(message: impl Into<String>) -> Error {
        Error::new(ErrorClass::Conflict, message)
    }

    pub fn invalid(message: impl Into<String>) -> Error {
        Error::new(ErrorClass::Invalid, message)
    }

    pub fn forbidden(message: impl Into<String>) -> Error {
        Error::new(ErrorClass::Forbidden, message)
    }

    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(ErrorClass::Internal, message)
    }

    /// The same failure seen in a larger context, put before the text.
    pub fn context(self, context: impl std::fmt::Display) -> Error {
        Error {
            message: format!("{context}: {}", self.message),
            ..self
        }
    }

    pub(crate) fn no_such_container(name: &str) -> Error {
        Error::not_found(format!("No such container: {name}"))
    }
}

/// The whole chain of an error in one line, as a person should read it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        // Some libraries repeat the source in the outer text.
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}

macro_rules! from_classed {
    ($($source:ty),+ $(,)?) => {$(
        impl From<$source> for Error {
            fn from(error: $source) -> Error {
                Error::new(error.class(), $crate::error::chain(&error))
            }
        }
    )+};
}

pub(crate) use from_classed;

impl From<spec::ReferenceError> for Error {
    fn from(error: spec::ReferenceError) -> Error {
        Error::invalid(error.to_string())
    }
}

impl From<monitor::protocol::Failed> for Error {
    fn from(failed: monitor::protocol::Failed) -> Error {
        Error {
            class: failed.class,
            message: failed.message,
            exit_code: failed.exit_code,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Error {
        Error::internal(error.to_string())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Error {
        Error::internal(format!("a stored document is damaged: {error}"))
    }
}

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Error {
        Error::internal(format!("a task of the engine ended early: {error}"))
    }
}
