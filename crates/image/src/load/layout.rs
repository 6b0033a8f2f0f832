//! The OCI layout in an archive (image-spec 1.1, "Image Layout").
//!
//! Names come from the annotation containerd and Docker write, or from the specification's `ref.name` where
//! that is a whole name and not only a tag.

use std::collections::HashSet;

use spec::image::{Descriptor, Document, Index, Manifest, media_type};
use spec::{Digest, Reference};

use super::archive::Files;
use super::{Found, MAX_IMAGES};
use crate::document::MAX_MANIFEST;
use crate::error::ImageError;
use crate::images::Images;
use crate::save::{FULL_NAME, REF_NAME};
use crate::signature::is_signatures;

/// The images, and the manifests of signatures that lie beside them.
pub(super) fn images(
    images: &Images,
    files: &Files,
    index: (Digest, u64),
) -> Result<(Vec<Found>, Vec<Manifest>), ImageError> {
    let bytes = images.inner.store.content().read(&index.0, MAX_MANIFEST)?;
    let index: Index =
        serde_json::from_slice(&bytes).map_err(|e| ImageError::Archive(format!("index.json: {e}")))?;
    if index.manifests.len() > MAX_IMAGES {
        return Err(ImageError::Archive(format!(
            "index.json names {} manifests, at most {MAX_IMAGES} are supported",
            index.manifests.len()
        )));
    }
    let mut found: Vec<Found> = Vec::new();
    let mut signatures = Vec::new();
    // Each once, however often it is named.
    let mut seen = HashSet::new();
    for entry in &index.manifests {
        if !(media_type::is_index(&entry.media_type) || media_type::is_manifest(&entry.media_type)) {
            continue;
        }
        let place = format!("blobs/{}/{}", entry.digest.algorithm(), entry.digest.hex());
        let Some((_, size)) = files.get(&place) else {
            return Err(ImageError::Archive(format!(
                "index.json names {}, which is missing",
                entry.digest
            )));
        };
        let target = Descriptor::new(&entry.media_type, entry.digest.clone(), size);
        if media_type::is_manifest(&entry.media_type)
            && let Document::Manifest(manifest) =
                &*images.inner.documents.manifest(&images.inner.store, &target)?
            && is_signatures(manifest)
        {
            if seen.insert(entry.digest.clone()) {
                signatures.push(manifest.clone());
            }
            continue;
        }
        let name = name_of(entry);
        match found.iter_mut().find(|f| f.target.digest == target.digest) {
            Some(known) => known.names.extend(name),
            None => found.push(Found {
                target,
                names: name.into_iter().collect(),
            }),
        }
    }
    Ok((found, signatures))
}

fn name_of(entry: &Descriptor) -> Option<Reference> {
    if let Some(full) = entry.annotations.get(FULL_NAME) {
        return named(full);
    }
    entry
        .annotations
        .get(REF_NAME)
        .filter(|name| name.contains([':', '/']))
        .and_then(|name| named(name))
}

/// A usable name with a tag; a name that is none of that is not given to the image.
fn named(text: &str) -> Option<Reference> {
    match Reference::parse_normalized(text) {
        Ok(reference) if reference.digest().is_none() => Some(reference.or_latest()),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(name = text, %error, "a name in an archive is not usable");
            None
        }
    }
}
