//! What kind of failure an error is, so that each face of the engine maps it once: the REST API to a status,
//! the client to an exit code.

/// The class of a failure. Rooms choose the class where the failure is understood; faces only translate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The named object does not exist (HTTP 404).
    NotFound,
    /// The request contradicts the present state or a name in use (HTTP 409).
    Conflict,
    /// The request itself is wrong (HTTP 400).
    Invalid,
    /// The caller has not proven who it is (HTTP 401).
    Unauthorized,
    /// The caller may not do this, or the object is protected (HTTP 403).
    Forbidden,
    /// Nothing had to be done (HTTP 304).
    NotModified,
    /// Something outside, such as a registry, does not answer; later it may (HTTP 503).
    Unavailable,
    /// The engine does not offer this (HTTP 501).
    NotImplemented,
    /// The engine or the machine failed (HTTP 500).
    Internal,
}

impl ErrorClass {
    /// The HTTP status that carries this class in the Docker Engine API.
    pub fn http_status(self) -> u16 {
        match self {
            ErrorClass::NotFound => 404,
            ErrorClass::Conflict => 409,
            ErrorClass::Invalid => 400,
            ErrorClass::Unauthorized => 401,
            ErrorClass::Forbidden => 403,
            ErrorClass::NotModified => 304,
            ErrorClass::Unavailable => 503,
            ErrorClass::NotImplemented => 501,
            ErrorClass::Internal => 500,
        }
    }
}
