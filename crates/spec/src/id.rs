//! Random identifiers of containers, networks, endpoints and execs: 64 lower-case hexadecimal digits, as
//! Docker's, of which tables show the first twelve.

use std::fmt;
use std::str::FromStr;

use rand::RngCore;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A 256-bit random identifier.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(String);

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("invalid id {0:?}: expected 64 lower-case hexadecimal digits")]
pub struct IdError(String);

impl Id {
    /// A new identifier from the system's random source.
    ///
    /// The short form is never all decimal digits, because a host name made of digits alone is taken for an
    /// address by some resolvers.
    pub fn random() -> Id {
        loop {
            let mut bytes = [0u8; 32];
            rand::rng().fill_bytes(&mut bytes);
            let text = hex::encode(bytes);
            if !text[..12].bytes().all(|b| b.is_ascii_digit()) {
                return Id(text);
            }
        }
    }

    /// The first twelve digits.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// The whole identifier.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Id, IdError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Id(text.to_owned()))
        } else {
            Err(IdError(text.to_owned()))
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let id = Id::random();
        assert_eq!(id.as_str().len(), 64);
        assert_eq!(id.to_string().parse::<Id>().unwrap(), id);
        assert_eq!(id.short().len(), 12);
        assert!("abc".parse::<Id>().is_err());
    }
}
