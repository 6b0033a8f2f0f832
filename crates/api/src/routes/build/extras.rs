//! What our own client sends in front of the context: a build has secrets, and the API's parameters end up in logs.
//!
//! The body of media type [`MEDIA_TYPE`] is a length of four bytes, most significant first, a JSON document of that length,
//! then the context as any client sends it. The document is held in memory and goes with the build.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{ApiError, Result};

/// The media type of a context with extras in front.
pub const MEDIA_TYPE: &str = "application/vnd.berth.build.v1";
/// The largest document.
const LARGEST: u32 = 8 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Base64 by id.
    #[serde(default)]
    secrets: BTreeMap<String, String>,
}

/// What came in front of the context.
#[derive(Default)]
pub struct Extras {
    pub secrets: BTreeMap<String, Arc<Vec<u8>>>,
}

impl Extras {
    /// Reads the beginning of a body; what is left is the context.
    pub fn read(body: &mut impl Read) -> Result<Extras> {
        let mut length = [0; 4];
        body.read_exact(&mut length).map_err(broken)?;
        let length = u32::from_be_bytes(length);
        if length > LARGEST {
            return Err(ApiError::invalid(format!(
                "the secrets of a build are at most {LARGEST} bytes together"
            )));
        }
        let mut bytes = Vec::new();
        let read = body.take(length.into()).read_to_end(&mut bytes).map_err(broken)?;
        if read as u64 != u64::from(length) {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        // The text of an error could hold a part of a secret.
        let document: Document = serde_json::from_slice(&bytes).map_err(|_| {
            ApiError::invalid("what precedes the build context is no document this engine knows")
        })?;
        let decode = |(id, text): (String, String)| match STANDARD.decode(&text) {
            Ok(secret) => Ok((id, Arc::new(secret))),
            Err(_) => Err(ApiError::invalid(format!("the secret {id} is not base64"))),
        };
        let secrets = document.secrets.into_iter().map(decode).collect::<Result<_>>()?;
        Ok(Extras { secrets })
    }
}

fn broken(error: io::Error) -> ApiError {
    ApiError::invalid(format!("cannot read the build context: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(document: &str) -> Vec<u8> {
        let length = u32::try_from(document.len()).unwrap();
        [&length.to_be_bytes()[..], document.as_bytes(), b"the context"].concat()
    }

    #[test]
    fn the_context_follows_the_secrets() {
        let body = framed(r#"{"secrets":{"a":"aGk="}}"#);
        let mut body = body.as_slice();
        let extras = Extras::read(&mut body).unwrap();
        assert_eq!(**extras.secrets.get("a").unwrap(), b"hi");
        assert_eq!(body, b"the context");
    }

    #[test]
    fn what_is_wrong_is_refused_without_its_content() {
        for document in [
            r##"{"secrets":{"a":"#s3cret"}}"##,
            r#"{"secrets":"#,
            r#"{"other":"s3cret"}"#,
        ] {
            let error = Extras::read(&mut framed(document).as_slice()).err().unwrap();
            assert!(!error.message.contains("s3cret"), "{}", error.message);
        }
        for body in [&[0, 0][..], &[0, 0, 0, 9, b'{'], &[255, 0, 0, 0]] {
            assert!(Extras::read(&mut &*body).is_err(), "{body:?}");
        }
    }
}
