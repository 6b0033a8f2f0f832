//! Content digests (OCI image-spec 1.1, "Digests"): `algorithm:hex`.
//!
//! Only sha256 and sha512 exist; anything else is refused when parsed, so no code below has to ask whether it
//! can verify a digest it was given.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};

/// A verified-form digest such as `sha256:2c26b46b…`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    text: String,
    /// Where the colon stands; the text before it is the algorithm.
    colon: usize,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum DigestError {
    /// Not of the form `algorithm:hex`.
    #[error("invalid digest {0:?}: expected ALGORITHM:HEX, for example sha256:<64 hex digits>")]
    Format(String),
    /// An algorithm this engine cannot verify.
    #[error("unsupported digest algorithm {0:?}: only sha256 and sha512 can be verified")]
    Algorithm(String),
}

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn sha256(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn from_parts(algorithm: &str, hex: &str) -> Digest {
        Digest {
            text: format!("{algorithm}:{hex}"),
            colon: algorithm.len(),
        }
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        &self.text[..self.colon]
    }

    /// The lower-case hexadecimal part.
    pub fn hex(&self) -> &str {
        &self.text[self.colon + 1..]
    }

    /// The first twelve hexadecimal digits, as tables show them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(DigestError::Format(text.to_owned()));
        };
        let length = match algorithm {
            "sha256" => 64,
            "sha512" => 128,
            _ => return Err(DigestError::Algorithm(algorithm.to_owned())),
        };
        if hex.len() != length || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(DigestError::Format(text.to_owned()));
        }
        Ok(Digest::from_parts(algorithm, hex))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// A digest being computed over a stream.
pub struct Hasher {
    state: State,
}

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher::new()
    }
}

impl Hasher {
    /// A sha256 hasher.
    pub fn new() -> Hasher {
        Hasher {
            state: State::Sha256(Sha256::new()),
        }
    }

    /// A hasher of the algorithm that `digest` names, to verify content against it.
    pub fn like(digest: &Digest) -> Hasher {
        match digest.algorithm() {
            "sha512" => Hasher {
                state: State::Sha512(Sha512::new()),
            },
            _ => Hasher::new(),
        }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything taken in.
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => Digest::from_parts("sha256", &hex::encode(state.finalize())),
            State::Sha512(state) => Digest::from_parts("sha512", &hex::encode(state.finalize())),
        }
    }
}

/// The chain ID of a layer on its parents (OCI image-spec 1.1, "Layer ChainID"): equal stacks of equal layers
/// have equal chain IDs, so it names the unpacked result.
pub fn chain_id(parent: Option<&Digest>, diff: &Digest) -> Digest {
    match parent {
        None => diff.clone(),
        Some(parent) => Digest::sha256(format!("{parent} {diff}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn prints_what_it_parsed() {
        let digest: Digest = EMPTY.parse().unwrap();
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(digest.algorithm(), "sha256");
        assert_eq!(digest.short(), "e3b0c44298fc");
        assert_eq!(Digest::sha256(b""), digest);
    }

    #[test]
    fn refuses_what_it_cannot_verify() {
        for bad in [
            "",
            "sha256",
            "sha256:",
            "sha256:zz",
            &EMPTY.to_uppercase(),
            &EMPTY[..70],
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
        assert_eq!(
            "md5:00".parse::<Digest>(),
            Err(DigestError::Algorithm("md5".into()))
        );
    }

    #[test]
    fn chain_of_one_is_the_diff() {
        let diff = Digest::sha256(b"a");
        assert_eq!(chain_id(None, &diff), diff);
        let second = Digest::sha256(b"b");
        let expected = Digest::sha256(format!("{diff} {second}").as_bytes());
        assert_eq!(chain_id(Some(&diff), &second), expected);
    }
}
