//! Whatever comes from outside is read or refused: every parser of names and of images' documents over its corpus and what
//! becomes of it when bytes are changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Debug;

use fuzz::{JSON, outcome};
use serde::Serialize;
use serde::de::DeserializeOwned;
use spec::image::{Document, DocumentError, ImageConfig, Index, Manifest, media_type};
use spec::{Digest, Platform, Reference};

/// What documents are made of.
const WORDS: [&str; 7] = [
    "sha256:",
    "\"digest\":",
    "\"size\":",
    "\"mediaType\":",
    "\"config\":",
    "\"manifests\":",
    "\"layers\":",
];

/// What was read and written again is read as the same.
fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let bytes = serde_json::to_vec(value).unwrap();
    assert_eq!(serde_json::from_slice::<T>(&bytes).unwrap(), *value);
}

/// A manifest or an index under every media type that it may be served with.
fn documents(bytes: &[u8]) -> String {
    let kinds = [
        "",
        media_type::OCI_MANIFEST,
        media_type::OCI_INDEX,
        media_type::DOCKER_LIST,
        media_type::DOCKER_SCHEMA1,
        "text/html",
    ];
    let said = kinds.map(|kind| {
        let read: Result<Document, DocumentError> = Document::parse(kind, bytes);
        match &read {
            Ok(Document::Manifest(manifest)) => again::<Manifest>(manifest),
            Ok(Document::Index(index)) => again::<Index>(index),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        outcome(&read)
    });
    said.join("; ")
}

#[test]
fn fuzz_manifest() {
    fuzz::target!("tests/corpus/manifest")
        .words(&JSON)
        .words(&WORDS)
        .run(documents);
}

#[test]
fn fuzz_index() {
    fuzz::target!("tests/corpus/index")
        .words(&JSON)
        .words(&WORDS)
        .run(documents);
}

#[test]
fn fuzz_config() {
    let target = fuzz::target!("tests/corpus/config").words(&JSON);
    target.words(&WORDS).run(|bytes| {
        let read = serde_json::from_slice::<ImageConfig>(bytes);
        if let Ok(config) = &read {
            again::<ImageConfig>(config);
            let _ = config.platform().normalized();
        }
        outcome(&read)
    });
}

/// References, digests and platforms, one a line.
#[test]
fn fuzz_reference() {
    let words = [
        ":",
        "@",
        "/",
        "..",
        "//",
        "sha256:",
        "[::1]",
        "localhost",
        "docker.io",
        "library/",
        "_",
        "__",
        "-",
        ".",
        "A",
        "\u{e9}",
        "\u{0}",
        "\n",
    ];
    fuzz::target!("tests/corpus/reference")
        .words(&words)
        .run(|bytes| {
            let mut said = Vec::new();
            for line in String::from_utf8_lossy(bytes).lines() {
                let reference = Reference::parse_normalized(line);
                said.push(outcome(&reference));
                if let Ok(reference) = reference {
                    // The name in full is a name, and the same one.
                    let whole = reference.canonical();
                    assert_eq!(Reference::parse_normalized(&whole).unwrap().canonical(), whole);
                    let name = reference.name();
                    assert!(!name.contains("..") && !name.contains("//"), "{name}");
                }
                if let Ok(digest) = line.parse::<Digest>() {
                    assert_eq!(digest.to_string(), line);
                    assert!(!digest.hex().contains('/'));
                }
                if let Ok(platform) = line.parse::<Platform>() {
                    let _ = platform.normalized().to_string();
                }
            }
            said.sort_unstable();
            said.dedup();
            said.join("; ")
        });
}
