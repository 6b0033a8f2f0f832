//! Images made here: snapshots become layers, a configuration and a manifest are written.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use spec::image::{Descriptor, ImageConfig, Manifest, media_type};
use spec::{Digest, Reference, chain_id};
use store::{Label, Lease, Sealed, SnapshotId, SnapshotInfo};

use crate::error::ImageError;
use crate::image::Image;
use crate::images::Images;
use crate::layer;
use crate::registered::UnpackedManifest;
use crate::unpack::Pending;
use crate::write::{SealedLayer, seal_layer, write_layer};

/// An image to make. The caller fills in `created` and the history; root filesystem and platform of a parent
/// are taken over here.
#[derive(Debug, Clone)]
pub struct CommitLayers {
    pub parent: Option<Image>,
    /// Snapshots on top of the parent, lowest first. Committed ones become the layers themselves; a writable one
    /// (a container's) is copied and stays its owner's.
    pub layers: Vec<SnapshotId>,
    pub config: ImageConfig,
    /// What the image is called from the moment it is there.
    pub names: Vec<Reference>,
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
        let (mut layers, below) = match &commit.parent {
            Some(parent) => {
                config.rootfs = parent.config.rootfs.clone();
                for part in &parent.manifest.layers {
                    lease.hold_blob(&part.digest);
                }
                let top = self.snapshot_for(parent, &lease)?;
                (parent.manifest.layers.clone(), Some(top))
            }
            None => {
                config.rootfs = Default::default();
                (Vec::new(), None)
            }
        };
        let below = Below {
            snapshot: below,
            chain: commit.parent.as_ref().and_then(Image::chain),
        };
        let mut waiting = Vec::new();
        let stack = self.seal_stack(&commit.layers, &below, &lease, &mut waiting)?;
        for layer in &stack {
            config.rootfs.diff_ids.push(layer.diff.clone());
            layers.push(layer.blob.clone());
        }
        let target = self.seal_image(layers, &config, &lease, &mut waiting)?;
        self.inner.store.content().publish(waiting)?;
        let top = match self.note_stack(&stack, below.chain, &lease)?.or(below.snapshot) {
            Some(top) => top,
            None => self.empty_snapshot(&lease)?,
        };
        self.register_made(&target, top, &commit.names, known_parent)
    }

    /// Writes configuration and manifest of layers that are here, and registers the image.
    pub(crate) fn write_image(
        &self,
        layers: Vec<Descriptor>,
        config: &ImageConfig,
        top: SnapshotId,
        names: &[Reference],
        lease: &Lease,
    ) -> Result<Image, ImageError> {
        let mut waiting = Vec::new();
        let target = self.seal_image(layers, config, lease, &mut waiting)?;
        self.inner.store.content().publish(waiting)?;
        self.register_made(&target, top, names, None)
    }

    /// Configuration and manifest of an image; those that are not here come to what is waiting to be made visible.
    fn seal_image(
        &self,
        layers: Vec<Descriptor>,
        config: &ImageConfig,
        lease: &Lease,
        waiting: &mut Vec<Sealed>,
    ) -> Result<Descriptor, ImageError> {
        let content = self.inner.store.content();
        let mut seal = |bytes: &[u8], media_type: &str| -> Result<Descriptor, ImageError> {
            let digest = Digest::sha256(bytes);
            lease.hold_blob(&digest);
            waiting.extend(content.seal(bytes, &digest)?);
            Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
        };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config: seal(&serde_json::to_vec(config)?, media_type::OCI_CONFIG)?,
            layers: layers
                .into_iter()
                .map(|layer| Descriptor::new(oci_layer_type(&layer.media_type), layer.digest, layer.size))
                .collect(),
            subject: None,
            annotations: Default::default(),
            extra: Default::default(),
        };
        seal(&serde_json::to_vec(&manifest)?, media_type::OCI_MANIFEST)
    }

    fn register_made(
        &self,
        target: &Descriptor,
        top: SnapshotId,
        names: &[Reference],
        parent: Option<&Digest>,
    ) -> Result<Image, ImageError> {
        let unpacked = UnpackedManifest {
            manifest: target.digest.clone(),
            top,
        };
        let names: Vec<Reference> = names.iter().map(Reference::or_latest).collect();
        let blobs = match parent {
            Some(parent) => self.register_child(target, &names, &[unpacked], parent)?,
            None => self.register(target, &names, &[unpacked])?,
        };
        self.view_of(target, None, target.digest.as_str(), Some(blobs))
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

    /// Layers, lowest first, as blobs. Those that never were get written, and come to what is waiting to be made visible.
    fn seal_stack(
        &self,
        stack: &[SnapshotId],
        below: &Below,
        lease: &Lease,
        waiting: &mut Vec<Sealed>,
    ) -> Result<Vec<MadeLayer>, ImageError> {
        let snapshots = self.inner.store.snapshots();
        lease.hold_snapshots(stack);
        let infos = snapshots.get_all(stack)?;
        // A layer that was written before, in this image or another, is not compressed again.
        let written = infos
            .iter()
            .map(|info| info.diff.as_ref().filter(|_| info.committed));
        let blobs = self.layer_blobs(&written.collect::<Vec<_>>(), lease)?;
        let known: Vec<(SnapshotInfo, Option<Descriptor>)> = infos.into_iter().zip(blobs).collect();
        let is_new = |(info, blob): &(SnapshotInfo, Option<Descriptor>)| info.committed && blob.is_none();
        let new: Vec<SnapshotId> = stack
            .iter()
            .zip(&known)
            .filter_map(|(id, known)| is_new(known).then_some(*id))
            .collect();
        let mut written = each(&new, |id| {
            let part = snapshots.part(*id)?;
            seal_layer(self.inner.store.content(), |out| {
                layer::diff_part(&part, out, layer::DiffOptions::default()).map_err(ImageError::Layer)
            })
        })?
        .into_iter();
        let mut chain = below.chain.clone();
        let mut top = below.snapshot;
        let mut made: Vec<MadeLayer> = Vec::new();
        for (id, (info, blob)) in stack.iter().zip(known) {
            let layer = match (info.committed, info.diff, blob) {
                (true, Some(diff), Some(blob)) => MadeLayer {
                    diff,
                    blob,
                    snapshot: *id,
                    chain: info.chain,
                    new: false,
                },
                (true, ..) => {
                    let SealedLayer { layer, sealed } = written.next().ok_or(ImageError::Worker)?;
                    lease.hold_blob(&layer.blob.digest);
                    waiting.push(sealed);
                    MadeLayer {
                        diff: layer.diff,
                        blob: layer.blob,
                        snapshot: *id,
                        chain: None,
                        new: true,
                    }
                }
                // Its owner goes on writing to it.
                (false, ..) => self.copy_writable(*id, top, chain.as_ref(), lease)?,
            };
            chain = Some(chain_id(chain.as_ref(), &layer.diff));
            top = Some(layer.snapshot);
            made.push(layer);
        }
        Ok(made)
    }

    /// A writable layer, copied.
    fn copy_writable(
        &self,
        snapshot: SnapshotId,
        below: Option<SnapshotId>,
        chain_below: Option<&Digest>,
        lease: &Lease,
    ) -> Result<MadeLayer, ImageError> {
        let snapshots = self.inner.store.snapshots();
        let part = snapshots.part(snapshot)?;
        let pending = Pending::create(snapshots, below, lease)?;
        let written = write_layer(self.inner.store.content(), &pending.part()?, |out| {
            layer::diff_part(&part, out, layer::DiffOptions::default()).map_err(ImageError::Layer)
        })?;
        lease.hold_blob(&written.blob.digest);
        let chain = chain_id(chain_below, &written.diff);
        let id = pending.commit(&chain, &written.diff)?;
        lease.hold_snapshot(id);
        Ok(MadeLayer {
            diff: written.diff,
            blob: written.blob,
            snapshot: id,
            chain: Some(chain),
            new: true,
        })
    }

    /// Notes what is known of layers now that their blobs are there; the snapshot of the topmost.
    fn note_stack(
        &self,
        stack: &[MadeLayer],
        mut chain: Option<Digest>,
        lease: &Lease,
    ) -> Result<Option<SnapshotId>, ImageError> {
        let mut labels = Vec::new();
        for layer in stack {
            let own = chain_id(chain.as_ref(), &layer.diff);
            if layer.chain.as_ref() != Some(&own) {
                labels.push(Label {
                    id: layer.snapshot,
                    chain: own.clone(),
                    diff: layer.diff.clone(),
                });
            }
            chain = Some(own);
        }
        let ids = self.inner.store.snapshots().label_chains(&labels)?;
        lease.hold_snapshots(&ids);
        let new = stack.iter().filter(|layer| layer.new);
        self.record_layers(new.map(|layer| (&layer.diff, &layer.blob)))?;
        let last = stack.last().map(|layer| layer.snapshot);
        // Another layer may have been known by what one of these is.
        let instead = labels.iter().zip(&ids).find(|(label, _)| Some(label.id) == last);
        Ok(instead.map(|(_, id)| *id).or(last))
    }

    /// Layers, lowest first and with nothing below, as blobs; those that never were get written.
    pub(crate) fn commit_stack(
        &self,
        stack: &[SnapshotId],
        lease: &Lease,
    ) -> Result<Vec<MadeLayer>, ImageError> {
        let mut waiting = Vec::new();
        let made = self.seal_stack(stack, &Below::default(), lease, &mut waiting)?;
        self.inner.store.content().publish(waiting)?;
        self.note_stack(&made, None, lease)?;
        Ok(made)
    }
}

