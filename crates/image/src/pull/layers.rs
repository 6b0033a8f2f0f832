//! The layers of a pull: downloaded and unpacked side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use spec::image::Descriptor;
use store::SnapshotId;

use super::{Pull, Resolved};
use crate::download::{Download, State, Tail, blocking};
use crate::error::ImageError;
use crate::progress::{ProgressEvent, Reporter, short};
use crate::stack::{Below, unpack_stack};
use crate::unpack::{LayerJob, Stoppable, jobs};

/// Where a layer's compressed bytes come from.
#[derive(Clone)]
enum Source {
    /// They are here.
    Stored,
    Download(Arc<Download>),
}

struct Layer {
    job: LayerJob,
    source: Source,
    /// Nothing has to be done for it.
    ready: bool,
}

impl Pull<'_> {
    /// Brings all layers here and unpacks them; gives back the top one.
    pub async fn layers(&self, resolved: &Resolved) -> Result<SnapshotId, ImageError> {
        let layers = Arc::new(self.plan(resolved).await?);
        let downloads: Vec<_> = layers
            .iter()
            .filter_map(|layer| match &layer.source {
                Source::Download(download) => Some(self.watch(&layer.job.blob, download)),
                Source::Stored => None,
            })
            .collect();
        let stop = StopOnDrop(Arc::new(AtomicBool::new(false)));
        let unpacking = self.unpack(&layers, &stop);
        let watching = try_join_all(downloads);
        tokio::pin!(unpacking, watching);
        tokio::select! {
            unpacked = &mut unpacking => {
                let top = unpacked?;
                watching.await?;
                Ok(top)
            }
            watched = &mut watching => match watched {
                Ok(_) => unpacking.await,
                Err(error) => {
                    // When the failure is told, what was being unpacked is gone already.
                    stop.0.store(true, Ordering::Relaxed);
                    let _ = unpacking.await;
                    Err(error)
                }
            },
        }
    }

    /// Finds out what is here and starts what is not.
    async fn plan(&self, resolved: &Resolved) -> Result<Vec<Layer>, ImageError> {
        let (store, most) = (&self.images.inner.store, self.images.max_layer());
        // What is larger compressed than it may be unpacked is refused before the disk is full of it.
        if let Some(layer) = resolved.manifest.layers.iter().find(|layer| layer.size > most) {
            return Err(ImageError::Invalid {
                digest: resolved.descriptor.digest.clone(),
                detail: format!(
                    "its layer {} has {} bytes, more than the {most} that max-layer-size allows",
                    layer.digest, layer.size
                ),
            });
        }
        for layer in &resolved.manifest.layers {
            self.lease.hold_blob(&layer.digest);
        }
        let mut layers = Vec::new();
        for (job, blob) in jobs(&resolved.manifest, &resolved.config) {
            let id = short(&blob.digest);
            let unpacked = store.snapshots().by_chain(&job.chain);
            if let Some(snapshot) = unpacked {
                self.lease.hold_snapshot(snapshot);
            }
            let ready = unpacked.is_some() && store.content().has(&blob.digest);
            // One that was let go and has to be fetched again comes from here, with the login of this pull.
            let here = ready || store.content().is_at_hand(&blob.digest);
            self.report
                .say_of(
                    &id,
                    if ready {
                        "Already exists"
                    } else {
                        "Pulling fs layer"
                    },
                )
                .await;
            let source = match here {
                true => Source::Stored,
                false => Source::Download(self.images.inner.downloads.join(store, &self.repository, blob)),
            };
            layers.push(Layer { job, source, ready });
        }
        Ok(layers)
    }

    /// Reports a download until its end.
    async fn watch(&self, blob: &Descriptor, download: &Arc<Download>) -> Result<(), ImageError> {
        let id = short(&blob.digest);
        let mut state = download.state.clone();
        let mut sampler = self.report.sampler(&id, "Downloading", blob.size);
        let (mut waited, mut verifying) = (false, false);
        loop {
            let now = state.borrow_and_update().clone();
            match now {
                State::Waiting if !waited => {
                    waited = true;
                    self.report.say_of(&id, "Waiting").await;
                }
                State::Waiting => {}
                State::Running(bytes) => sampler.at(bytes),
                State::Verifying if !verifying => {
                    verifying = true;
                    self.report.say_of(&id, "Verifying Checksum").await;
                }
                State::Verifying => {}
                State::Done => {
                    // A short check may be over before anybody looked.
                    if !verifying {
                        self.report.say_of(&id, "Verifying Checksum").await;
                    }
                    self.report.say_of(&id, "Download complete").await;
                    return Ok(());
                }
                State::Failed(error) => return Err(ImageError::Shared(error)),
            }
            if state.changed().await.is_err() {
                return download.finished().await;
            }
        }
    }

    async fn unpack(&self, layers: &Arc<Vec<Layer>>, stop: &StopOnDrop) -> Result<SnapshotId, ImageError> {
        let work = Work {
            images: self.images.clone(),
            lease: self.lease.clone(),
            report: self.report.clone(),
            stop: stop.0.clone(),
            layers: Arc::clone(layers),
        };
        match blocking(move || work.run()).await? {
            Ok(Some(top)) => Ok(top),
            Ok(None) => {
                let (images, lease) = (self.images.clone(), self.lease.clone());
                blocking(move || images.empty_snapshot(&lease)).await?
            }
            // The download's own failure says more than that its bytes ended.
            Err(ImageError::Cancelled(digest)) => {
                let of_it = |layer: &&Layer| layer.job.blob.digest == digest;
                if let Some(Source::Download(download)) = layers.iter().find(of_it).map(|layer| &layer.source)
                {
                    download.finished().await?;
                }
                Err(ImageError::Cancelled(digest))
            }
            Err(error) => Err(error),
        }
    }
}

