//! Reading JSON the way Go's `encoding/json` does, with its error texts.
//!
//! What differs from serde's own reading:
//! - keys match a field in any case (an exact match wins);
//! - `null` leaves a field at its default, whatever its type;
//! - unknown keys are ignored, at any depth;
//! - numbers must fit their type, strings are never numbers, and the refusal reads
//!   `json: cannot unmarshal string into Go struct field HostConfig.Memory of type int64`;
//! - syntax errors read as Go's scanner words them (`invalid character 'x' looking for beginning of value`).
//!
//! [`from_slice`] is for request bodies: exactly one document, errors prefixed as the Engine API does (`invalid JSON: …`).
//! [`from_str`] is for documents inside query parameters and headers, without the prefix.
//! Nesting is bounded by serde_json's recursion limit (128), so hostile depth is an error, not a stack overflow.

mod deserializer;
mod document;
mod syntax;

use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use deserializer::TypeError;
pub use document::Document;

/// Why a document could not be read; `Display` is what the client is shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No document at all where one was required.
    #[error("invalid JSON: got EOF while reading request body")]
    Empty,
    /// Not JSON.
    #[error("invalid JSON: {0}")]
    Syntax(String),
    /// JSON, but not of the wanted shape, or a value that its type refuses.
    #[error("invalid JSON: {0}")]
    Shape(String),
    /// Something follows the document.
    #[error("unexpected content after JSON")]
    Trailing,
}

/// Reads a request or response body: exactly one JSON document.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    Ok(Document::parse(bytes)?.read()?)
}

/// Reads a document that is a parameter; the error is the bare text.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    match from_slice(text.as_bytes()) {
        Ok(value) => Ok(value),
        Err(Error::Empty) => Err("EOF".to_owned()),
        Err(Error::Syntax(why) | Error::Shape(why)) => Err(why),
        Err(Error::Trailing) => Err("unexpected content after JSON".to_owned()),
    }
}

/// Reads an already parsed document.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, TypeError> {
    let document = Document::deserialize(value).map_err(serde::de::Error::custom)?;
    document.read()
}

impl Document<'_> {
    /// Parses exactly one document.
    pub fn parse(bytes: &[u8]) -> Result<Document<'_>, Error> {
        let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Document<'_>>();
        let document = match stream.next() {
            None => return Err(Error::Empty),
            Some(Ok(document)) => document,
            Some(Err(error)) => {
                return Err(Error::Syntax(
                    syntax::explain(bytes).unwrap_or_else(|| error.to_string()),
                ));
            }
        };
        let rest = bytes.get(stream.byte_offset()..).unwrap_or_default();
        if rest.iter().all(|byte| byte.is_ascii_whitespace()) {
            Ok(document)
        } else {
            Err(Error::Trailing)
        }
    }

    /// Reads it as what is wanted; it may be read as several things.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, TypeError> {
        T::deserialize(deserializer::Lenient::root(&self.0))
    }
}

