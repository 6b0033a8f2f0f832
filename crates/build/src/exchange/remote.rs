//! Caches in registries, and in images that are here.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use image::{Auth, Image, Images, Progress, PushOptions, RemoteParts};
use spec::Reference;
use spec::image::{Descriptor, media_type};
use store::Lease;
use tokio::sync::mpsc;

use super::{CacheGoal, CacheSource, CacheTarget, Draft, Form, Imported, MAX_TOP, Origin, Written, import};
use crate::builder::Builder;
use crate::error::BuildError;
use crate::request::{BuildEvent, BuildRequest};
use crate::solution::Solution;

struct Remote(RemoteParts);

impl Origin for Remote {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        async move { Ok(self.0.top().await?) }.boxed()
    }

    fn document<'a>(&'a self, of: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        async move {
            match media_type::is_manifest(&of.media_type) || media_type::is_index(&of.media_type) {
                true => Ok(self.0.manifest(&of.digest).await?),
                false => Ok(self.0.document(of).await?),
            }
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

impl Here {
    fn read(&self, of: &Descriptor, most: u64) -> Result<Vec<u8>, BuildError> {
        let content = self.images.store().content();
        Ok(content.read(&of.digest, most).map_err(image::ImageError::from)?)
    }
}

impl Origin for Here {
    fn top(&self) -> BoxFuture<'_, Result<Vec<u8>, BuildError>> {
        async move {
            let manifest = &self.image.manifest_descriptor;
            let digest = self.image.manifest_digest.clone();
            let of = Descriptor::new(&manifest.media_type, digest, manifest.size);
            self.read(&of, MAX_TOP)
        }
        .boxed()
    }

    fn document<'a>(&'a self, of: &'a Descriptor) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        async move { self.read(of, of.size) }.boxed()
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

impl Builder {
    /// Reads the cache that lies in a registry under `name`, by itself or in an image.
    pub async fn import_cache(&self, name: &Reference, auth: Option<&Auth>) -> Result<Imported, BuildError> {
        let origin = Remote(RemoteParts::new(&self.images, name, auth)?);
        import(Arc::new(origin), &name.familiar()).await
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
        import(Arc::new(origin), &name.familiar()).await.map(Some)
    }

    /// Reads the caches that a request names. One that cannot be read is told, and done without.
    pub(crate) async fn read_caches(
        &self,
        request: &mut BuildRequest,
        output: &mpsc::Sender<BuildEvent>,
    ) -> Result<(), BuildError> {
        for source in std::mem::take(&mut request.cache_sources) {
            let (name, may_be_here) = match &source {
                CacheSource::Named(name) => (name, true),
                CacheSource::Registry(name) => (name, false),
                CacheSource::Local { .. } => {
                    return Err(BuildError::invalid(
                        "a cache in a directory needs the client's session",
                    ));
                }
            };
            if request.no_cache {
                continue;
            }
            let reading = async {
                if may_be_here
                    && let Ok(Some(imported)) = self.import_cache_here(name).await
                    && !imported.is_empty()
                {
                    return Ok(imported);
                }
                self.import_cache(name, request.logins.get(name.domain())).await
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
            let exported = tokio::select! {
                exported = self.write_cache(solution, target, name) => exported,
                () = solution.build().request.stop.cancelled() => Err(BuildError::Cancelled),
            };
            self.sweep().await?;
            match exported {
                Ok(()) => {}
                Err(BuildError::Cancelled) => return Err(BuildError::Cancelled),
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

    async fn write_cache(
        &self,
        solution: &Arc<Solution>,
        target: &CacheTarget,
        name: &Reference,
    ) -> Result<(), BuildError> {
        let (drafted, mode) = (solution.clone(), target.mode);
        let collect = move || {
            let mut draft = Draft::default();
            drafted.draft_cache(&mut draft, mode)?;
            Ok::<_, BuildError>(draft)
        };
        let draft = tokio::task::spawn_blocking(collect).await??;
        if draft.is_empty() {
            return Ok(());
        }
        let (progress, mut events) = mpsc::channel(1);
        let auth = solution.build().request.logins.get(name.domain()).cloned();
        let pushing = self.export_cache(draft, target.form, name, auth, progress);
        let drain = async { while events.recv().await.is_some() {} };
        tokio::join!(pushing, drain).0.map(|_| ())
    }

    /// Writes a cache into a registry under `name`; what the name points to then. Its documents are of no use here
    /// afterwards, however it ended: see [`Builder::sweep`].
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
        let Written { top, blobs, lease } = written;
        self.images
            .push_parts(name, top.clone(), blobs, options, progress)
            .await?;
        drop(lease);
        Ok(top)
    }

    /// Removes what nothing keeps any more.
    pub async fn sweep(&self) -> Result<(), BuildError> {
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || images.sweep()).await?;
        Ok(())
    }
}
