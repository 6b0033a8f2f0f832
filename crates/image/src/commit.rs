//! Images made here: snapshots become layers, a configuration and a manifest are written.

use spec::image::{Descriptor, ImageConfig, Manifest, media_type};
use spec::{Digest, Reference, chain_id};
use store::{Lease, SnapshotId};

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;
use crate::layer;
use crate::registered::UnpackedManifest;
use crate::unpack::Pending;
use crate::write::write_layer;

/// An image to make. The caller fills in `created` and the history; root filesystem and platform of a parent
/// are taken over here.
#[derive(Debug, Clone)]
pub struct CommitLayers {
    pub parent: Option<Image>,
    /// Snapshots on top of the parent, lowest first. Committed ones become the layers themselves; a writable one
    /// (a container's) is copied and stays its owner's.
    pub layers: Vec<SnapshotId>,
    pub config: ImageConfig,
    pub reference: Option<Reference>,
}

impl Images {
    /// Writes the layers, the configuration and the manifest, and registers the image. Blocks.
    pub fn commit_layers(&self, commit: CommitLayers) -> Result<Image, ImageError> {
        self.commit(commit, None)
    }

    /// The same, and the image is known as a child of its parent from then on, as those are that were made by committing a
    /// container. Blocks.
    pub fn commit_child(&self, commit: CommitLayers) -> Result<Image, ImageError> {
        let parent = commit.parent.as_ref().map(|parent| parent.id.clone());
        self.commit(commit, parent.as_ref())
    }

    fn commit(&self, commit: CommitLayers, known_parent: Option<&Digest>) -> Result<Image, ImageError> {
        let lease = self.inner.store.lease();
        let mut config = commit.config;
        let (mut layers, mut top) = match &commit.parent {
            Some(parent) => {
                config.rootfs = parent.config.rootfs.clone();
                for part in &parent.manifest.layers {
                    lease.hold_blob(&part.digest);
                }
                let top = self.snapshot(parent)?;
                lease.hold_snapshot(top);
                (parent.manifest.layers.clone(), Some(top))
            }
            None => {
                config.rootfs = Default::default();
                (Vec::new(), None)
            }
        };
        let mut chain = commit.parent.as_ref().and_then(Image::chain);
        for snapshot in commit.layers {
            let made = self.commit_layer(snapshot, top, chain.as_ref(), &lease)?;
            config.rootfs.diff_ids.push(made.diff);
            layers.push(made.blob);
            chain = Some(made.chain);
            top = Some(made.snapshot);
        }
        let top = match top {
            Some(top) => top,
            None => self.empty_snapshot(&lease)?,
        };
        let reference = commit.reference.as_ref();
        self.write_image(layers, &config, top, reference, known_parent, &lease)
    }

    /// Writes configuration and manifest of layers that are here, and registers the image.
    pub(crate) fn write_image(
        &self,
        layers: Vec<Descriptor>,
        config: &ImageConfig,
        top: SnapshotId,
        reference: Option<&Reference>,
        parent: Option<&Digest>,
        lease: &Lease,
    ) -> Result<Image, ImageError> {
        let raw = serde_json::to_vec(config)?;
        let config_descriptor = self.put_document(&raw, media_type::OCI_CONFIG, lease)?;
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: config_descriptor,
            layers: layers
                .into_iter()
                .map(|layer| Descriptor::new(oci_layer_type(&layer.media_type), layer.digest, layer.size))
                .collect(),
            subject: None,
            annotations: Default::default(),
            extra: Default::default(),
        };
        let target = self.put_document(&serde_json::to_vec(&manifest)?, media_type::OCI_MANIFEST, lease)?;
        let unpacked = UnpackedManifest {
            manifest: target.digest.clone(),
            top,
        };
        let names: Vec<Reference> = reference.map(Reference::or_latest).into_iter().collect();
        match parent {
            Some(parent) => self.register_child(&target, &names, &[unpacked], parent)?,
            None => self.register(&target, &names, &[unpacked])?,
        }
        self.view(&target, None, target.digest.as_str())
    }

    pub(crate) fn put_document(
        &self,
        bytes: &[u8],
        media_type: &str,
        lease: &Lease,
    ) -> Result<Descriptor, ImageError> {
        let digest = Digest::sha256(bytes);
        lease.hold_blob(&digest);
        self.inner.store.content().put(bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    }

    pub(crate) fn commit_layer(
        &self,
        snapshot: SnapshotId,
        below: Option<SnapshotId>,
        chain_below: Option<&Digest>,
        lease: &Lease,
    ) -> Result<MadeLayer, ImageError> {
        let snapshots = self.inner.store.snapshots();
        lease.hold_snapshot(snapshot);
        let info = snapshots.get(snapshot)?;
        // A layer that was written before, in this image or another, is not compressed again.
        if info.committed
            && let Some(diff) = info.diff
            && let Some(blob) = self.layer_blob(&diff)?
        {
            lease.hold_blob(&blob.digest);
            if self.inner.store.content().has(&blob.digest) {
                let chain = chain_id(chain_below, &diff);
                let id = match info.chain.as_ref() == Some(&chain) {
                    true => snapshot,
                    false => snapshots.label_chain(snapshot, &chain, &diff)?,
                };
                lease.hold_snapshot(id);
                return Ok(MadeLayer {
                    diff,
                    blob,
                    chain,
                    snapshot: id,
                });
            }
        }
        let part = snapshots.part(snapshot)?;
        let produce = |out: &mut dyn std::io::Write| {
            layer::diff_part(&part, out, layer::DiffOptions::default()).map_err(ImageError::Layer)
        };
        let content = self.inner.store.content();
        let (written, id) = if info.committed {
            let written = write_layer(content, None, produce)?;
            let chain = chain_id(chain_below, &written.diff);
            let id = snapshots.label_chain(snapshot, &chain, &written.diff)?;
            (written, id)
        } else {
            let pending = Pending::create(snapshots, below, lease)?;
            let written = write_layer(content, Some(&pending.part()?), produce)?;
            let chain = chain_id(chain_below, &written.diff);
            let id = pending.commit(&chain, &written.diff)?;
            (written, id)
        };
        lease.hold_blob(&written.blob.digest);
        lease.hold_snapshot(id);
        self.record_layer(&written.diff, &written.blob)?;
        let chain = chain_id(chain_below, &written.diff);
        Ok(MadeLayer {
            diff: written.diff,
            blob: written.blob,
            chain,
            snapshot: id,
        })
    }
}

pub(crate) struct MadeLayer {
    pub diff: Digest,
    pub blob: Descriptor,
    pub chain: Digest,
    pub snapshot: SnapshotId,
}

/// An OCI manifest names layers by OCI types, whatever the parent called the same bytes.
fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP | media_type::DOCKER_LAYER_FOREIGN => media_type::OCI_LAYER_GZIP,
        other => other,
    }
}
