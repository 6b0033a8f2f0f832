//! Public keys in PEM (RFC 7468, SubjectPublicKeyInfo of RFC 5280) and checking signatures with them.
//!
//! ECDSA on P-256 and P-384, which cosign makes, RSA with PKCS #1 v1.5, and Ed25519; digests are SHA-256 but for P-384.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

/// A public key could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    #[error("no public key: expected PEM with BEGIN PUBLIC KEY")]
    NotPem,
    #[error("the public key is damaged")]
    Damaged,
    #[error("the public key is of a kind that is not supported: ECDSA (P-256, P-384), RSA and Ed25519 are")]
    Unsupported,
}

/// A key that signatures are checked with.
#[derive(Debug, Clone)]
pub struct PublicKey {
    kind: Kind,
    /// As the algorithm wants it: a point, an RSAPublicKey, 32 bytes.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Rsa,
    Ed25519,
}

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// Object identifiers, without tag and length.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

impl PublicKey {
    /// Reads the first public key of a PEM text.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        let (_, rest) = text.split_once(BEGIN).ok_or(KeyError::NotPem)?;
        let (body, _) = rest.split_once(END).ok_or(KeyError::NotPem)?;
        let body: String = body.split_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| KeyError::Damaged)?;
        let (key, _) = element(&der, 0x30)?;
        let (algorithm, rest) = element(key, 0x30)?;
        let (bits, _) = element(rest, 0x03)?;
        // The count of unused bits comes first, and keys have none.
        let bytes = bits.strip_prefix(&[0]).ok_or(KeyError::Damaged)?.to_vec();
        let (oid, parameters) = element(algorithm, 0x06)?;
        let kind = match oid {
            RSA => Kind::Rsa,
            ED25519 => Kind::Ed25519,
            EC => match element(parameters, 0x06)?.0 {
                P256 => Kind::P256,
                P384 => Kind::P384,
                _ => return Err(KeyError::Unsupported),
            },
            _ => return Err(KeyError::Unsupported),
        };
        Ok(PublicKey { kind, bytes })
    }

    /// Whether `signature` over `message` was made with the key's other half.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &dyn VerificationAlgorithm = match self.kind {
            Kind::P256 => &signature::ECDSA_P256_SHA256_ASN1,
            Kind::P384 => &signature::ECDSA_P384_SHA384_ASN1,
            Kind::Rsa => &signature::RSA_PKCS1_2048_8192_SHA256,
            Kind::Ed25519 => &signature::ED25519,
        };
        UnparsedPublicKey::new(algorithm, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }
}

/// The content of the DER element with `tag` that `bytes` begin with, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), KeyError> {
    let (length, rest) = match bytes {
        [first, length @ 0..=0x7f, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x81, length, rest @ ..] if *first == tag => (usize::from(*length), rest),
        [first, 0x82, high, low, rest @ ..] if *first == tag => {
            (usize::from(u16::from_be_bytes([*high, *low])), rest)
        }
        _ => return Err(KeyError::Damaged),
    };
    rest.split_at_checked(length).ok_or(KeyError::Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_key_is_told() {
        let pem = |body: &str| PublicKey::from_pem(&format!("{BEGIN}\n{body}\n{END}\n")).unwrap_err();
        assert_eq!(PublicKey::from_pem("x").unwrap_err(), KeyError::NotPem);
        assert_eq!(pem("?"), KeyError::Damaged);
        assert_eq!(pem("MAA="), KeyError::Damaged);
        // DSA.
        assert_eq!(pem("MBEwCQYHKoZIzjgEAQMEAAAAAA=="), KeyError::Unsupported);
    }

    #[test]
    fn fuzz_key() {
        let words = [BEGIN, END, "-----BEGIN", "MFkw", "MII", "=", "\n", "?", "AAAA"];
        fuzz::target!("tests/corpus/key").words(&words).run(|bytes| {
            let key = PublicKey::from_pem(&String::from_utf8_lossy(bytes));
            if let Ok(key) = &key {
                assert!(!key.verifies(b"message", bytes));
            }
            fuzz::outcome(&key)
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let text = format!("{BEGIN}{}{END}", STANDARD.encode(&bytes));
            if let Ok(key) = PublicKey::from_pem(&text) {
                prop_assert!(!key.verifies(b"message", &bytes));
            }
        }
    }
}