/// What layers lie on.
#[derive(Default)]
struct Below {
    snapshot: Option<SnapshotId>,
    chain: Option<Digest>,
}

/// A layer as a blob.
pub(crate) struct MadeLayer {
    pub diff: Digest,
    pub blob: Descriptor,
    snapshot: SnapshotId,
    /// By what the snapshot is known already.
    chain: Option<Digest>,
    /// Nobody knows yet that the blob is this layer.
    new: bool,
}

/// Does the work for all of them, on as many threads as there are processors, and gives what came of each in their order.
fn each<T: Sync, R: Send>(
    all: &[T],
    work: impl Fn(&T) -> Result<R, ImageError> + Sync,
) -> Result<Vec<R>, ImageError> {
    let helpers = match all.len() {
        0 | 1 => 0,
        several => several.min(thread::available_parallelism().map_or(1, NonZero::get)) - 1,
    };
    let next = AtomicUsize::new(0);
    let take = || -> Result<Vec<(usize, R)>, ImageError> {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = all.get(index) else {
                return Ok(done);
            };
            let made = work(one);
            if made.is_err() {
                // The others need not go on.
                next.store(all.len(), Ordering::Relaxed);
            }
            done.push((index, made?));
        }
    };
    let mut done = thread::scope(|scope| {
        // A thread that cannot be had leaves its work to the others.
        let helpers = (0..helpers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, take).ok());
        let helpers: Vec<_> = helpers.collect();
        let mut done = take();
        for helper in helpers {
            let other = helper.join().map_err(|_| ImageError::Worker)?;
            done = done.and_then(|mut done| {
                done.extend(other?);
                Ok(done)
            });
        }
        done
    })?;
    done.sort_unstable_by_key(|(index, _)| *index);
    Ok(done.into_iter().map(|(_, made)| made).collect())
}

/// An OCI manifest names layers by OCI types, whatever the parent called the same bytes.
fn oci_layer_type(media_type: &str) -> &str {
    match media_type {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP | media_type::DOCKER_LAYER_FOREIGN => media_type::OCI_LAYER_GZIP,
        other => other,
    }
}
