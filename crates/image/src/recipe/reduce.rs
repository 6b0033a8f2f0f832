//! Taking compressed layers off the disk, as the policy says.
//!
//! ```text
//!   recipe found and followed once ──> row (durable), the layer synced ──> file removed
//! ```
//!
//! Killed in between, there is a file that counts as one that may be missing, and the next run removes it. What an operation
//! holds stays; it goes with the next run after that.

use spec::Digest;
use spec::image::Descriptor;
use store::SnapshotId;

use super::BlobPolicy;
use super::table::Known;
use crate::error::ImageError;
use crate::images::Images;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reduced {
    pub blobs: u64,
    /// Bytes of the disk, without what the recipes take.
    pub bytes: u64,
}

impl Images {
    /// Removes the files of compressed layers of images that the policy does not keep. `stop` is asked before each layer.
    /// Blocks, for as long as compressing what is new takes.
    pub fn reduce(&self, policy: BlobPolicy, stop: &dyn Fn() -> bool) -> Result<Reduced, ImageError> {
        let mut reduced = Reduced::default();
        if policy == BlobPolicy::Keep {
            return Ok(reduced);
        }
        let content = self.inner.store.content();
        let layers = self.compressed_layers()?;
        let stored = layers
            .into_iter()
            .filter(|(_, blob)| content.is_stored(&blob.digest));
        let stored: Vec<(Digest, Descriptor)> = stored.collect();
        if !stored.is_empty() {
            // What is made again of a layer's files must not depend on files that a power cut may take.
            self.inner.store.snapshots().settle()?;
        }
        for (diff, blob) in stored {
            if stop() {
                break;
            }
            let may_go = match self.may_go(policy, &diff, &blob) {
                Ok(may_go) => may_go,
                // One layer that cannot be read is no reason to keep all others.
                Err(error) => {
                    tracing::warn!(blob = %blob.digest, %error, "a compressed layer is kept");
                    false
                }
            };
            if may_go {
                let bytes = self
                    .inner
                    .store
                    .let_go(&blob.digest)
                    .map_err(|error| ImageError::Content(store::ContentError::Io(error)))?;
                reduced.blobs += u64::from(bytes > 0);
                reduced.bytes += bytes;
            }
        }
        Ok(reduced)
    }

    /// The unpacked layers of images, with their compressed forms.
    fn compressed_layers(&self) -> Result<Vec<(Digest, Descriptor)>, ImageError> {
        let rows: Vec<(String, String, String)> = self.inner.store.db().read(|db| {
            db.prepare_cached(
                "SELECT diff, blob, media_type FROM layer_blob
                 WHERE blob IN (SELECT blob FROM image_blob) ORDER BY blob, diff",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
        })?;
        let content = self.inner.store.content();
        let parsed = rows.into_iter().filter_map(|(diff, blob, media_type)| {
            let blob: Digest = blob.parse().ok()?;
            let size = content.size(&blob)?;
            Some((diff.parse().ok()?, Descriptor::new(&media_type, blob, size)))
        });
        Ok(parsed.collect())
    }

    /// Whether a blob can be had again, as far as the policy wants to know; writes down what was found out.
    fn may_go(&self, policy: BlobPolicy, diff: &Digest, blob: &Descriptor) -> Result<bool, ImageError> {
        let known = match self.known_recipe(&blob.digest)? {
            Some(known) => known,
            None => {
                let Some(known) = self.look_for_recipe(diff, blob)? else {
                    return Ok(false);
                };
                known
            }
        };
        if known.recipe.is_some() {
            return Ok(known.away);
        }
        if policy != BlobPolicy::Drop || self.origins(&blob.digest)?.is_empty() {
            return Ok(false);
        }
        match known.away {
            true => Ok(true),
            false => self.record_recipe(&blob.digest, &Known { away: true, ..known }),
        }
    }

    /// `None` while the layer is not unpacked here.
    fn look_for_recipe(&self, diff: &Digest, blob: &Descriptor) -> Result<Option<Known>, ImageError> {
        let store = &self.inner.store;
        let lease = store.lease();
        lease.hold_blob(&blob.digest);
        let layers = store.snapshots().by_diff(diff)?;
        layers.iter().for_each(|layer| lease.hold_snapshot(*layer));
        let here = |layer: &&SnapshotId| store.snapshots().get(**layer).is_ok();
        let Some(layer) = layers.iter().find(here) else {
            return Ok(None);
        };
        let recipe = self.make_recipe(blob, diff, &store.snapshots().part(*layer)?, &lease)?;
        let known = Known {
            diff: diff.clone(),
            size: blob.size,
            away: recipe.is_some(),
            recipe,
        };
        Ok(self.record_recipe(&blob.digest, &known)?.then_some(known))
    }
}
