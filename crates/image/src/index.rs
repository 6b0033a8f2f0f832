//! Several images, one for each platform, under one digest.

use spec::Digest;
use spec::image::{Index, media_type};

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;

impl Images {
    /// Writes an index of `images` and registers it. What was unpacked of them stays unpacked. Blocks.
    pub fn commit_index(&self, images: &[Image]) -> Result<Image, ImageError> {
        let lease = self.inner.store.lease();
        let manifests = images.iter().map(|image| {
            let mut descriptor = image.manifest_descriptor.clone();
            descriptor.digest = image.manifest_digest.clone();
            descriptor.platform = Some(image.platform.clone());
            for part in std::iter::once(&image.manifest_digest)
                .chain([&image.config_digest])
                .chain(image.manifest.layers.iter().map(|layer| &layer.digest))
            {
                lease.hold_blob(part);
            }
            descriptor
        });
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests: manifests.collect(),
            annotations: Default::default(),
            extra: Default::default(),
        };
        let target = self.put_document(&serde_json::to_vec(&index)?, media_type::OCI_INDEX, &lease)?;
        self.register(&target, &[], &[])?;
        self.view(&target, None, target.digest.as_str())
    }

    /// Writes the image `id` to `out` under names that it need not have here. Blocks.
    pub fn save_as(
        &self,
        id: &Digest,
        names: &[spec::Reference],
        out: impl std::io::Write,
    ) -> Result<(), ImageError> {
        self.save_images(
            vec![(vec![self.resolve(id.as_str())?], names.to_vec())],
            out,
            &Default::default(),
        )
    }
}
