//! What users know images by.
//!
//! Inside, an image is its target, an index or a manifest. What users see and say as its ID is that digest or, where the
//! daemon is set so, the digest of the configuration of the platform that is chosen for the host, as Docker's older store
//! has it. Then images with different manifests (another compression, an index around it) can be one by their ID. Targets
//! are understood as IDs in any case.

use std::sync::atomic::Ordering;

use spec::Digest;
use spec::image::Descriptor;

use crate::error::ImageError;
use crate::images::Images;

/// Which digest is an image's ID.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageIds {
    /// Of its index or manifest.
    #[default]
    Manifest,
    /// Of its configuration.
    Config,
}

impl std::str::FromStr for ImageIds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ImageIds, &'static str> {
        match text {
            "manifest" => Ok(ImageIds::Manifest),
            "config" => Ok(ImageIds::Config),
            _ => Err("expected manifest or config"),
        }
    }
}

impl Images {
    /// Says once, before images are used, which digests are IDs.
    pub fn set_ids(&self, ids: ImageIds) {
        let config = ids == ImageIds::Config;
        self.inner.config_ids.store(config, Ordering::Relaxed);
    }

    /// Which digests are IDs.
    pub fn ids(&self) -> ImageIds {
        match self.inner.config_ids.load(Ordering::Relaxed) {
            true => ImageIds::Config,
            false => ImageIds::Manifest,
        }
    }

    /// The ID of a target that is here; of one that is not, or has no configuration, the target itself.
    pub fn id_of(&self, target: &Descriptor) -> Digest {
        let chosen = || {
            let (descriptor, _) = self.choose(target, None, target.digest.as_str())?;
            Ok::<Digest, ImageError>(self.manifest_of(&descriptor)?.config.digest)
        };
        match self.ids() {
            ImageIds::Manifest => target.digest.clone(),
            ImageIds::Config => chosen().unwrap_or_else(|_| target.digest.clone()),
        }
    }

    /// The targets whose ID, where that is of a configuration, begins with `prefix`; newest first.
    pub(crate) fn targets_by_config(&self, prefix: &str) -> Result<Vec<Descriptor>, ImageError> {
        if self.ids() == ImageIds::Manifest {
            return Ok(Vec::new());
        }
        let (low, high) = (format!("sha256:{prefix}"), format!("sha256:{prefix}~"));
        let rows: Vec<String> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT DISTINCT image FROM image_blob WHERE blob >= ?1 AND blob < ?2")?
                .query_map([&low, &high], |row| row.get(0))?
                .collect()
        })?;
        let mut found = self.targets()?;
        // Any blob may begin so: what counts is that it is the configuration that the image goes by.
        found.retain(|target| {
            rows.iter().any(|image| image == target.digest.as_str())
                && self.id_of(target).hex().starts_with(prefix)
        });
        Ok(found)
    }
}
