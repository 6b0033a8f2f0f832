//! API versions: which one a request speaks, and which ones are served.
//!
//! A path may start with `/vX.Y`; without it the newest version is meant. What lies outside the served range is refused with
//! the texts that clients know. Source: Docker Engine API, "Versioned API".

use std::convert::Infallible;
use std::fmt;

use axum::extract::FromRequestParts;
use http::request::Parts;

/// A version of the API, `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion {
    pub major: u32,
    pub minor: u32,
}

/// The newest version served.
pub const MAX: ApiVersion = ApiVersion::new(1, 53);
/// The oldest version served.
pub const MIN: ApiVersion = ApiVersion::new(1, 40);
/// Clients older than this expect errors as plain text.
const PLAIN_TEXT_ERRORS_BEFORE: ApiVersion = ApiVersion::new(1, 24);

/// A version that is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    #[error(
        "client version {0} is too old. Minimum supported API version is {MIN}, please upgrade your client to a newer \
         version"
    )]
    TooOld(ApiVersion),
    #[error("client version {0} is too new. Maximum supported API version is {MAX}")]
    TooNew(ApiVersion),
}

impl ApiVersion {
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// Reads `1.51`; anything else is no version.
    pub fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(major) || !digits(minor) {
            return None;
        }
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// Refuses what is not served.
    pub fn check(self) -> Result<Self, VersionError> {
        if self < MIN {
            Err(VersionError::TooOld(self))
        } else if self > MAX {
            Err(VersionError::TooNew(self))
        } else {
            Ok(self)
        }
    }

    /// Whether a client of this version reads errors as plain text only.
    pub fn wants_plain_errors(self) -> bool {
        self < PLAIN_TEXT_ERRORS_BEFORE
    }

    /// Whether something that came with 1.`minor` is part of this version.
    pub const fn has(self, minor: u32) -> bool {
        self.major > 1 || (self.major == 1 && self.minor >= minor)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Splits `/v1.51/info` into the version and `/info`; a path without version is returned as it is.
pub fn split_path(path: &str) -> (Option<ApiVersion>, &str) {
    let Some(rest) = path.strip_prefix("/v") else {
        return (None, path);
    };
    let end = rest.find('/').unwrap_or(rest.len());
    let (version, tail) = rest.split_at(end);
    match ApiVersion::parse(version) {
        Some(version) => (Some(version), if tail.is_empty() { "/" } else { tail }),
        None => (None, path),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ApiVersion {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<ApiVersion>().copied().unwrap_or(MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split() {
        assert_eq!(split_path("/v1.51/info"), (Some(ApiVersion::new(1, 51)), "/info"));
        assert_eq!(split_path("/info"), (None, "/info"));
        assert_eq!(split_path("/volumes"), (None, "/volumes"));
        assert_eq!(split_path("/version"), (None, "/version"));
        assert_eq!(split_path("/v1.51"), (Some(ApiVersion::new(1, 51)), "/"));
        assert_eq!(split_path("/v1.x/info"), (None, "/v1.x/info"));
    }

    #[test]
    fn the_range_is_kept() {
        assert!(ApiVersion::new(1, 40).check().is_ok());
        assert!(ApiVersion::new(1, 53).check().is_ok());
        assert_eq!(
            ApiVersion::new(1, 23).check().unwrap_err().to_string(),
            "client version 1.23 is too old. Minimum supported API version is 1.40, please upgrade your client to a newer version"
        );
        assert_eq!(
            ApiVersion::new(1, 99).check().unwrap_err().to_string(),
            "client version 1.99 is too new. Maximum supported API version is 1.53"
        );
        assert!(ApiVersion::new(1, 100) > MAX);
    }
}
