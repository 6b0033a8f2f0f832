//! The list of images: one line per target.

use spec::Platform;
use spec::image::{Descriptor, Document};

use crate::document::children;
use crate::error::ImageError;
use crate::image::{ImageSummary, ManifestSummary};
use crate::images::Images;
use crate::platform::is_runnable;

impl Images {
    /// All images, newest first. One that lost its content is logged and left out: a list never fails because
    /// of a single image.
    pub fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let mut lines: Vec<ImageSummary> = Vec::new();
        for target in self.targets()? {
            match self.summary(&target) {
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

    fn summary(&self, target: &Descriptor) -> Result<ImageSummary, ImageError> {
        let image = self.view(target, None, target.digest.as_str())?;
        Ok(ImageSummary {
            id: image.id,
            references: image.references,
            repo_digests: image.repo_digests,
            created: image.config.created.clone(),
            media_type: target.media_type.clone(),
            size: image.size,
            config: image.config,
            platform: image.platform,
            manifest_digest: image.manifest_digest,
            manifests: self.manifests(target)?,
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
        let content = store.content();
        let mut found = Vec::new();
        for entry in entries {
            let mut summary = ManifestSummary {
                attestation: !is_runnable(&entry),
                platform: entry.platform.clone().map(|p| p.normalized()),
                available: false,
                content_size: 0,
                descriptor: entry,
            };
            if content.has(&summary.descriptor.digest) {
                let blobs = self.inner.documents.blobs_here(store, &summary.descriptor)?;
                summary.content_size = blobs.iter().map(|d| d.size).sum();
                summary.available = self
                    .inner
                    .documents
                    .manifests_here(store, &summary.descriptor)?
                    .iter()
                    .all(|(_, m)| {
                        std::iter::once(&m.config)
                            .chain(&m.layers)
                            .all(|d| content.has(&d.digest))
                    });
                if summary.platform.is_none()
                    && let Some((_, manifest)) = self
                        .inner
                        .documents
                        .manifests_here(store, &summary.descriptor)?
                        .first()
                    && let Ok(config) = self.inner.documents.config(store, &manifest.config.digest)
                    && !config.0.architecture.is_empty()
                {
                    summary.platform = Some(Platform::normalized(&config.0.platform()));
                }
            }
            found.push(summary);
        }
        Ok(found)
    }
}
