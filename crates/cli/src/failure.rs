//! How a command fails: a message for stderr, perhaps a hint, and an exit code.
//!
//! Exit codes: 1 a failed command; 125 a `run`, `create` or flag that the client or daemon refused; 126 and 127 from
//! the runtime (not executable, not found); anything else is the container's own.

use std::fmt;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// Empty: nothing more to say, only the code counts.
    pub message: String,
    pub hint: Option<String>,
    pub code: i32,
    /// The HTTP status, when a daemon refused.
    pub status: Option<u16>,
}

impl Failure {
    pub fn text(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            hint: None,
            code: 1,
            status: None,
        }
    }

    /// Only an exit code; everything was said already.
    pub fn code(code: i32) -> Failure {
        Failure {
            message: String::new(),
            hint: None,
            code,
            status: None,
        }
    }

    /// The user said no; as with Docker's client, that is no failure.
    pub fn cancelled() -> Failure {
        Failure::code(0)
    }

    /// A refusal of the daemon.
    pub fn daemon(status: u16, message: &str) -> Failure {
        Failure {
            status: Some(status),
            ..Failure::text(format!("Error response from daemon: {message}"))
        }
    }

    pub fn with_code(self, code: i32) -> Failure {
        Failure { code, ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Failure {
        Failure {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// Whether the daemon said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// What a command answers: its exit code, or how it failed.
pub type Outcome = Result<i32, Failure>;

/// Several objects were asked for: go on after a failure, show all of them at the end.
#[derive(Default)]
pub struct Failures(Vec<String>);

impl Failures {
    pub fn new() -> Failures {
        Failures::default()
    }

    pub fn push(&mut self, failure: Failure) {
        self.0.push(failure.message);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn outcome(self) -> Outcome {
        if self.0.is_empty() {
            Ok(0)
        } else {
            Err(Failure::text(self.0.join("\n")))
        }
    }
}
