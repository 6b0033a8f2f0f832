//! The layers of a pull: downloads side by side, unpacking from the bottom up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use spec::image::Descriptor;
use store::SnapshotId;

use super::{Pull, Resolved};
use crate::download::{Download, State, Tail, blocking};
use crate::error::ImageError;
use crate::progress::short;
use crate::unpack::{LayerJob, jobs};

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
        let layers = self.plan(resolved).await?;
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
        let store = &self.images.inner.store;
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
            let here = store.content().has(&blob.digest);
            let ready = here && unpacked.is_some();
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

    async fn unpack(&self, layers: &[Layer], stop: &StopOnDrop) -> Result<SnapshotId, ImageError> {
        let mut parent = None;
        for layer in layers {
            let id = short(&layer.job.blob.digest);
            let job = LayerJob {
                blob: layer.job.blob.clone(),
                diff: layer.job.diff.clone(),
                chain: layer.job.chain.clone(),
                parent,
            };
            let work = Work {
                images: self.images.clone(),
                lease: self.lease.clone(),
                source: layer.source.clone(),
                sampler: self.report.sampler(&id, "Extracting", job.blob.size),
                stop: stop.0.clone(),
                job,
            };
            let snapshot = match blocking(move || work.run()).await? {
                Ok(snapshot) => snapshot,
                // The download's own failure says more than that its bytes ended.
                Err(ImageError::Cancelled(digest)) => match &layer.source {
                    Source::Download(download) => {
                        download.finished().await?;
                        return Err(ImageError::Cancelled(digest));
                    }
                    Source::Stored => return Err(ImageError::Cancelled(digest)),
                },
                Err(error) => return Err(error),
            };
            parent = Some(snapshot);
            if !layer.ready {
                self.report.say_of(&id, "Pull complete").await;
            }
        }
        match parent {
            Some(top) => Ok(top),
            None => {
                let (images, lease) = (self.images.clone(), self.lease.clone());
                blocking(move || images.empty_snapshot(&lease)).await?
            }
        }
    }
}

/// The unpacking of one layer on a blocking thread.
struct Work {
    images: crate::images::Images,
    lease: Arc<store::Lease>,
    source: Source,
    sampler: crate::progress::Sampler,
    stop: Arc<AtomicBool>,
    job: LayerJob,
}

impl Work {
    fn run(self) -> Result<SnapshotId, ImageError> {
        let Work {
            images,
            lease,
            source,
            mut sampler,
            stop,
            job,
        } = self;
        let stopped = stop.clone();
        let mut told = move |read: u64| sampler.at(read);
        let cancelled = || ImageError::Cancelled(job.blob.digest.clone());
        match &source {
            Source::Stored => {
                let open = || {
                    Ok(Stoppable {
                        inner: images.inner.store.content().open(&job.blob.digest)?,
                        stop,
                    })
                };
                images.layer(&job, &lease, open, &mut told, || {
                    match stopped.load(Ordering::Relaxed) {
                        true => Err(cancelled()),
                        false => Ok(()),
                    }
                })
            }
            Source::Download(download) => {
                let written = download.written.clone();
                let open = || Ok(Tail::new(&written, job.blob.size, stop));
                let outcome = images.layer(&job, &lease, open, &mut told, || {
                    // Nothing counts before the digest does.
                    match written.verified(&stopped) {
                        true => Ok(()),
                        false => Err(cancelled()),
                    }
                });
                match outcome {
                    // The download began anew under the reader: now the verified blob is here.
                    Err(ImageError::Unpack { .. }) if written.verified(&stopped) => images.layer(
                        &job,
                        &lease,
                        || Ok(images.inner.store.content().open(&job.blob.digest)?),
                        told,
                        || Ok(()),
                    ),
                    other => other,
                }
            }
        }
    }
}

/// Ends reading when the pull was dropped.
struct Stoppable<R> {
    inner: R,
    stop: Arc<AtomicBool>,
}

impl<R: std::io::Read> std::io::Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the pull was cancelled"));
        }
        self.inner.read(buffer)
    }
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
