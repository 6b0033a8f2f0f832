//! Layers and documents on their way that belong to no image: what build caches are made of.
//!
//! Whoever asks holds a lease; nothing of it outlives the lease but layers that something else keeps.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use registry::{Access, Auth, Repository};
use spec::image::Descriptor;
use spec::{Digest, Hasher, Reference, chain_id};
use store::{Lease, SnapshotId};

use crate::error::ImageError;
use crate::images::Images;
use crate::progress::{Progress, Reporter};
use crate::push::{Plan, PushOptions};
use crate::stack::unpack_stack;
use crate::unpack::LayerJob;

/// A layer as it travels.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPart {
    pub blob: Descriptor,
    /// Of its archive, not compressed.
    pub diff: Digest,
}

impl Images {
    /// Brings a blob here unless it is.
    async fn fetch_part(
        &self,
        repository: &Arc<Repository>,
        blob: &Descriptor,
        lease: &Lease,
    ) -> Result<(), ImageError> {
        let store = &self.inner.store;
        lease.hold_blob(&blob.digest);
        // One that was let go would be fetched from where it came, by whoever opens it; here is somebody who has it.
        if store.content().is_at_hand(&blob.digest) {
            return Ok(());
        }
        store.room().check()?;
        let download = self.inner.downloads.join(store, repository, blob);
        download.finished().await
    }

    /// Keeps a document. Blocks.
    pub fn put_part(&self, bytes: &[u8], media_type: &str, lease: &Lease) -> Result<Descriptor, ImageError> {
        self.put_document(bytes, media_type, lease)
    }

    /// How many of `layers`, counted from the lowest, are unpacked here, and held by the lease. Blocks.
    pub fn unpacked_parts(&self, layers: &[LayerPart], lease: &Lease) -> usize {
        let snapshots = self.inner.store.snapshots();
        let mut chain = None;
        let unpacked = |layer: &&LayerPart| {
            let own = chain_id(chain.as_ref(), &layer.diff);
            let held = snapshots.by_chain_kept(&own, lease).is_some();
            chain = Some(own);
            held
        };
        layers.iter().take_while(unpacked).count()
    }

    /// Unpacks layers whose blobs are here, lowest first, and gives back the top one. Blocks.
    pub fn unpack_parts(&self, layers: &[LayerPart], lease: &Lease) -> Result<SnapshotId, ImageError> {
        let mut chain = None;
        let jobs: Vec<LayerJob> = layers
            .iter()
            .map(|layer| {
                let own = chain_id(chain.as_ref(), &layer.diff);
                chain = Some(own.clone());
                LayerJob {
                    blob: layer.blob.clone(),
                    diff: layer.diff.clone(),
                    chain: own,
                }
            })
            .collect();
        let top = unpack_stack(jobs.len(), &AtomicBool::new(false), &|index, below| {
            let job = jobs.get(index).ok_or(ImageError::Worker)?;
            let open = || Ok(self.inner.store.content().open(&job.blob.digest)?);
            self.layer(job, below, lease, open, |_| (), || Ok(()))
        })?;
        match top {
            Some(top) => Ok(top),
            None => self.empty_snapshot(lease),
        }
    }

    /// The layers of a tree as blobs, lowest first; those that never were get written. Blocks.
    pub fn layer_parts(&self, top: SnapshotId, lease: &Lease) -> Result<Vec<LayerPart>, ImageError> {
        let snapshots = self.inner.store.snapshots();
        let mut stack = vec![top];
        let mut next = snapshots.get(top)?.parent;
        while let Some(layer) = next {
            stack.push(layer);
            next = snapshots.get(layer)?.parent;
        }
        stack.reverse();
        let made = self.commit_stack(&stack, lease)?.into_iter();
        let parts = made.map(|made| LayerPart {
            blob: made.blob,
            diff: made.diff,
        });
        Ok(parts.collect())
    }

    /// Pushes a document and the blobs that it names, all of which are here.
    pub async fn push_parts(
        &self,
        name: &Reference,
        document: Descriptor,
        blobs: Vec<Descriptor>,
        options: PushOptions,
        progress: Progress,
    ) -> Result<(), ImageError> {
        let plan = Plan {
            target: document.clone(),
            documents: vec![document],
            layers: blobs.iter().map(|blob| blob.digest.clone()).collect(),
            blobs,
            instead_of: None,
        };
        self.push_plan_to(&name.or_latest(), &plan, &options, &Reporter(progress))
            .await
    }
}

/// Where parts are fetched from: one name in a registry.
#[derive(Clone)]
pub struct RemoteParts {
    images: Images,
    repository: Arc<Repository>,
    name: Reference,
}

impl RemoteParts {
    /// The parts below `name`. Nothing is asked yet.
    pub fn new(images: &Images, name: &Reference, auth: Option<&Auth>) -> Result<RemoteParts, ImageError> {
        let name = name.or_latest();
        let auth = auth.cloned().unwrap_or_default();
        let repository = images.inner.registry.repository(&name, &auth, Access::Pull)?;
        Ok(RemoteParts {
            images: images.clone(),
            repository: Arc::new(repository),
            name,
        })
    }

    /// The document that the name points to.
    pub async fn top(&self) -> Result<Vec<u8>, ImageError> {
        let wanted = match (self.name.digest(), self.name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        Ok(self.repository.manifest(&wanted).await?.bytes.to_vec())
    }

    /// A manifest or an index.
    pub async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        Ok(self.repository.manifest(digest.as_str()).await?.bytes.to_vec())
    }

    /// A small blob, verified, which is kept nowhere.
    pub async fn document(&self, of: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let mut reader = self.repository.blob(&of.digest, of.size, 0).await?;
        let mut hasher = Hasher::like(&of.digest);
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.chunk().await? {
            hasher.update(&chunk);
            bytes.extend_from_slice(&chunk);
        }
        let found = hasher.finish();
        match found == of.digest {
            true => Ok(bytes),
            false => Err(ImageError::Invalid {
                digest: of.digest.clone(),
                detail: format!("what the registry sent has the digest {found}"),
            }),
        }
    }

    /// Brings a blob here unless it is.
    pub async fn fetch(&self, blob: &Descriptor, lease: &Lease) -> Result<(), ImageError> {
        self.images.fetch_part(&self.repository, blob, lease).await
    }
}
