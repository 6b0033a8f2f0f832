//! Bringing back a blob whose file is not on the disk: made of its recipe, or fetched from where it came.

use std::sync::{Arc, mpsc};

use registry::{Access, Auth};
use spec::image::{Descriptor, media_type};
use spec::{Digest, ErrorClass, Reference};
use store::{Bring, IngestError, NotBrought, SnapshotId, Stop};

use super::RecipeError;
use super::pieces::Recipe;
use super::replay::replay;
use super::table::Known;
use crate::error::ImageError;
use crate::images::{Images, Inner};
use crate::layer::Files;
use crate::scratch::ScratchBlob;

/// What the store asks for blobs.
pub(crate) fn bringer(inner: &Arc<Inner>) -> Arc<Bring> {
    let inner = Arc::downgrade(inner);
    Arc::new(move |blob: &Digest| {
        let inner = inner.upgrade().ok_or_else(|| NotBrought {
            message: format!("content {blob} is not here, and the image store is closed"),
            class: ErrorClass::Unavailable,
        })?;
        let images = Images { inner };
        images.bring_back(blob).map_err(|error| NotBrought {
            class: error.class(),
            message: error.to_string(),
        })
    })
}

pub(super) fn not_brought(blob: &Digest, why: &str, class: ErrorClass) -> ImageError {
    ImageError::NotBrought {
        blob: blob.clone(),
        why: why.to_owned(),
        class,
    }
}

/// A registry that does not give it is none to fetch it from; one that cannot be reached may be later.
fn is_refusal(error: &ImageError) -> bool {
    matches!(
        error.class(),
        ErrorClass::NotFound | ErrorClass::Forbidden | ErrorClass::Unauthorized
    )
}

impl Images {
    /// Puts the file of a blob back on the disk. Blocks.
    fn bring_back(&self, blob: &Digest) -> Result<(), ImageError> {
        self.bring_back_unless(blob, &|| false)
    }

    /// The same; `stop` ends the making of it.
    pub(super) fn bring_back_unless(&self, blob: &Digest, stop: &Stop<'_>) -> Result<(), ImageError> {
        let content = self.inner.store.content();
        // One at a time: the next one finds the file.
        let _turn = self.inner.bringing.lock(blob);
        if content.is_stored(blob) {
            return Ok(());
        }
        let Some(known) = self.known_recipe(blob)?.filter(|known| known.away) else {
            content.forget_away(blob);
            return Err(store::ContentError::NotFound(blob.clone()).into());
        };
        let mut why = String::new();
        if let Some(recipe) = &known.recipe {
            match self.follow(blob, &known, recipe, stop) {
                Ok(()) => return Ok(()),
                Err(RecipeError::Write(error)) => return Err(ImageError::Store(error, blob.clone())),
                Err(error) if !error.is_final() => {
                    return Err(not_brought(blob, &error.to_string(), ErrorClass::Internal));
                }
                Err(error) => {
                    tracing::warn!(%blob, %error, "a compressed layer cannot be made again");
                    why = error.to_string();
                }
            }
        }
        match self.fetch_again(blob, known.size) {
            Ok(true) => {
                if known.recipe.is_some() {
                    // What was wrong with the recipe is so next time, too.
                    self.forget_recipe(blob)?;
                }
                Ok(())
            }
            Ok(false) => {
                // Then it is simply not here, and a pull brings it.
                self.forget_recipe(blob)?;
                Err(not_brought(blob, &why, ErrorClass::Internal))
            }
            Err(error) => {
                if is_refusal(&error) {
                    self.forget_recipe(blob)?;
                } else if known.recipe.is_some() {
                    // It will not be of use again, but there is a registry that may be later.
                    let recipe = None;
                    self.record_recipe(blob, &Known { recipe, ..known })?;
                }
                let why = match why.is_empty() {
                    true => error.to_string(),
                    false => format!("{why}; {error}"),
                };
                Err(not_brought(blob, &why, error.class()))
            }
        }
    }

