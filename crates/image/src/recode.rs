//! The same image in another form: its layers compressed otherwise, its manifest with annotations.
//!
//! Files, configuration and diff IDs stay what they are, so that what was unpacked of the image is of the new one as well.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};

use spec::image::{Descriptor, media_type};
use store::Lease;

use crate::compression::{self, Compression, Even};
use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;
use crate::registered::UnpackedManifest;
use crate::scratch::ScratchBlob;

/// How an image is to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageForm {
    /// How layers are compressed; `None`: as they are.
    pub compression: Option<LayerCompression>,
    /// Layers that were not made here as well.
    pub force: bool,
    /// What the manifest says beside the image.
    pub annotations: BTreeMap<String, String>,
}

/// How layers are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerCompression {
    None,
    Gzip { level: Option<u32> },
    Zstd { level: Option<i32> },
}

impl LayerCompression {
    fn kind(self) -> Compression {
        match self {
            LayerCompression::None => Compression::None,
            LayerCompression::Gzip { .. } => Compression::Gzip,
            LayerCompression::Zstd { .. } => Compression::Zstd,
        }
    }

    /// Whether a layer need not be touched. Which level it has cannot be seen.
    fn is(self, media_type: &str) -> bool {
        let level = matches!(
            self,
            LayerCompression::Gzip { level: Some(_) } | LayerCompression::Zstd { level: Some(_) }
        );
        !level && media_type == self.media_type()
    }

    fn media_type(self) -> &'static str {
        match self.kind() {
            Compression::Zstd => media_type::OCI_LAYER_ZSTD,
            Compression::None => media_type::OCI_LAYER,
            _ => media_type::OCI_LAYER_GZIP,
        }
    }
}

impl ImageForm {
    /// Whether an image that was just made is in it already.
    pub fn is_plain(&self) -> bool {
        self.compression.is_none() && self.annotations.is_empty()
    }
}

impl Images {
    /// The image in this form; itself, where it is in it already. `below` of its lowest layers were not made here. Blocks.
    pub fn in_form(&self, image: &Image, form: &ImageForm, below: usize) -> Result<Image, ImageError> {
        if form.is_plain() {
            return Ok(image.clone());
        }
        let lease = self.inner.store.lease();
        let mut manifest = image.manifest.clone();
        let below = if form.force { 0 } else { below };
        for (index, layer) in manifest.layers.iter_mut().enumerate() {
            lease.hold_blob(&layer.digest);
            if let Some(compression) = form.compression
                && index >= below
                && !compression.is(&layer.media_type)
            {
                *layer = self.recode(layer, compression, &lease)?;
            }
        }
        manifest.annotations.extend(form.annotations.clone());
        let kind = image.manifest_descriptor.media_type.clone();
        let target = self.put_document(&serde_json::to_vec(&manifest)?, &kind, &lease)?;
        let unpacked = UnpackedManifest {
            manifest: target.digest.clone(),
            top: self.snapshot(image)?,
        };
        self.register(&target, &[], &[unpacked])?;
        self.view(&target, None, target.digest.as_str())
    }

    /// Writes a layer with another compression.
    fn recode(
        &self,
        layer: &Descriptor,
        compression: LayerCompression,
        lease: &Lease,
    ) -> Result<Descriptor, ImageError> {
        let content = self.inner.store.content();
        let mut from = compression::decoder(BufReader::new(content.open(&layer.digest)?));
        let scratch = ScratchBlob::new(content)?;
        let blob = match compression {
            LayerCompression::None => copy(&mut from, scratch)?,
            LayerCompression::Gzip { level } => {
                let encoder = compression::gzip_encoder(scratch, level.unwrap_or(6));
                copy(&mut from, encoder)?.finish().map_err(ImageError::Write)?
            }
            LayerCompression::Zstd { level } => {
                let encoder = zstd::Encoder::new(scratch, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL));
                let encoder = encoder.map_err(ImageError::Write)?;
                copy(&mut from, encoder)?.finish().map_err(ImageError::Write)?
            }
        };
        let (digest, size) = blob.commit(None)?;
        lease.hold_blob(&digest);
        Ok(Descriptor::new(compression.media_type(), digest, size))
    }
}

/// In even steps, so that the same comes of it when it is made again.
fn copy<W: Write>(from: &mut dyn io::Read, to: W) -> Result<W, ImageError> {
    let mut to = Even::new(to);
    io::copy(from, &mut to).map_err(ImageError::Write)?;
    to.finish().map_err(ImageError::Write)
}
