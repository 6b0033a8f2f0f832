//! Whatever comes from outside is read or refused: every parser of foreign documents under a corpus and what becomes of it
//! when bytes are changed, left out and doubled. `PROPTEST_CASES=100000` runs it for longer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use spec::image::{Document, ImageConfig, Index, Manifest, media_type};
use spec::{Digest, Platform, Reference};

/// The documents of `tests/corpus`.
fn corpus() -> Vec<Vec<u8>> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Leave(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
    Insert(prop::sample::Index, &'static str),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let words = [
        "null",
        "{}",
        "[]",
        "\"",
        "-1",
        "1e999",
        "18446744073709551616",
        "sha256:",
        "\u{0}",
        "..",
        "@",
        ":",
    ];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 1usize..60).prop_map(|(at, length)| Change::Leave(at, length)),
        (at(), 1usize..200).prop_map(|(at, length)| Change::Double(at, length)),
        (at(), prop::sample::select(words.to_vec())).prop_map(|(at, word)| Change::Insert(at, word)),
    ]
}

/// A document of the corpus with some changes.
fn changed() -> impl Strategy<Value = Vec<u8>> {
    let corpus = corpus();
    (
        prop::sample::select(corpus),
        prop::collection::vec(change(), 0..6),
    )
        .prop_map(|(mut bytes, changes)| {
            for change in changes {
                if bytes.is_empty() {
                    break;
                }
                match change {
                    Change::Set(at, byte) => {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    Change::Leave(at, length) => {
                        let at = at.index(bytes.len());
                        bytes.drain(at..(at + length).min(bytes.len()));
                    }
                    Change::Double(at, length) => {
                        let at = at.index(bytes.len());
                        let part = bytes[at..(at + length).min(bytes.len())].to_vec();
                        bytes.splice(at..at, part);
                    }
                    Change::Insert(at, word) => {
                        let at = at.index(bytes.len());
                        bytes.splice(at..at, word.bytes());
                    }
                }
            }
            bytes
        })
}

/// What was read and written again is read as the same.
fn again<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    let bytes = serde_json::to_vec(value).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&bytes).unwrap(), *value);
}

proptest! {
    #[test]
    fn documents_are_read_or_refused(bytes in changed()) {
        for kind in ["", media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_LIST, media_type::DOCKER_SCHEMA1, "text/html"] {
            match Document::parse(kind, &bytes) {
                Ok(Document::Manifest(manifest)) => again::<Manifest>(&manifest),
                Ok(Document::Index(index)) => again::<Index>(&index),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
        if let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) {
            again::<ImageConfig>(&config);
            let _ = config.platform().normalized();
        }
    }

    #[test]
    fn names_are_read_or_refused(bytes in changed()) {
        for line in String::from_utf8_lossy(&bytes).lines() {
            if let Ok(reference) = Reference::parse_normalized(line) {
                // The name in full is a name, and the same one.
                let whole = reference.canonical();
                prop_assert_eq!(Reference::parse_normalized(&whole).unwrap().canonical(), whole);
                prop_assert!(!reference.name().contains("..") && !reference.name().contains("//"), "{}", reference.name());
            }
            if let Ok(digest) = line.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), line);
                prop_assert!(!digest.hex().contains('/'));
            }
            if let Ok(platform) = line.parse::<Platform>() {
                let _ = platform.normalized().to_string();
            }
        }
    }
}