    /// Makes the blob of its layer, of which there may be several copies.
    pub(super) fn follow(
        &self,
        blob: &Digest,
        known: &Known,
        recipe: &Digest,
        stop: &Stop<'_>,
    ) -> Result<(), RecipeError> {
        let copies = self.inner.store.snapshots().by_diff(&known.diff);
        let copies = copies.map_err(|error| RecipeError::Read(std::io::Error::other(error)))?;
        let mut failure = RecipeError::NoLayer(known.diff.clone());
        for layer in copies {
            match self.follow_with(layer, blob, known, recipe, stop) {
                Ok(()) => return Ok(()),
                Err(error @ RecipeError::Write(_)) => return Err(error),
                // One that may be read another time is not the end.
                Err(error) if failure.is_final() => failure = error,
                Err(_) => {}
            }
        }
        Err(failure)
    }

    fn follow_with(
        &self,
        layer: SnapshotId,
        blob: &Digest,
        known: &Known,
        recipe: &Digest,
        stop: &Stop<'_>,
    ) -> Result<(), RecipeError> {
        let store = &self.inner.store;
        let lease = store.lease();
        lease.hold_blob(recipe);
        lease.hold_snapshot(layer);
        let io = |error: store::SnapshotError| RecipeError::Read(std::io::Error::other(error));
        let part = store.snapshots().part(layer).map_err(|error| match error {
            store::SnapshotError::NotFound(_) => RecipeError::NoLayer(known.diff.clone()),
            other => io(other),
        })?;
        let files = Files::open(&part).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => RecipeError::NoLayer(known.diff.clone()),
            _ => RecipeError::Read(error),
        })?;
        let input = store.content().open(recipe).map_err(|error| match error {
            store::ContentError::NotFound(_) => RecipeError::Broken("its file is not here"),
            other => RecipeError::Read(std::io::Error::other(other)),
        })?;
        let recipe = Recipe::open(input)?;
        if recipe.head.blob != *blob || recipe.head.diff != known.diff {
            return Err(RecipeError::Broken("it is of another layer"));
        }
        let write = |error: ImageError| RecipeError::Write(std::io::Error::other(error));
        let out = ScratchBlob::new(store.content()).map_err(write)?;
        let out = replay(recipe, &files, out, stop)?;
        match out.commit(Some(blob)) {
            Ok(_) => Ok(()),
            Err(ImageError::Ingest(IngestError::DigestMismatch { actual, .. })) => {
                Err(RecipeError::Other(actual))
            }
            Err(error) => Err(write(error)),
        }
    }

    /// Fetches the blob from a registry that had it; false if none is known.
    pub(super) fn fetch_again(&self, blob: &Digest, size: u64) -> Result<bool, ImageError> {
        let mut failure: Option<ImageError> = None;
        for origin in self.origins(blob)? {
            match self.fetch_from(&origin, blob, size) {
                Ok(()) => return Ok(true),
                // That one of them refuses says nothing about another that could not be asked.
                Err(error) if failure.as_ref().is_none_or(is_refusal) => failure = Some(error),
                Err(_) => {}
            }
        }
        failure.map_or(Ok(false), Err)
    }

    fn fetch_from(&self, origin: &Reference, blob: &Digest, size: u64) -> Result<(), ImageError> {
        let auth = self.inner.logins.of(origin);
        match self.fetch_as(&auth, origin, blob, size) {
            // A login may be old, or of another repository: what is public needs none.
            Err(error) if auth != Auth::Anonymous && is_refusal(&error) => {
                self.fetch_as(&Auth::Anonymous, origin, blob, size)
            }
            other => other,
        }
    }

    fn fetch_as(&self, auth: &Auth, origin: &Reference, blob: &Digest, size: u64) -> Result<(), ImageError> {
        let runtime = self.inner.runtime.clone();
        let runtime = runtime.or_else(|| tokio::runtime::Handle::try_current().ok());
        let runtime = runtime.ok_or(ImageError::Worker)?;
        self.inner.store.room().check()?;
        let repository = self.inner.registry.repository(origin, auth, Access::Pull)?;
        let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, blob.clone(), size);
        let (told, outcome) = mpsc::channel();
        let inner = Arc::clone(&self.inner);
        runtime.spawn(async move {
            let repository = Arc::new(repository);
            let download = inner.downloads.join(&inner.store, &repository, &descriptor);
            // Nobody waits any more only if the process ends.
            let _ = told.send(download.finished().await);
        });
        outcome.recv().map_err(|_| ImageError::Worker)?
    }
}
