//! Images that a client has in OCI's layout (`oci-layout://STORE@DIGEST`), as named contexts and as sources of definitions.
//!
//! The documents are read over the session and checked before anything else is asked for; blobs that are here already do
//! not travel. What came is here for the build alone ([`Guest`]), and goes when nobody holds it any more.

use ::session::content::LAYOUT_STORE;
use image::Guest;
use spec::image::{Descriptor, Index, Manifest, media_type};
use spec::{Digest, Platform};

use crate::content;
use crate::error::Failure;
use crate::job::Job;
use crate::service::Service;
use crate::session::Session;

/// The largest document.
const MAX_DOCUMENT: u64 = 4 << 20;

/// The store and the digest that a name has, `STORE[:TAG]@DIGEST`.
pub fn parse(text: &str) -> Result<(String, Digest), Failure> {
    let text = text.trim_start_matches("//");
    let wrong = |why: &str| Failure::invalid(format!("invalid oci-layout {text:?}: {why}"));
    let (store, digest) = text.split_once('@').ok_or_else(|| wrong("it needs a digest"))?;
    let store = store.split(':').next().unwrap_or_default();
    match digest.parse() {
        Ok(digest) if !store.is_empty() => Ok((store.to_owned(), digest)),
        Ok(_) => Err(wrong("it names no store")),
        Err(_) => Err(wrong("its digest is none")),
    }
}

/// A document of the client's store, and its media type.
async fn document(session: &Session, store: &str, digest: &Digest) -> Result<(Vec<u8>, String), Failure> {
    let size = content::size(session, store, digest).await?;
    if size > MAX_DOCUMENT {
        return Err(Failure::invalid(format!(
            "{digest} has {size} bytes, at most {MAX_DOCUMENT} are read of a document"
        )));
    }
    let bytes = content::read(session, store, digest, size).await?;
    let value: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::invalid(format!("{digest} is no document of an image: {error}")))?;
    let kind = value.get("mediaType").and_then(serde_json::Value::as_str);
    let kind = match (kind, value.get("manifests")) {
        (Some(kind), _) => kind,
        (None, Some(_)) => media_type::OCI_INDEX,
        (None, None) => media_type::OCI_MANIFEST,
    };
    Ok((bytes, kind.to_owned()))
}

/// The manifest of an index for a platform.
fn choose(index: &Index, platform: &Platform) -> Option<Digest> {
    let fits = |of: &Platform| of.os == platform.os && of.architecture == platform.architecture;
    let candidates = index
        .manifests
        .iter()
        .filter(|entry| media_type::is_manifest(&entry.media_type));
    let mut fitting = candidates
        .clone()
        .filter(|entry| entry.platform.as_ref().is_some_and(fits));
    let exact = fitting.clone().find(|entry| {
        entry
            .platform
            .as_ref()
            .is_some_and(|of| of.variant == platform.variant)
    });
    let found = exact.or_else(|| fitting.next());
    let found = found.or_else(|| candidates.clone().find(|entry| entry.platform.is_none()));
    found.map(|entry| entry.digest.clone())
}

/// Brings an image of the client's store here.
pub async fn fetch(
    service: &Service,
    job: &Job,
    session: &Session,
    (store, digest): (&str, &Digest),
    platform: &Platform,
) -> Result<Guest, Failure> {
    job.borrow();
    let store = format!("{LAYOUT_STORE}{store}");
    let (mut bytes, mut kind) = document(session, &store, digest).await?;
    let mut digest = digest.clone();
    if media_type::is_index(&kind) {
        let index: Index = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::invalid(format!("{digest} is no index: {error}")))?;
        digest = choose(&index, platform)
            .ok_or_else(|| Failure::not_found(format!("{digest} has no image for {platform}")))?;
        (bytes, kind) = document(session, &store, &digest).await?;
    }
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::invalid(format!("{digest} is no manifest: {error}")))?;
    let images = &service.images;
    let (into, lease) = (images.store(), images.store().lease());
    let room = into.room().check();
    room.map_err(|error| Failure::unavailable(error.to_string()))?;
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        lease.hold_blob(&blob.digest);
        if !into.content().has(&blob.digest) {
            content::fetch(session, &store, blob, into).await?;
        }
    }
    lease.hold_blob(&digest);
    let target = Descriptor::new(&kind, digest, bytes.len() as u64);
    let images = images.clone();
    let receive = move || {
        let kept = images.store().content().put(&bytes);
        kept.map_err(|error| Failure::internal(error.to_string()))?;
        let guest = images.guest(&target, lease);
        guest.map_err(|error| Failure::from(build::BuildError::from(error)))
    };
    tokio::task::spawn_blocking(receive)
        .await
        .map_err(Failure::broken)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let digest = Digest::sha256(b"x");
        for text in [format!("//abc@{digest}"), format!("abc:1.2@{digest}")] {
            assert_eq!(parse(&text).unwrap(), ("abc".to_owned(), digest.clone()));
        }
        for (text, part) in [
            ("//abc", "needs a digest"),
            ("//abc@sha256:x", "its digest is none"),
            (&format!("//@{digest}"), "names no store"),
        ] {
            let said = parse(text).unwrap_err().message;
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn the_manifest_for_the_platform_is_chosen() {
        let entry = |text: &str, platform: Option<Platform>| Descriptor {
            platform,
            ..Descriptor::new(media_type::OCI_MANIFEST, Digest::sha256(text.as_bytes()), 1)
        };
        let index = Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: vec![
                entry("attestation", Some(Platform::new("unknown", "unknown", None))),
                entry("arm", Some(Platform::new("linux", "arm64", Some("v8")))),
                entry("amd", Some(Platform::new("linux", "amd64", None))),
            ],
            annotations: Default::default(),
            extra: Default::default(),
        };
        let chosen = |os: &str, architecture: &str| choose(&index, &Platform::new(os, architecture, None));
        assert_eq!(chosen("linux", "amd64"), Some(Digest::sha256(b"amd")));
        assert_eq!(chosen("linux", "arm64"), Some(Digest::sha256(b"arm")));
        assert_eq!(chosen("linux", "s390x"), None);
    }
}