/// The unpacking of the layers on blocking threads.
struct Work {
    images: crate::images::Images,
    lease: Arc<store::Lease>,
    report: Reporter,
    stop: Arc<AtomicBool>,
    layers: Arc<Vec<Layer>>,
}

impl Work {
    fn run(&self) -> Result<Option<SnapshotId>, ImageError> {
        unpack_stack(self.layers.len(), &self.stop, &|index, below| {
            let layer = self.layers.get(index).ok_or(ImageError::Worker)?;
            let unpacked = self.layer(layer, below)?;
            if !layer.ready {
                self.report.say_blocking(ProgressEvent {
                    id: Some(short(&layer.job.blob.digest)),
                    status: "Pull complete".to_owned(),
                    transfer: true,
                    ..ProgressEvent::default()
                });
            }
            Ok(unpacked)
        })
    }

    fn layer(&self, layer: &Layer, below: &Below<'_>) -> Result<SnapshotId, ImageError> {
        let (images, job) = (&self.images, &layer.job);
        let mut sampler = self
            .report
            .sampler(&short(&job.blob.digest), "Extracting", job.blob.size);
        let mut told = move |read: u64| sampler.at(read);
        let stored = || {
            Ok(Stoppable {
                inner: images.inner.store.content().open(&job.blob.digest)?,
                stop: self.stop.clone(),
            })
        };
        let cancelled = || ImageError::Cancelled(job.blob.digest.clone());
        let wanted = || match self.stop.load(Ordering::Relaxed) {
            true => Err(cancelled()),
            false => Ok(()),
        };
        let Source::Download(download) = &layer.source else {
            return images.layer(job, below, &self.lease, stored, told, wanted);
        };
        let written = download.written.clone();
        let tail = || Ok(Tail::new(&written, job.blob.size, self.stop.clone()));
        // Nothing counts before the digest does.
        let verified = || match written.verified(&self.stop) {
            true => Ok(()),
            false => Err(cancelled()),
        };
        match images.layer(job, below, &self.lease, tail, &mut told, verified) {
            // The download began anew under the reader: now the verified blob is here.
            Err(ImageError::Unpack { .. }) if written.verified(&self.stop) => {
                images.layer(job, below, &self.lease, stored, told, wanted)
            }
            other => other,
        }
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
