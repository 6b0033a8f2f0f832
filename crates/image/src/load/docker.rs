//! The Docker archive: `manifest.json` names configuration and layers by their place in the archive.
//!
//! A manifest is written for each image, of Docker's media types as containerd does, so that the image is what
//! it was, with uncompressed layers as the archive has them.

use std::collections::HashMap;
use std::io::Read;

use serde::Deserialize;
use spec::image::{Descriptor, Manifest, media_type};
use spec::{Digest, Reference};
use store::Lease;

use super::archive::Files;
use super::{Found, MAX_IMAGES};
use crate::compression::{Compression, detect};
use crate::document::{MAX_CONFIG, MAX_MANIFEST, parse_config};
use crate::error::ImageError;
use crate::images::Images;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn images(
    images: &Images,
    files: &Files,
    manifest: (Digest, u64),
    lease: &Lease,
) -> Result<Vec<Found>, ImageError> {
    let content = images.inner.store.content();
    let bytes = content.read(&manifest.0, MAX_MANIFEST)?;
    let entries: Vec<Entry> =
        serde_json::from_slice(&bytes).map_err(|e| ImageError::Archive(format!("manifest.json: {e}")))?;
    if entries.len() > MAX_IMAGES {
        return Err(ImageError::Archive(format!(
            "manifest.json names {} images, at most {MAX_IMAGES} are supported",
            entries.len()
        )));
    }
    let mut found = Vec::new();
    // How many layers each configuration speaks of: several images may have one.
    let mut diffs: HashMap<Digest, usize> = HashMap::new();
    for entry in entries {
        let missing =
            |name: &str| ImageError::Archive(format!("manifest.json names {name:?}, which is missing"));
        let (config, config_size) = files.get(&entry.config).ok_or_else(|| missing(&entry.config))?;
        let said = match diffs.get(&config) {
            Some(said) => *said,
            None => {
                let parsed = parse_config(&config, &content.read(&config, MAX_CONFIG)?)?;
                let said = parsed.rootfs.diff_ids.len();
                diffs.insert(config.clone(), said);
                said
            }
        };
        let mut layers = Vec::new();
        for name in entry.layers.unwrap_or_default() {
            let (digest, size) = files.get(&name).ok_or_else(|| missing(&name))?;
            layers.push(Descriptor::new(layer_type(images, &digest)?, digest, size));
        }
        if layers.len() != said {
            return Err(ImageError::Archive(format!(
                "{} has {} layers and its configuration {said} diff IDs",
                entry.config,
                layers.len()
            )));
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::DOCKER_MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::new(media_type::DOCKER_CONFIG, config, config_size),
            layers,
            subject: None,
            annotations: Default::default(),
            extra: Default::default(),
        };
        let target = images.put_document(
            &serde_json::to_vec(&manifest)?,
            media_type::DOCKER_MANIFEST,
            lease,
        )?;
        let mut names = Vec::new();
        for tag in entry.repo_tags.unwrap_or_default() {
            names.push(Reference::parse_normalized(&tag)?.or_latest());
        }
        found.push(Found { target, names });
    }
    Ok(found)
}

fn layer_type(images: &Images, digest: &Digest) -> Result<&'static str, ImageError> {
    let mut beginning = Vec::new();
    images
        .inner
        .store
        .content()
        .open(digest)?
        .take(8)
        .read_to_end(&mut beginning)
        .map_err(ImageError::Read)?;
    Ok(match detect(&beginning) {
        Compression::None => media_type::DOCKER_LAYER,
        Compression::Gzip => media_type::DOCKER_LAYER_GZIP,
        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
        Compression::Xz | Compression::Bzip2 => {
            return Err(ImageError::Archive(format!(
                "layer {digest} is compressed in a way that images do not allow"
            )));
        }
    })
}
