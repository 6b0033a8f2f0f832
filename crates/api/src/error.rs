//! Refusals on their way out: a class from the domain becomes a status, the text becomes `{"message": …}`.
//!
//! Texts come from where the failure was understood; nothing is added here. An internal failure is logged once, here,
//! because the client may be the only other witness.

use api_types::{ErrorResponse, lenient};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use spec::ErrorClass;

use crate::answer::json;

/// A refused request.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    pub class: ErrorClass,
    pub message: String,
}

/// What handlers return.
pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
        }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Invalid, message)
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NotFound, message)
    }

    pub fn not_implemented(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NotImplemented, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Internal, message)
    }

    /// A file operation of the engine that failed: a full disk is a state that passes.
    pub fn from_io(what: impl std::fmt::Display, error: &std::io::Error) -> Self {
        let full = matches!(
            error.kind(),
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded
        );
        let class = if full {
            ErrorClass::Unavailable
        } else {
            ErrorClass::Internal
        };
        Self::new(class, format!("{what}: {error}"))
    }

    /// The same refusal seen in a larger context.
    pub fn context(self, context: impl std::fmt::Display) -> Self {
        Self {
            message: format!("{context}: {}", self.message),
            ..self
        }
    }

    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.class.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> Self {
        Self::new(error.class, error.message)
    }
}

impl From<spec::ReferenceError> for ApiError {
    fn from(error: spec::ReferenceError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<spec::PlatformError> for ApiError {
    fn from(error: spec::PlatformError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<lenient::Error> for ApiError {
    fn from(error: lenient::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.class == ErrorClass::NotModified {
            return StatusCode::NOT_MODIFIED.into_response();
        }
        if self.class == ErrorClass::Internal {
            tracing::error!(message = %self.message, "a request failed");
        }
        json(
            self.status(),
            &ErrorResponse {
                message: self.message,
            },
        )
    }
}
