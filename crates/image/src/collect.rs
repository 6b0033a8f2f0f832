//! Garbage collection: images say what they need, others may add to it, everything else goes.

use std::sync::PoisonError;

use rusqlite::Transaction;
use spec::Digest;
use store::{Freed, Roots, SnapshotId, rusqlite};

use crate::error::ImageError;
use crate::images::Images;
use crate::recipe;

impl Images {
    /// Removes blobs and layers that neither an image, nor a writable snapshot, nor a lease, nor a source given
    /// to [`Images::keep_also`], nor `extra` needs.
    pub fn gc(
        &self,
        extra: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Roots>,
    ) -> Result<Freed, ImageError> {
        let freed = self.inner.store.gc(|tx| self.roots(tx, extra))?;
        self.inner.documents.clear();
        self.forget_hints(&freed.blobs)?;
        Ok(freed)
    }

    /// What [`Images::gc`] would remove if these images were gone, after `change`, which is undone.
    pub fn rehearse_gc(
        &self,
        without: &[Digest],
        change: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()>,
    ) -> Result<Freed, ImageError> {
        let change = |tx: &Transaction<'_>| {
            for image in without {
                for table in ["image_blob", "image_snapshot"] {
                    tx.execute(&format!("DELETE FROM {table} WHERE image = ?1"), [image.as_str()])?;
                }
            }
            change(tx)
        };
        let none = |_: &Transaction<'_>| Ok(Roots::default());
        Ok(self.inner.store.rehearse(change, |tx| self.roots(tx, none))?)
    }

    /// Everything that anybody is known to need.
    fn roots(
        &self,
        tx: &Transaction<'_>,
        extra: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<Roots>,
    ) -> rusqlite::Result<Roots> {
        let sources = self
            .inner
            .roots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut roots = image_roots(tx)?;
        let mut add = |more: Roots| {
            roots.blobs.extend(more.blobs);
            roots.snapshots.extend(more.snapshots);
        };
        for source in &sources {
            add(source(tx)?);
        }
        add(extra(tx)?);
        Ok(roots)
    }

    /// Clears away what an operation brought in that is part of nothing. Its own failure is only logged: what comes of the
    /// operation is what counts. Blocks.
    pub fn sweep(&self) {
        if let Err(error) = self.gc(|_| Ok(Roots::default())) {
            tracing::warn!(%error, "what an operation left stays until the next garbage collection");
        }
    }

    /// Removes the beginnings of downloads that nobody is at.
    pub(crate) fn forget_partial(&self) {
        if let Err(error) = self.inner.store.content().remove_partial() {
            tracing::warn!(%error, "half a download stays until it is finished or pruned");
        }
    }

    /// Hints about blobs that are gone.
    fn forget_hints(&self, blobs: &[Digest]) -> Result<(), ImageError> {
        if blobs.is_empty() {
            return Ok(());
        }
        self.inner.store.db().write::<_, store::DbError>(|tx| {
            for blob in blobs {
                tx.prepare_cached("DELETE FROM layer_blob WHERE blob = ?1")?
                    .execute([blob.as_str()])?;
                tx.prepare_cached("DELETE FROM blob_origin WHERE blob = ?1")?
                    .execute([blob.as_str()])?;
                tx.prepare_cached("DELETE FROM upload WHERE blob = ?1")?
                    .execute([blob.as_str()])?;
            }
            Ok(())
        })?;
        Ok(())
    }
}

impl Images {
    /// Every blob and layer that images have.
    pub fn rooted(&self) -> Result<Roots, ImageError> {
        let mut roots = self.inner.store.db().write::<_, store::DbError>(|tx| {
            let mut roots = image_roots(tx)?;
            roots.blobs.extend(recipe::recipes(tx)?);
            Ok(roots)
        })?;
        let snapshots = self.inner.store.snapshots();
        for top in roots.snapshots.clone() {
            let mut next = snapshots.parent(top);
            while let Some(id) = next.filter(|id| roots.snapshots.insert(*id)) {
                next = snapshots.parent(id);
            }
        }
        Ok(roots)
    }

    /// Blobs that an image needs and that are not here, each with the image's digest.
    pub fn missing_blobs(&self) -> Result<Vec<(Digest, Digest)>, ImageError> {
        let rows: Vec<(String, String)> = self.inner.store.db().read(|db| {
            let mut rows = db.prepare("SELECT image, blob FROM image_blob ORDER BY image, blob")?;
            let found = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            found.collect()
        })?;
        let content = self.inner.store.content();
        let parsed = rows
            .into_iter()
            .filter_map(|(image, blob)| Some((image.parse::<Digest>().ok()?, blob.parse().ok()?)));
        Ok(parsed
            .filter(|(_, blob): &(Digest, Digest)| !content.has(blob))
            .collect())
    }
}

fn image_roots(tx: &Transaction<'_>) -> rusqlite::Result<Roots> {
    let mut roots = Roots::default();
    let mut blobs = tx.prepare("SELECT DISTINCT blob FROM image_blob")?;
    for blob in blobs.query_map([], |row| row.get::<_, String>(0))? {
        roots.blobs.extend(blob?.parse::<Digest>().ok());
    }
    let mut snapshots = tx.prepare("SELECT DISTINCT snapshot FROM image_snapshot")?;
    for snapshot in snapshots.query_map([], |row| row.get::<_, SnapshotId>(0))? {
        roots.snapshots.insert(snapshot?);
    }
    Ok(roots)
}
