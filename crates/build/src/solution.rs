//! What a build made: files, a configuration, and an image when one is asked for.
//!
//! Nothing of it is collected while the solution is held.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, PoisonError};

use image::Image;
use spec::image::ImageConfig;
use spec::{Digest, Reference};
use store::SnapshotId;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;

use crate::error::BuildError;
use crate::exchange::{self, CacheExport, Draft};
use crate::export;
use crate::history;
use crate::plan::Plan;
use crate::request::BuiltContext;
use crate::solve::Done;
use crate::step::{Build, Tree, mount};

/// The result of a build.
pub struct Solution {
    made: Arc<Made>,
    image: OnceCell<Image>,
}

struct Made {
    build: Arc<Build>,
    plan: Plan,
    target: usize,
    done: Done<Tree>,
    /// What the image carries of the cache.
    inline: OnceLock<String>,
    /// What the image says of itself, where that was not built.
    given: OnceLock<ImageConfig>,
}

impl Made {
    /// Notes which image came of the build, so that it can be asked for by the image's names. Blocks.
    fn note(&self, image: &Image) {
        let (store, id) = (&self.build.store, image.shown.to_string());
        if let Err(error) = history::note_image(store, &self.build.id, &id) {
            tracing::warn!(%error, "which image came of a build is not remembered");
        }
    }
}

impl Solution {
    pub(crate) fn new(build: Arc<Build>, plan: Plan, target: usize, done: Done<Tree>) -> Solution {
        Solution {
            made: Arc::new(Made {
                build,
                plan,
                target,
                done,
                inline: OnceLock::new(),
                given: OnceLock::new(),
            }),
            image: OnceCell::new(),
        }
    }

    pub(crate) fn build(&self) -> &Build {
        &self.made.build
    }

    /// The image of it, without a name as long as nobody gives it one; made once.
    pub async fn image(&self) -> Result<&Image, BuildError> {
        self.image_under(&[]).await
    }

    /// The same; if it is made now, it has these names from the beginning.
    async fn image_under(&self, names: &[Reference]) -> Result<&Image, BuildError> {
        let make = async || {
            let (made, names) = (self.made.clone(), names.to_vec());
            let image = move || {
                let said = export::Said {
                    config: made.given.get(),
                    cache: made.inline.get(),
                };
                let image = export::image(
                    &made.build,
                    &made.plan,
                    made.target,
                    &made.done.results,
                    said,
                    &names,
                )?;
                made.note(&image);
                Ok(image)
            };
            tokio::task::spawn_blocking(image).await?
        };
        self.image.get_or_try_init(make).await
    }

    /// Says what the image is to say of itself, of a result that came without it; only before there is an image, and
    /// the first word counts.
    pub fn give_config(&self, config: ImageConfig) {
        if self.made.plan.is_recipe {
            let _ = self.made.given.set(config);
        }
    }

    /// Has the image carry what it holds of the cache, so that a build elsewhere can start from there; only before there is
    /// an image. One whose layers were made over carries nothing. Blocks.
    pub fn carry_cache(&self) -> Result<(), BuildError> {
        let made = &self.made;
        let request = &made.build.request;
        if !request.squash && !request.rewrite_timestamp {
            let _ = made.inline.set(exchange::inline(
                &made.build,
                &made.plan,
                made.target,
                &made.done,
            )?);
        }
        Ok(())
    }

    /// Adds what the build used of the cache; its request has said that as much is going to be exported. Blocks.
    pub fn draft_cache(&self, draft: &mut Draft, mode: CacheExport) -> Result<(), BuildError> {
        let made = &self.made;
        draft.add(&made.build, &made.plan, made.target, &made.done, mode)
    }

    /// Notes that it is this image that came of the build, where the one that was made was made over.
    pub async fn remember(&self, image: &Image) {
        if self.image.get().is_some_and(|made| made.shown == image.shown) {
            return;
        }
        let (made, image) = (self.made.clone(), image.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || made.note(&image)).await {
            tracing::warn!(%error, "which image came of a build is not remembered");
        }
    }

    /// The image under every name that the request gives it.
    pub async fn tagged_image(&self) -> Result<Image, BuildError> {
        self.tag(&self.made.build.request.tags).await
    }

    /// The image under these names, too.
    pub async fn tag(&self, names: &[Reference]) -> Result<Image, BuildError> {
        let image = self.image_under(names).await?;
        let has = |name: &Reference| image.references.contains(&name.or_latest());
        if names.iter().all(has) {
            return Ok(image.clone());
        }
        let (made, image, names) = (self.made.clone(), image.clone(), names.to_vec());
        tokio::task::spawn_blocking(move || export::named(&made.build, &image, &names)).await?
    }

    /// The configuration with its history.
    pub fn config(&self) -> Result<ImageConfig, BuildError> {
        let made = &self.made;
        export::config(
            &made.build,
            &made.plan,
            made.target,
            &made.done.results,
            made.given.get(),
        )
    }

    /// What ends when everything that the build did and used is noted, and the cache keeps to its limits. It is to be waited
    /// for before the build is called over; whoever asks first has it.
    pub fn settling(&self) -> Option<JoinHandle<()>> {
        let settling = &self.made.build.settling;
        settling.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// How many of the image's layers are those of the image that it starts from.
    pub fn base_layers(&self) -> usize {
        export::base_layers(&self.made.plan, self.made.target)
    }

    /// The images that stages start from and that files are taken from, each once, by a name and their digests.
    pub fn images(&self) -> Vec<(Reference, Digest)> {
        self.made.plan.images.clone()
    }

    /// The snapshot with the files; `None` for no files.
    pub fn snapshot(&self) -> Result<Option<SnapshotId>, BuildError> {
        export::top(&self.made.plan, self.made.target, &self.made.done.results)
    }

    /// The files, mounted nowhere; `None` for no files. Blocks.
    pub fn files(&self) -> Result<Option<OwnedFd>, BuildError> {
        let snapshot = self.snapshot()?;
        snapshot
            .map(|snapshot| mount(&self.made.build.store, snapshot))
            .transpose()
    }

    /// The result as another build may start from it.
    pub fn as_context(&self) -> Result<BuiltContext, BuildError> {
        let (config, snapshot) = (self.config()?, self.snapshot()?);
        let known = serde_json::json!([snapshot.map(|snapshot| snapshot.to_string()), config]);
        Ok(BuiltContext {
            identity: Digest::sha256(known.to_string().as_bytes()),
            snapshot,
            config,
        })
    }
}
