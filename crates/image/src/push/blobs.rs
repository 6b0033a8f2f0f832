//! The blobs of a push: asked for, mounted, or uploaded, a few at a time.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{StreamExt, TryStreamExt, iter};
use registry::{BlobSource, Repository};
use spec::image::Descriptor;
use spec::{Digest, Reference};

use super::Plan;
use crate::download::blocking;
use crate::error::ImageError;
use crate::images::Images;
use crate::progress::{Reporter, Sampler, short};

/// Blobs uploaded at once unless changed, as Docker's default.
pub const MAX_UPLOADS: usize = 5;

impl Images {
    pub(super) async fn push_blobs(
        &self,
        repository: &Arc<Repository>,
        name: &Reference,
        plan: &Plan,
        report: &Reporter,
    ) -> Result<(), ImageError> {
        let is_layer = |blob: &Descriptor| plan.layers.contains(&blob.digest);
        for blob in plan.blobs.iter().filter(|b| is_layer(b)) {
            report.say_of(&short(&blob.digest), "Preparing").await;
        }
        // Boxed one by one: through a closure over references the compiler cannot see that the whole may change threads.
        let mut uploads: Vec<BoxFuture<'_, Result<(), ImageError>>> = Vec::with_capacity(plan.blobs.len());
        for blob in &plan.blobs {
            let report = is_layer(blob).then_some(report);
            uploads.push(self.push_blob(repository, name, blob, report).boxed());
        }
        let most = self.inner.max_uploads.load(Ordering::Relaxed);
        iter(uploads).buffer_unordered(most).try_collect::<()>().await
    }

    /// Configurations go without a word, as Docker's do.
    async fn push_blob(
        &self,
        repository: &Repository,
        name: &Reference,
        blob: &Descriptor,
        report: Option<&Reporter>,
    ) -> Result<(), ImageError> {
        let id = short(&blob.digest);
        let say = async |status: String| {
            if let Some(report) = report {
                report.say_of(&id, status).await;
            }
        };
        if repository.blob_size(&blob.digest).await?.is_some() {
            say("Layer already exists".to_owned()).await;
            return Ok(());
        }
        if report.is_some()
            && let Some(from) = self.origin_of(&blob.digest, name)?
            && repository.mount(&blob.digest, &from).await?
        {
            say(format!("Mounted from {from}")).await;
            return Ok(());
        }
        let (images, digest) = (self.clone(), blob.digest.clone());
        blocking(move || images.inner.store.content().bring(&digest)).await??;
        let content = self.inner.store.content();
        let size = content
            .size(&blob.digest)
            .ok_or_else(|| store::ContentError::NotFound(blob.digest.clone()))?;
        let source = Source {
            images: self.clone(),
            blob: blob.digest.clone(),
            to: name.clone(),
            path: content.path(&blob.digest),
            sampler: report.map(|r| Mutex::new(r.sampler(&id, "Pushing", size))),
        };
        repository.upload(&blob.digest, size, Arc::new(source)).await?;
        self.record_upload(&blob.digest, name, None)?;
        say("Pushed".to_owned()).await;
        Ok(())
    }
}

struct Source {
    images: Images,
    blob: Digest,
    to: Reference,
    path: PathBuf,
    sampler: Option<Mutex<Sampler>>,
}

impl BlobSource for Source {
    fn open(&self) -> io::Result<File> {
        File::open(&self.path)
    }

    fn began(&self, location: &str) {
        if let Err(error) = self.images.record_upload(&self.blob, &self.to, Some(location)) {
            tracing::warn!(blob = %self.blob, %error, "the upload could not be resumed by another daemon");
        }
    }

    fn earlier(&self) -> Option<String> {
        self.images
            .upload_of(&self.blob, &self.to)
            .unwrap_or_else(|error| {
                tracing::warn!(blob = %self.blob, %error, "the upload begins anew");
                None
            })
    }

    fn sent(&self, bytes: u64) {
        if let Some(sampler) = &self.sampler {
            sampler.lock().unwrap_or_else(PoisonError::into_inner).at(bytes);
        }
    }
}