impl From<TypeError> for Error {
    fn from(error: TypeError) -> Self {
        Error::Shape(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ContainerConfig, CreateContainerRequest, HostConfig, NetworkCreateRequest};

    #[test]
    fn keys_match_in_any_case_and_unknown_ones_are_ignored() {
        let body = br#"{"image":"busybox","CMD":"ls","hostconfig":{"memory":7,"Bogus":{"a":[1]}},"x":1}"#;
        let request: CreateContainerRequest = from_slice(body).unwrap();
        assert_eq!(request.config.image, "busybox");
        assert_eq!(*request.config.cmd, ["ls".to_owned()]);
        assert_eq!(request.host_config.unwrap().memory, 7);
    }

    #[test]
    fn an_exact_key_wins_over_another_case() {
        let config: ContainerConfig = from_slice(br#"{"image":"a","Image":"b","IMAGE":"c"}"#).unwrap();
        assert_eq!(config.image, "b");
    }

    #[test]
    fn the_last_of_several_keys_counts() {
        let config: ContainerConfig =
            from_slice(br#"{"IMAGE":"a","Image":"b","Image":"c","User":"x","USER":"y","user":"z"}"#).unwrap();
        assert_eq!((config.image.as_str(), config.user.as_str()), ("c", "x"));
        let config: ContainerConfig =
            from_slice(br#"{"IMAGE":"a","image":"b","Labels":{"a":"1","a":"2"}}"#).unwrap();
        assert_eq!(config.image, "b");
        assert_eq!(config.labels.get("a").map(String::as_str), Some("2"));
    }

    #[test]
    fn an_object_of_many_keys_is_read_like_one_of_few() {
        let unknown: String = (0..1000).map(|number| format!("\"k{number}\":[],")).collect();
        for (keys, image) in [
            (r#""image":"a","Image":"b","IMAGE":"c""#, "b"),
            (r#""IMAGE":"a","image":"b""#, "b"),
            (r#""Image":"a","Image":"b","image":null"#, "b"),
        ] {
            let few: ContainerConfig = from_slice(format!("{{{keys}}}").as_bytes()).unwrap();
            let many: ContainerConfig = from_slice(format!("{{{unknown}{keys}}}").as_bytes()).unwrap();
            assert_eq!((few.image.as_str(), many.image.as_str()), (image, image));
        }
    }

    #[test]
    fn escapes_are_read_and_a_parsed_document_is_read_like_its_text() {
        let text = r#"{"Im\u0061ge":"b\u00fcsy\nbox","Labels":{"\"q\"":"\\"},"StopTimeout":7}"#;
        let config: ContainerConfig = from_slice(text.as_bytes()).unwrap();
        assert_eq!(config.image, "büsy\nbox");
        assert_eq!(config.labels.get("\"q\"").map(String::as_str), Some("\\"));
        let value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(from_value::<ContainerConfig>(&value).unwrap(), config);
    }

    #[test]
    fn a_refusal_names_the_way_to_the_value() {
        let body = br#"{"HostConfig":{"Mounts":[{},{"VolumeOptions":{"Labels":{"a":"b","c":1}}}]}}"#;
        let error = from_slice::<CreateContainerRequest>(body).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid JSON: json: cannot unmarshal number into Go struct field \
             CreateRequest.HostConfig.Mounts.VolumeOptions.Labels.c of type string"
        );
        let body = br#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":8080}]}}}"#;
        let error = from_slice::<CreateContainerRequest>(body).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid JSON: json: cannot unmarshal number into Go struct field \
             CreateRequest.HostConfig.PortBindings.80/tcp.HostPort of type string"
        );
    }

    #[test]
    fn null_is_not_given_for_every_type() {
        let body = br#"{"Memory":null,"Binds":null,"LogConfig":null,"PidsLimit":null,"Privileged":null,"RestartPolicy":{"Name":null}}"#;
        let host: HostConfig = from_slice(body).unwrap();
        assert_eq!(host, HostConfig::default());
        assert!(host.binds.is_null());
    }

    #[test]
    fn null_absent_and_zero_are_told_apart() {
        let host: HostConfig = from_slice(br#"{"PidsLimit":0,"Init":false,"CapAdd":[]}"#).unwrap();
        assert_eq!(host.pids_limit, Some(0));
        assert_eq!(host.init, Some(false));
        assert!(!host.cap_add.is_null());
        assert!(host.cap_drop.is_null());
    }

    #[test]
    fn a_wrong_type_reads_as_go_says_it() {
        let error = from_slice::<HostConfig>(br#"{"Memory":"x"}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid JSON: json: cannot unmarshal string into Go struct field HostConfig.Memory of type int64"
        );
        let error = from_slice::<CreateContainerRequest>(br#"{"HostConfig":{"Privileged":1}}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid JSON: json: cannot unmarshal number into Go struct field CreateRequest.HostConfig.Privileged of type bool"
        );
        let error = from_slice::<HostConfig>(br#"{"Memory":1.5}"#).unwrap_err();
        assert_eq!(
            error.to_string(),
            "invalid JSON: json: cannot unmarshal number 1.5 into Go struct field HostConfig.Memory of type int64"
        );
    }

    #[test]
    fn broken_documents() {
        assert_eq!(from_slice::<HostConfig>(b"").unwrap_err(), Error::Empty);
        assert_eq!(
            from_slice::<HostConfig>(b"{").unwrap_err().to_string(),
            "invalid JSON: unexpected EOF"
        );
        assert_eq!(
            from_slice::<HostConfig>(b"{x").unwrap_err().to_string(),
            "invalid JSON: invalid character 'x' looking for beginning of object key string"
        );
        assert_eq!(from_slice::<HostConfig>(b"{} {}").unwrap_err(), Error::Trailing);
        assert!(from_slice::<HostConfig>("[".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn a_bad_subnet_speaks_of_the_prefix() {
        let body = br#"{"Name":"n","IPAM":{"Config":[{"Subnet":"300.1.1.0/24"}]}}"#;
        let error = from_slice::<NetworkCreateRequest>(body).unwrap_err();
        assert_eq!(
            error.to_string(),
            r#"invalid JSON: netip.ParsePrefix("300.1.1.0/24"): ParseAddr("300.1.1.0"): IPv4 field has value >255"#
        );
    }
}
