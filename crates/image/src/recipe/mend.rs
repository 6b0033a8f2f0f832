//! Putting in place what a check found to hold something else: blobs, and the content that layers share.
//!
//! Content that layers share is taken out of the archive of any layer that has it. Whatever an archive is or comes from, what
//! counts is that the content has the name of what is damaged.

use spec::{Digest, ErrorClass};
use store::{SnapshotId, Stop, Stoppable};

use super::RecipeError;
use super::bring::not_brought;
use crate::bounded::Bounded;
use crate::compression;
use crate::error::ImageError;
use crate::images::Images;
use crate::layer::tar::{Kind, Reader};
use crate::layer::{Files, clean};

/// How the archive of a layer is had, what costs least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Here,
    Made,
    Fetched,
}

impl Images {
    /// Puts a blob in place whose file holds something else: made or fetched again, as if it had been let go. `stop` ends the
    /// reading and the making. Blocks.
    pub fn mend(&self, blob: &Digest, stop: &Stop<'_>) -> Result<(), ImageError> {
        let content = self.inner.store.content();
        if !content.is_damaged(blob, stop)? {
            return Ok(());
        }
        let let_go = self.inner.store.let_go(blob);
        let_go.map_err(|error| ImageError::Content(store::ContentError::Io(error)))?;
        if content.is_stored(blob) {
            return Err(not_brought(blob, "it is in use just now", ErrorClass::Conflict));
        }
        if self.known_recipe(blob)?.is_some_and(|known| known.away) {
            return self.bring_back_unless(blob, stop);
        }
        let _turn = self.inner.bringing.lock(blob);
        let fetched = match self.layer_size(blob)? {
            Some(size) => self.fetch_again(blob, size),
            None => Ok(false),
        };
        match fetched {
            Ok(true) => Ok(()),
            Ok(false) => Err(not_brought(blob, "it was damaged", ErrorClass::NotFound)),
            Err(error) => Err(not_brought(blob, &error.to_string(), error.class())),
        }
    }

    /// Puts the right content into a damaged file that layers share; false if no archive has it that is here, can be made or
    /// is to be fetched. Then it is marked, and the next layer that comes with the file puts it right. `stop` ends it. Blocks.
    pub fn mend_object(&self, object: &str, stop: &Stop<'_>) -> Result<bool, ImageError> {
        let snapshots = self.inner.store.snapshots();
        if !snapshots.mark_damaged(object, stop)? {
            return Ok(true);
        }
        let holders = snapshots.holders(object)?;
        for way in [Way::Here, Way::Made, Way::Fetched] {
            for layer in &holders {
                let Some(diff) = &layer.diff else { continue };
                for (blob, size) in self.forms_of(diff)? {
                    match self.take_from(object, layer.id, &blob, size, way, stop) {
                        Ok(true) => return Ok(true),
                        Ok(false) => {}
                        Err(error) if stop() => return Err(error),
                        // Another one may do.
                        Err(error) => tracing::warn!(
                            object, %blob, %error, "a damaged file that layers share cannot be had of this layer"
                        ),
                    }
                }
            }
        }
        Ok(false)
    }

    fn take_from(
        &self,
        object: &str,
        layer: SnapshotId,
        blob: &Digest,
        size: u64,
        way: Way,
        stop: &Stop<'_>,
    ) -> Result<bool, ImageError> {
        let store = &self.inner.store;
        let lease = store.lease();
        lease.hold_blob(blob);
        lease.hold_snapshot(layer);
        if !self.is_there(blob, size, way, stop)? {
            return Ok(false);
        }
        let files = Files::open(&store.snapshots().part(layer)?).map_err(ImageError::Read)?;
        let tar = compression::decoder(store.content().open(blob)?);
        let mut archive = Reader::new(Stoppable::new(Bounded::new(tar, self.max_layer()), stop));
        while let Some(entry) = archive.next()? {
            if entry.kind != Kind::File || entry.size == 0 || entry.chunks.is_some() {
                continue;
            }
            let Ok(path) = clean(&entry.path) else { continue };
            let found = files.object(&path).map_err(ImageError::Read)?;
            let is_it = found.is_some_and(|(name, size)| name == object && size == entry.size);
            if is_it && store.snapshots().offer_content(object, archive.content())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether the file of the blob came in this way. Hold it first.
    fn is_there(&self, blob: &Digest, size: u64, way: Way, stop: &Stop<'_>) -> Result<bool, ImageError> {
        let content = self.inner.store.content();
        if stop() {
            return Err(store::ContentError::GivenUp(blob.clone()).into());
        }
        match way {
            Way::Here => return Ok(content.is_stored(blob)),
            // It was looked into.
            _ if content.is_stored(blob) => return Ok(false),
            Way::Made | Way::Fetched => {}
        }
        let _turn = self.inner.bringing.lock(blob);
        if way == Way::Fetched {
            return self.fetch_again(blob, size);
        }
        let Some(known) = self.known_recipe(blob)? else {
            return Ok(false);
        };
        // It stays known if it cannot be followed now: once the file is right, it can be again.
        match &known.recipe {
            Some(recipe) => match self.follow(blob, &known, recipe, stop) {
                Ok(()) => Ok(true),
                Err(RecipeError::Write(error)) => Err(ImageError::Store(error, blob.clone())),
                Err(_) => Ok(false),
            },
            None => Ok(false),
        }
    }
}
