//! Taking single platforms out of an image: what only they need goes, the index and everything else stays.
//!
//! A platform's content is its manifest, what that needs, and the attestations about it. Whatever of it the rest of the
//! image needs as well stays the image's; what other images need is theirs and stays on disk. An image that is left
//! with nothing to run goes altogether, with its names.

use std::collections::HashSet;

use rusqlite::Transaction;
use spec::image::{Descriptor, Document};
use spec::{Digest, Platform};
use store::{DbError, rusqlite};

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;
use crate::names::Removed;

/// Says of which manifest an attestation is.
pub const SUBJECT: &str = "vnd.docker.reference.digest";

/// What taking platforms out of an image came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformsRemoved {
    /// Manifests that the image has no more: of the platforms, and attestations about them.
    pub manifests: Vec<Digest>,
    /// The image itself, if nothing to run was left of it.
    pub image: Option<Removed>,
}

impl Images {
    /// The image for exactly this platform: no lower variant will do, as it does to run.
    pub fn resolve_exactly(&self, name_or_id: &str, platform: &Platform) -> Result<Image, ImageError> {
        let image = self.resolve_platform(name_or_id, Some(platform))?;
        match platform.matches(&image.platform) {
            true => Ok(image),
            false => Err(ImageError::PlatformMissing {
                name: name_or_id.to_owned(),
                platform: platform.clone(),
            }),
        }
    }

    /// Takes the manifests of platforms out of an image. Their content goes with the next garbage collection.
    pub fn remove_platforms(
        &self,
        image: &Image,
        manifests: &[Digest],
    ) -> Result<PlatformsRemoved, ImageError> {
        let target = &image.target;
        let doomed = |entry: &Descriptor| {
            let subject = entry.annotations.get(SUBJECT);
            manifests.iter().any(|manifest| {
                *manifest == entry.digest || subject.is_some_and(|of| of == manifest.as_str())
            })
        };
        let mut gone = self.manifests_of(target, &doomed)?;
        // The order of whoever asked: what was named first.
        gone.sort_by_key(|digest| {
            manifests
                .iter()
                .position(|named| named == digest)
                .unwrap_or(usize::MAX)
        });
        let left = self.inner.documents.images_here(&self.inner.store, target)?;
        let content = self.inner.store.content();
        let runs = left
            .iter()
            .any(|(entry, manifest)| !doomed(entry) && content.has(&manifest.config.digest));
        if !runs {
            return Ok(PlatformsRemoved {
                manifests: gone,
                image: Some(self.remove_by_digest(&target.digest)?),
            });
        }
        self.inner.store.db().make_room();
        // What the rest needs is found out inside the transaction: a pull may just be adding to the image.
        self.inner.store.db().write_durable(|tx| {
            let kept = self
                .inner
                .documents
                .blobs_here_but(&self.inner.store, target, &doomed)?;
            let kept: HashSet<&str> = kept.iter().map(|blob| blob.digest.as_str()).collect();
            let all = self.inner.documents.blobs_here(&self.inner.store, target)?;
            let blobs = all.iter().map(|blob| blob.digest.as_str());
            let doomed: Vec<&str> = blobs.filter(|blob| !kept.contains(blob)).collect();
            Ok::<(), ImageError>(forget(tx, &target.digest, &doomed, &gone).map_err(DbError::from)?)
        })?;
        Ok(PlatformsRemoved {
            manifests: gone,
            image: None,
        })
    }

    /// The manifests below `target` that are here and `wanted`.
    fn manifests_of(
        &self,
        target: &Descriptor,
        wanted: &dyn Fn(&Descriptor) -> bool,
    ) -> Result<Vec<Digest>, ImageError> {
        let mut found = Vec::new();
        self.inner
            .documents
            .walk_here(&self.inner.store, target, &mut |descriptor, document| {
                if wanted(descriptor) && matches!(document, Document::Manifest(_)) {
                    found.push(descriptor.digest.clone());
                }
            })?;
        Ok(found)
    }
}

fn forget(
    tx: &Transaction<'_>,
    image: &Digest,
    blobs: &[&str],
    manifests: &[Digest],
) -> rusqlite::Result<()> {
    for blob in blobs {
        tx.prepare_cached("DELETE FROM image_blob WHERE image = ?1 AND blob = ?2")?
            .execute((image.as_str(), *blob))?;
    }
    for manifest in manifests {
        tx.prepare_cached("DELETE FROM image_snapshot WHERE image = ?1 AND manifest = ?2")?
            .execute((image.as_str(), manifest.as_str()))?;
    }
    Ok(())
}
