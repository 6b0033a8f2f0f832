//! Caches in registries, and in images that are here.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use image::{Auth, Image, Images, Progress, PushOptions, RemoteParts};
use spec::Reference;
use spec::image::{Descriptor, media_type};
use store::Lease;
use tokio::sync::mpsc;

use super::{
    CacheGoal, CacheSource, CacheTarget, Draft, Form, Imported, MAX_DOCUMENT, Origin, Written, import,
};
use crate::builder::Builder;
use crate::error::BuildError;
use crate::request::{BuildEvent, BuildRequest};
use crate::solution::Solution;

struct Remote(RemoteParts);

impl Origin for Remote {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        async move { Ok(self.0.top().await?) }.boxed()
    }

    fn document<'a>(
        &'a self,
        of: &'a Descriptor,
        _: &'a Lease,
    ) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        async move {
            if media_type::is_manifest(&of.media_type) || media_type::is_index(&of.media_type) {
                return Ok(self.0.manifest(&of.digest).await?);
            }
            if of.size > MAX_DOCUMENT {
                return Err(too_large(of));
            }
            Ok(self.0.document(of).await?)
        }
        .boxed()
    }

    fn layer<'a>(&'a self, of: &'a Descriptor, lease: &'a Lease) -> BoxFuture<'a, Result<(), BuildError>> {
        async move { Ok(self.0.fetch(of, lease).await?) }.boxed()
    }
}

/// An image that is here.
struct Here {
    images: Images,
    image: Image,
}

impl Origin for Here {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        async move {
            let manifest = &self.image.manifest_descriptor;
            let digest = self.image.manifest_digest.clone();
            read(
                &self.images,
                &Descriptor::new(&manifest.media_type, digest, manifest.size),
            )
        }
        .boxed()
    }

    fn document<'a>(
        &'a self,
        of: &'a Descriptor,
        _: &'a Lease,
    ) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        async move { read(&self.images, of) }.boxed()
    }

    fn layer<'a>(&'a self, of: &'a Descriptor, lease: &'a Lease) -> BoxFuture<'a, Result<(), BuildError>> {
        async move {
            lease.hold_blob(&of.digest);
            self.images
                .store()
                .content()
                .open(&of.digest)
                .map_err(image::ImageError::from)?;
            Ok(())
        }
        .boxed()
    }
}

fn too_large(of: &Descriptor) -> BuildError {
    BuildError::invalid(format!(
        "the document {} has {} bytes, at most {MAX_DOCUMENT} are read",
        of.digest, of.size
    ))
}

fn read(images: &Images, of: &Descriptor) -> Result<Vec<u8>, BuildError> {
    let content = images.store().content();
    Ok(content
        .read(&of.digest, MAX_DOCUMENT)
        .map_err(image::ImageError::from)?)
}

impl Builder {
    /// Reads the cache that lies in a registry under `name`, by itself or in an image.
    pub async fn import_cache(&self, name: &Reference, auth: Option<&Auth>) -> Result<Imported, BuildError> {
        let origin = Remote(RemoteParts::new(&self.images, name, auth)?);
        let lease = self.images.store().lease();
        import(Arc::new(origin), &name.familiar(), &lease).await
    }

    /// The same of an image that is here; `None` where there is none of this name.
    pub async fn import_cache_here(&self, name: &Reference) -> Result<Option<Imported>, BuildError> {
        let (images, wanted) = (self.images.clone(), name.familiar());
        let found = tokio::task::spawn_blocking(move || images.resolve(&wanted)).await?;
        let Ok(image) = found else {
            return Ok(None);
        };
        let origin = Here {
            images: self.images.clone(),
            image,
        };
        let lease = self.images.store().lease();
        import(Arc::new(origin), &name.familiar(), &lease).await.map(Some)
    }

    /// Reads the caches that a request names. One that cannot be read is told, and done without.
    pub(crate) async fn read_caches(
        &self,
        request: &mut BuildRequest,
        output: &mpsc::Sender<BuildEvent>,
    ) -> Result<(), BuildError> {
        for source in std::mem::take(&mut request.cache_sources) {
            let CacheSource::Registry(name) = &source else {
                return Err(BuildError::invalid(
                    "a cache in a directory needs the client's session",
                ));
            };
            if request.no_cache {
                continue;
            }
            let reading = async {
                // An image that is here is what clients of the classic builder mean.
                match self.import_cache_here(name).await? {
                    Some(imported) if !imported.is_empty() => Ok(imported),
                    _ => self.import_cache(name, request.logins.get(name.domain())).await,
                }
            };
            let read = tokio::select! {
                read = reading => read,
                () = request.stop.cancelled() => return Err(BuildError::Cancelled),
            };
            match read {
                Ok(imported) => request.cache_imports.push(Arc::new(imported)),
                Err(error) => {
                    let text = format!("[Warning] the cache {} cannot be used: {error}\n", source.title());
                    let _ = output.send(BuildEvent::ErrorText(text)).await;
                }
            }
        }
        Ok(())
    }

    /// Makes the image of a solution, and writes the caches that its request names.
    pub(crate) async fn write_caches(
        &self,
        solution: &Arc<Solution>,
        targets: &[CacheTarget],
        output: &mpsc::Sender<BuildEvent>,
    ) -> Result<Image, BuildError> {
        if targets.iter().any(|target| target.goal == CacheGoal::Inline) {
            let carried = solution.clone();
            tokio::task::spawn_blocking(move || carried.carry_cache()).await??;
        }
        let image = solution.tagged_image().await?;
        for target in targets {
            let CacheGoal::Registry(name) = &target.goal else {
                continue;
            };
            let text = format!("Exporting cache to {}\n", name.familiar());
            let _ = output.send(BuildEvent::Text(text)).await;
            let (draft, mode) = (solution.clone(), target.mode);
            let collect = move || {
                let mut collected = Draft::default();
                draft.draft_cache(&mut collected, mode)?;
                Ok::<_, BuildError>(collected)
            };
            let draft = tokio::task::spawn_blocking(collect).await??;
            if draft.is_empty() {
                continue;
            }
            let (progress, mut events) = mpsc::channel(1);
            let auth = solution.build().request.logins.get(name.domain()).cloned();
            let pushing = self.export_cache(draft, target.form, name, auth, progress);
            let drain = async { while events.recv().await.is_some() {} };
            let pushed = tokio::select! {
                (pushed, ()) = async { tokio::join!(pushing, drain) } => pushed,
                () = solution.build().request.stop.cancelled() => return Err(BuildError::Cancelled),
            };
            match pushed {
                Ok(_) => {}
                Err(error) if target.ignore_error => {
                    let text = format!(
                        "[Warning] the cache was not exported to {}: {error}\n",
                        name.familiar()
                    );
                    let _ = output.send(BuildEvent::ErrorText(text)).await;
                }
                Err(error) => {
                    return Err(error.context(format!("failed to export the cache to {}", name.familiar())));
                }
            }
        }
        Ok(image)
    }

    /// Writes a cache into a registry under `name`; what the name points to then.
    pub async fn export_cache(
        &self,
        draft: Draft,
        form: Form,
        name: &Reference,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<Descriptor, BuildError> {
        let images = self.images.clone();
        let written = tokio::task::spawn_blocking(move || draft.write(&images, form)).await??;
        let options = PushOptions {
            auth,
            ..PushOptions::default()
        };
        let blobs = written.blobs.clone();
        self.images
            .push_parts(name, written.top.clone(), blobs, options, progress)
            .await?;
        let Written { top, lease, .. } = written;
        drop(lease);
        // Its documents are of no use here.
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || images.sweep()).await?;
        Ok(top)
    }
}
