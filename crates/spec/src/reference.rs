//! Image references and their normalisation, as the distribution project defines the grammar and Docker fills
//! in what is left out: `busybox` is `docker.io/library/busybox:latest`.
//!
//! A `Reference` is always normalised: it has a domain, a path in lower case, and possibly a tag, a digest or
//! both. Error texts are the ones clients match on.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Digest;

/// The domain of names that carry none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// The old name of the default domain, still written by some tools.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Where one-word names of the default domain live.
const OFFICIAL: &str = "library/";
/// Limit of domain and path together (distribution `reference`, NameTotalLengthMax).
const MAX_NAME: usize = 255;

/// A normalised image reference.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ReferenceError {
    /// Does not match the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    Uppercase(String),
    /// 64 hexadecimal digits would be taken for an image ID.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// Domain and path exceed 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// The digest part cannot be verified.
    #[error("invalid reference format: {0}")]
    Digest(#[from] crate::DigestError),
}

impl Reference {
    /// Parses and normalises what a user typed.
    pub fn parse_normalized(text: &str) -> Result<Reference, ReferenceError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(ReferenceError::LooksLikeId(text.to_owned()));
        }
        let (domain, remainder) = split_domain(text);
        let name_end = remainder.find([':', '@']).unwrap_or(remainder.len());
        let name = &remainder[..name_end];
        // The whole remainder up to a tag is judged for case first, since that is the error users make.
        let until_tag = remainder.split(':').next().unwrap_or_default();
        if until_tag.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ReferenceError::Uppercase(until_tag.to_owned()));
        }
        let (rest, digest) = match remainder.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(digest.parse::<Digest>().map_err(|_| ReferenceError::Format)?),
            ),
            None => (remainder.as_str(), None),
        };
        let tag = match rest[name_end..].strip_prefix(':') {
            Some(tag) if is_tag(tag) => Some(tag.to_owned()),
            Some(_) => return Err(ReferenceError::Format),
            None => None,
        };
        if !is_domain(&domain) || !is_path(name) {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + name.len() > MAX_NAME {
            return Err(ReferenceError::TooLong);
        }
        Ok(Reference {
            domain,
            path: name.to_owned(),
            tag,
            digest,
        })
    }

    /// The registry, with its port if one was given.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry (`library/busybox`).
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Domain and path without tag and digest (`docker.io/library/busybox`).
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The name as people write it (`busybox`, `ghcr.io/a/b`).
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return self.name();
        }
        match self.path.strip_prefix(OFFICIAL) {
            Some(short) if !short.contains('/') => short.to_owned(),
            _ => self.path.clone(),
        }
    }

    /// The reference as people write it (`busybox:latest`).
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The reference in full (`docker.io/library/busybox:latest`).
    pub fn canonical(&self) -> String {
        self.with_suffix(self.name())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }

    /// The same name with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::Format);
        }
        Ok(Reference {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same name with this digest and no tag.
    pub fn with_digest(&self, digest: &Digest) -> Reference {
        Reference {
            tag: None,
            digest: Some(digest.clone()),
            ..self.clone()
        }
    }

    /// The name alone.
    pub fn without_tag(&self) -> Reference {
        Reference {
            tag: None,
            digest: None,
            ..self.clone()
        }
    }

    /// The reference itself, or with `latest` where it has neither tag nor digest.
    pub fn or_latest(&self) -> Reference {
        match (&self.tag, &self.digest) {
            (None, None) => Reference {
                tag: Some("latest".to_owned()),
                ..self.clone()
            },
            _ => self.clone(),
        }
    }
}

/// Splits off the domain: the first component is one only if it has a dot or a colon, is `localhost`, or has
/// upper-case letters, which no path component may have.
fn split_domain(text: &str) -> (String, String) {
    let (domain, remainder) = match text.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (
                if first == LEGACY_DOMAIN {
                    DEFAULT_DOMAIN
                } else {
                    first
                },
                rest,
            )
        }
        _ => (DEFAULT_DOMAIN, text),
    };
    if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
        return (domain.to_owned(), format!("{OFFICIAL}{remainder}"));
    }
    (domain.to_owned(), remainder.to_owned())
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= 128 && bytes.next().is_some_and(word) && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, rest)) => {
            if v6.is_empty() || !v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
                return false;
            }
            return rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

fn is_path(path: &str) -> bool {
    path.split('/').all(is_path_component)
}

/// `[a-z0-9]+` groups joined by one dot, one or two underscores, or any number of dashes.
fn is_path_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    if !bytes.first().copied().is_some_and(alnum) || !bytes.last().copied().is_some_and(alnum) {
        return false;
    }
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse_normalized(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.canonical())
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_docker_does() {
        for (text, canonical, familiar) in [
            ("busybox", "docker.io/library/busybox", "busybox"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("a/b", "docker.io/a/b", "a/b"),
            ("docker.io/busybox", "docker.io/library/busybox", "busybox"),
            (
                "index.docker.io/library/busybox",
                "docker.io/library/busybox",
                "busybox",
            ),
            ("localhost/x", "localhost/x", "localhost/x"),
            (
                "127.0.0.1:5000/x/y:z",
                "127.0.0.1:5000/x/y:z",
                "127.0.0.1:5000/x/y:z",
            ),
            ("[::1]:5000/x", "[::1]:5000/x", "[::1]:5000/x"),
            ("ghcr.io/a/b__c-d.e", "ghcr.io/a/b__c-d.e", "ghcr.io/a/b__c-d.e"),
        ] {
            let reference = Reference::parse_normalized(text).unwrap();
            assert_eq!(reference.canonical(), canonical);
            assert_eq!(reference.familiar(), familiar);
        }
        let digest = Digest::sha256(b"x");
        let both = Reference::parse_normalized(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(both.tag(), Some("1"));
        assert_eq!(both.digest(), Some(&digest));
        assert_eq!(
            Reference::parse_normalized("busybox")
                .unwrap()
                .or_latest()
                .familiar(),
            "busybox:latest"
        );
    }

    #[test]
    fn refuses_in_dockers_words() {
        let text = |t: &str| Reference::parse_normalized(t).unwrap_err().to_string();
        assert_eq!(
            text("UPPER:tag"),
            "invalid reference format: repository name (library/UPPER) must be lowercase"
        );
        assert_eq!(
            text("BAD@@"),
            "invalid reference format: repository name (library/BAD@@) must be lowercase"
        );
        for bad in [
            "",
            ":x",
            "a:",
            "a b",
            "a//b",
            "-a",
            "a-",
            "a..b",
            "a@sha256:12",
            "a:b:c",
            "/a",
            "http://a/b",
        ] {
            assert_eq!(text(bad), "invalid reference format", "{bad}");
        }
        assert!(matches!(
            Reference::parse_normalized(&"a".repeat(64)),
            Err(ReferenceError::LooksLikeId(_))
        ));
    }
}
