//! The list of images: one line per target.
//!
//! What the database knows of all of them is read in two questions, not in some for each image: a store has a thousand.

use std::collections::HashMap;

use spec::image::{Descriptor, Document};
use spec::{Digest, Reference};

use crate::document::children;
use crate::error::ImageError;
use crate::image::{ImageSummary, ManifestSummary, chains, repo_digests};
use crate::images::Images;
use crate::platform::is_runnable;

/// What is known of all images.
struct Known {
    names: HashMap<Digest, Vec<Reference>>,
    /// Bytes of each layer by its chain ID, where it was measured.
    layers: HashMap<Digest, Option<u64>>,
    parents: HashMap<Digest, Digest>,
}

impl Images {
    /// All images, newest first. One that lost its content is logged and left out: a list never fails because
    /// of a single image.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut lines: Vec<ImageSummary> = Vec::new();
        let known = Known {
            names: self.all_names()?,
            layers: self.inner.store.snapshots().layer_sizes()?,
            parents: self.all_parents()?,
        };
        for target in self.targets()? {
            match self.summary(&target, &known) {
                Ok(line) => lines.push(line),
                Err(error) => tracing::warn!(image = %target.digest, %error, "image cannot be listed"),
            }
        }
        let time = |line: &ImageSummary| {
            line.created
                .as_deref()
                .and_then(|c| c.parse::<jiff::Timestamp>().ok())
                .map_or(i128::MIN, |t| t.as_nanosecond())
        };
        lines.sort_by_key(|line| std::cmp::Reverse(time(line)));
        Ok(lines)
    }

    /// How many there are.
    pub fn count(&self) -> Result<usize, ImageError> {
        Ok(self.targets()?.len())
    }

    fn summary(&self, target: &Descriptor, known: &Known) -> Result<ImageSummary, ImageError> {
        let store = &self.inner.store;
        let (_, config) = self.choose(target, None, target.digest.as_str())?;
        let references = known.names.get(&target.digest).cloned().unwrap_or_default();
        let blobs = self.inner.documents.blobs_here(store, target)?;
        let held = |blob: &Descriptor| store.content().held_bytes(&blob.digest, blob.size);
        let mut size: u64 = blobs.iter().map(held).sum();
        for chain in self.layers_of(target)? {
            size += match known.layers.get(&chain) {
                Some(Some(bytes)) => *bytes,
                // Never measured so far.
                Some(None) => self.unpacked_size([chain])?,
                None => 0,
            };
        }
        let config = config.0.clone();
        Ok(ImageSummary {
            id: target.digest.clone(),
            shown: self.id_of(target),
            repo_digests: repo_digests(&references, &target.digest),
            references,
            created: config.created.clone(),
            media_type: target.media_type.clone(),
            size,
            platform: config.platform(),
            config,
            parent: known
                .parents
                .get(&target.digest)
                .map(|parent| self.shown(parent))
                .transpose()?,
            target: target.clone(),
        })
    }

    /// The manifests `target` names, here or not.
    pub fn manifests(&self, target: &Descriptor) -> Result<Vec<ManifestSummary>, ImageError> {
        let store = &self.inner.store;
        let document = self.inner.documents.manifest(store, target)?;
        let entries: Vec<Descriptor> = match &*document {
            Document::Manifest(_) => vec![target.clone()],
            Document::Index(index) => children(index).cloned().collect(),
        };
        entries
            .into_iter()
            .map(|entry| self.manifest_summary(entry))
            .collect()
    }

    fn manifest_summary(&self, entry: Descriptor) -> Result<ManifestSummary, ImageError> {
        let store = &self.inner.store;
        let content = store.content();
        let mut summary = ManifestSummary {
            attestation: !is_runnable(&entry),
            platform: entry.platform.clone().map(|p| p.normalized()),
            available: false,
            content_size: 0,
            unpacked_size: 0,
            descriptor: entry,
        };
        if !content.has(&summary.descriptor.digest) {
            return Ok(summary);
        }
        let blobs = self.inner.documents.blobs_here(store, &summary.descriptor)?;
        summary.content_size = blobs
            .iter()
            .map(|blob| content.held_bytes(&blob.digest, blob.size))
            .sum();
        let here = self.inner.documents.manifests_here(store, &summary.descriptor)?;
        let mut needed = here
            .iter()
            .flat_map(|(_, manifest)| std::iter::once(&manifest.config).chain(&manifest.layers));
        summary.available = needed.all(|blob| content.has(&blob.digest));
        if let Some((_, manifest)) = here.first()
            && let Some(config) = self.config_here(manifest)
        {
            summary.unpacked_size = self.unpacked_size(chains(&config.0.rootfs.diff_ids))?;
            if summary.platform.is_none() && !config.0.architecture.is_empty() {
                summary.platform = Some(config.0.platform().normalized());
            }
        }
        Ok(summary)
    }
}
