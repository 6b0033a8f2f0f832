//! The list of images: one line per target.
//!
//! What the database knows of all of them is read in three questions, not in some for each image: a store has a thousand.
//! For the same reason the disk is asked once for each blob, however many images have it, and documents are not copied.

use std::collections::{HashMap, HashSet};

use spec::image::{Descriptor, Document};
use spec::{Digest, Reference};
use store::{Content, SnapshotId};

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
    /// Bytes on the disk for each blob that was met, where it is here.
    blobs: HashMap<Digest, Option<u64>>,
}

impl Known {
    fn held(&mut self, content: &Content, blob: &Digest) -> Option<u64> {
        if let Some(known) = self.blobs.get(blob) {
            return *known;
        }
        let held = content.size(blob).map(|size| content.held_bytes(blob, size));
        self.blobs.insert(blob.clone(), held);
        held
    }
}

impl Images {
    /// All images, newest first. One that lost its content is logged and left out: a list never fails because
    /// of a single image.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut lines: Vec<ImageSummary> = Vec::new();
        let mut known = Known {
            names: self.all_names()?,
            layers: self.inner.store.snapshots().layer_sizes()?,
            parents: self.all_parents()?,
            blobs: HashMap::new(),
        };
        for target in self.targets()? {
            match self.summary(&target, &mut known) {
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

    /// What users call the images that have this layer unpacked, each once.
    pub fn with_layer(&self, layer: SnapshotId) -> Result<Vec<String>, ImageError> {
        let tops: Vec<(String, SnapshotId)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT image, snapshot FROM image_snapshot ORDER BY image")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let names = self.all_names()?;
        let mut found = Vec::new();
        for (image, top) in tops {
            let stack = self.inner.store.snapshots().stack(top);
            // Collected since it was looked up.
            if !stack.is_ok_and(|stack| stack.iter().any(|one| one.id == layer)) {
                continue;
            }
            let Ok(digest) = image.parse::<Digest>() else {
                continue;
            };
            let name = names.get(&digest).and_then(|names| names.first());
            let shown = name.map_or_else(|| digest.short().to_owned(), Reference::familiar);
            if !found.contains(&shown) {
                found.push(shown);
            }
        }
        Ok(found)
    }

    /// How many there are.
    pub fn count(&self) -> Result<usize, ImageError> {
        Ok(self.targets()?.len())
    }

    fn summary(&self, target: &Descriptor, known: &mut Known) -> Result<ImageSummary, ImageError> {
        let (_, config) = self.choose(target, None, target.digest.as_str())?;
        let config = &config.0;
        let references = known.names.remove(&target.digest).unwrap_or_default();
        Ok(ImageSummary {
            id: target.digest.clone(),
            shown: self.id_of(target),
            repo_digests: repo_digests(&references, &target.digest),
            references,
            created: config.created.clone(),
            media_type: target.media_type.clone(),
            size: self.known_size(target, known)?,
            platform: config.platform(),
            labels: config.config.labels.clone(),
            parent: known
                .parents
                .get(&target.digest)
                .map(|parent| self.shown(parent))
                .transpose()?,
            target: target.clone(),
        })
    }

    /// What [`Images::size_of`] says, from what is known by now.
    fn known_size(&self, target: &Descriptor, known: &mut Known) -> Result<u64, ImageError> {
        let content = self.inner.store.content();
        let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
        let mut size: u64 = 0;
        let mut add = |known: &mut Known, blob: &Digest| {
            let held = known.held(content, blob);
            if blobs.insert(blob.clone()) {
                size = size.saturating_add(held.unwrap_or(0));
            }
            held.is_some()
        };
        let documents = &self.inner.documents;
        documents.walk_here(&self.inner.store, target, &mut |descriptor, document| {
            add(known, &descriptor.digest);
            let Document::Manifest(manifest) = document else {
                return;
            };
            for layer in &manifest.layers {
                add(known, &layer.digest);
            }
            let config = &manifest.config.digest;
            if add(known, config)
                && let Ok(config) = documents.config(&self.inner.store, config)
            {
                layers.extend(chains(&config.0.rootfs.diff_ids));
            }
        })?;
        for chain in layers {
            let bytes = match known.layers.get(&chain) {
                Some(Some(bytes)) => *bytes,
                // Never measured so far.
                Some(None) => {
                    let bytes = self.unpacked_size([chain.clone()])?;
                    known.layers.insert(chain, Some(bytes));
                    bytes
                }
                None => 0,
            };
            size = size.saturating_add(bytes);
        }
        Ok(size)
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
