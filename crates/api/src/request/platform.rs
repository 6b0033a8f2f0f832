//! Platforms in parameters: `linux/arm64/v8`, or an OCI platform document where the API says so.

use api_types::lenient;
use spec::Platform;

use super::Query;
use crate::error::{ApiError, Result};
use crate::version::ApiVersion;

/// A platform written with slashes.
pub fn slashed(query: &Query) -> Result<Option<Platform>> {
    match query.get("platform") {
        "" => Ok(None),
        text => Ok(Some(text.parse()?)),
    }
}

/// A platform given as a document.
pub fn document(text: &str) -> Result<Platform> {
    let platform: api_types::Platform = lenient::from_str(text)
        .map_err(|why| ApiError::invalid(format!("failed to parse platform: {why}")))?;
    let optional =
        !platform.variant.is_empty() || !platform.os_version.is_empty() || !platform.os_features.is_empty();
    match (platform.os.is_empty(), platform.architecture.is_empty()) {
        (true, true) if optional => Err(ApiError::invalid(
            "optional platform fields provided, but OS and Architecture are missing",
        )),
        (false, false) => {
            let variant = (!platform.variant.is_empty()).then_some(platform.variant.as_str());
            Ok(Platform::new(&platform.os, &platform.architecture, variant))
        }
        _ => Err(ApiError::invalid("both OS and Architecture must be provided")),
    }
}

/// The one platform document of a request, from the version that has the parameter on.
pub fn one(query: &Query, name: &str, version: ApiVersion, since: u32) -> Result<Option<Platform>> {
    match query.get(name) {
        "" => Ok(None),
        _ if !version.has(since) => Ok(None),
        text => document(text).map(Some),
    }
}

/// The platform of save and load: API 1.48 knows one, API 1.52 several.
pub fn several(query: &Query, version: ApiVersion) -> Result<Vec<Platform>> {
    if !version.has(48) {
        return Ok(Vec::new());
    }
    let given = query.all("platform");
    if given.len() > 1 && !version.has(52) {
        return Err(ApiError::invalid(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later",
        ));
    }
    documents(query, "platform")
}

/// All platform documents of a parameter that may be given several times.
pub fn documents(query: &Query, name: &str) -> Result<Vec<Platform>> {
    query.all(name).iter().map(|text| document(text)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        let platform = document(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#).unwrap();
        assert_eq!(platform.architecture, "arm64");
        assert_eq!(
            document(r#"{"os":"linux"}"#).unwrap_err().message,
            "both OS and Architecture must be provided"
        );
        assert!(
            document("linux")
                .unwrap_err()
                .message
                .starts_with("failed to parse platform: invalid character")
        );
    }

    #[test]
    fn several_need_a_new_version() {
        let query = Query::parse(
            "platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D&platform=x",
        );
        assert!(several(&query, ApiVersion::new(1, 47)).unwrap().is_empty());
        assert!(
            several(&query, ApiVersion::new(1, 51))
                .unwrap_err()
                .message
                .starts_with("multiple platform")
        );
    }
}
