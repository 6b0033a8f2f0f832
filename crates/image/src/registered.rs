//! Making an image visible: one transaction that names it and roots everything it needs.

use rusqlite::{Connection, Transaction};
use spec::image::Descriptor;
use spec::{Digest, Reference};
use store::{DbError, Lease, SnapshotId, rusqlite};

use crate::error::ImageError;
use crate::images::{Images, now};
use crate::lineage;

/// An unpacked manifest of an image.
pub(crate) struct UnpackedManifest {
    pub manifest: Digest,
    pub top: SnapshotId,
}

impl Images {
    /// Registers `target` with whatever of it is here, under `names`, and gives back what that is. Blobs and snapshots must
    /// be held by a lease until this returns.
    pub(crate) fn register(
        &self,
        target: &Descriptor,
        names: &[Reference],
        unpacked: &[UnpackedManifest],
    ) -> Result<Vec<Descriptor>, ImageError> {
        let blobs = self.inner.documents.blobs_here(&self.inner.store, target)?;
        self.register_part(target, &blobs, names, unpacked)?;
        Ok(blobs)
    }

    /// Registers `target` with `blobs` of it only.
    pub(crate) fn register_part(
        &self,
        target: &Descriptor,
        blobs: &[Descriptor],
        names: &[Reference],
        unpacked: &[UnpackedManifest],
    ) -> Result<(), ImageError> {
        let db = self.inner.store.db();
        // What is there already was made to last when it came; waiting for the disk once more would add nothing.
        let known =
            db.read(|db| Ok(is_registered(db, target, blobs, unpacked)? && are_named(db, target, names)?))?;
        if known {
            return self.name_again(target, names);
        }
        self.register_durably(target, blobs, names, unpacked, None)
    }

    /// Notes that the image was given names that it has.
    fn name_again(&self, target: &Descriptor, names: &[Reference]) -> Result<(), ImageError> {
        if names.is_empty() {
            return Ok(());
        }
        self.inner.store.db().write::<_, DbError>(|tx| {
            for name in names {
                tx.prepare_cached("UPDATE image_name SET tagged = ?3 WHERE name = ?1 AND digest = ?2")?
                    .execute((name.canonical(), target.digest.as_str(), now()))?;
            }
            Ok(())
        })?;
        // What it is made of may have come again.
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Registers an image that was committed from `parent`.
    pub(crate) fn register_child(
        &self,
        target: &Descriptor,
        names: &[Reference],
        unpacked: &[UnpackedManifest],
        parent: &Digest,
    ) -> Result<Vec<Descriptor>, ImageError> {
        let blobs = self.inner.documents.blobs_here(&self.inner.store, target)?;
        self.register_durably(target, &blobs, names, unpacked, Some(parent))?;
        Ok(blobs)
    }

    fn register_durably(
        &self,
        target: &Descriptor,
        blobs: &[Descriptor],
        names: &[Reference],
        unpacked: &[UnpackedManifest],
        parent: Option<&Digest>,
    ) -> Result<(), ImageError> {
        self.inner.store.db().write_durable(|tx| {
            register(tx, target, blobs, names, unpacked)?;
            if let Some(parent) = parent {
                lineage::record(tx, &target.digest, parent)?;
            }
            Ok::<_, DbError>(())
        })?;
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Records that a manifest of an image is unpacked, if the image is registered.
    pub(crate) fn record_snapshot(
        &self,
        image: &Digest,
        unpacked: &UnpackedManifest,
    ) -> Result<(), ImageError> {
        self.inner
            .store
            .db()
            .write::<_, DbError>(|tx| Ok(put_snapshot(tx, image, unpacked)?))?;
        Ok(())
    }

    /// Remembers where blobs are to be had, for mounts.
    pub(crate) fn record_origin(&self, blobs: &[Digest], reference: &Reference) -> Result<(), ImageError> {
        self.inner.store.db().write::<_, DbError>(|tx| {
            for blob in blobs {
                tx.prepare_cached(
                    "INSERT OR IGNORE INTO blob_origin (blob, domain, path) VALUES (?1, ?2, ?3)",
                )?
                .execute((blob.as_str(), reference.domain(), reference.path()))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Another repository of the same registry that has the blob.
    pub(crate) fn origin_of(
        &self,
        blob: &Digest,
        reference: &Reference,
    ) -> Result<Option<String>, ImageError> {
        use rusqlite::OptionalExtension;
        Ok(self.inner.store.db().read(|db| {
            db.prepare_cached(
                "SELECT path FROM blob_origin WHERE blob = ?1 AND domain = ?2 AND path <> ?3 LIMIT 1",
            )?
            .query_row((blob.as_str(), reference.domain(), reference.path()), |row| {
                row.get(0)
            })
            .optional()
        })?)
    }

    /// Remembers where a blob's upload was begun; without a location, that it is done.
    pub(crate) fn record_upload(
        &self,
        blob: &Digest,
        reference: &Reference,
        location: Option<&str>,
    ) -> Result<(), ImageError> {
        let key = (blob.as_str(), reference.domain(), reference.path());
        self.inner.store.db().write::<_, DbError>(|tx| {
            match location {
                Some(location) => tx
                    .prepare_cached(
                        "INSERT OR REPLACE INTO upload (blob, domain, path, location) VALUES (?1, ?2, ?3, ?4)",
                    )?
                    .execute((key.0, key.1, key.2, location))?,
                None => tx
                    .prepare_cached("DELETE FROM upload WHERE blob = ?1 AND domain = ?2 AND path = ?3")?
                    .execute(key)?,
            };
            Ok(())
        })?;
        Ok(())
    }

    /// Where an upload of the blob was begun and not ended.
    pub(crate) fn upload_of(
        &self,
        blob: &Digest,
        reference: &Reference,
    ) -> Result<Option<String>, ImageError> {
        use rusqlite::OptionalExtension;
        Ok(self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT location FROM upload WHERE blob = ?1 AND domain = ?2 AND path = ?3")?
                .query_row((blob.as_str(), reference.domain(), reference.path()), |row| {
                    row.get(0)
                })
                .optional()
        })?)
    }

    /// Remembers the compressed form of a layer.
    pub(crate) fn record_layer(&self, diff: &Digest, blob: &Descriptor) -> Result<(), ImageError> {
        self.record_layers(std::iter::once((diff, blob)))
    }

    /// The same of several.
    pub(crate) fn record_layers<'a>(
        &self,
        layers: impl Iterator<Item = (&'a Digest, &'a Descriptor)>,
    ) -> Result<(), ImageError> {
        let mut layers = layers.peekable();
        if layers.peek().is_none() {
            return Ok(());
        }
        self.inner.store.db().write::<_, DbError>(|tx| {
            let mut statement = tx.prepare_cached(
                "INSERT OR REPLACE INTO layer_blob (diff, blob, media_type, size) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for (diff, blob) in layers {
                statement.execute((
                    diff.as_str(),
                    blob.digest.as_str(),
                    &blob.media_type,
                    i64::try_from(blob.size).unwrap_or(i64::MAX),
                ))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Of each of the layers a compressed form that is here, held by `lease`.
    pub(crate) fn layer_blobs(
        &self,
        diffs: &[Option<&Digest>],
        lease: &Lease,
    ) -> Result<Vec<Option<Descriptor>>, ImageError> {
        type Rows = Vec<(String, String)>;
        let of_each: Vec<Rows> = self.inner.store.db().read(|db| {
            let mut statement =
                db.prepare_cached("SELECT blob, media_type FROM layer_blob WHERE diff = ?1 ORDER BY size")?;
            let rows = |diff: &Option<&Digest>| -> rusqlite::Result<Rows> {
                match diff {
                    Some(diff) => statement
                        .query_map([diff.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
                        .collect(),
                    None => Ok(Rows::new()),
                }
            };
            diffs.iter().map(rows).collect()
        })?;
        let content = self.inner.store.content();
        let here = |(blob, media_type): (String, String)| {
            let digest: Digest = blob.parse().ok()?;
            // Hold first, look second.
            lease.hold_blob(&digest);
            let size = content.size(&digest)?;
            Some(Descriptor::new(&media_type, digest, size))
        };
        let blobs = of_each.into_iter().map(|rows| rows.into_iter().find_map(here));
        Ok(blobs.collect())
    }
}

fn register(
    tx: &Transaction<'_>,
    target: &Descriptor,
    blobs: &[Descriptor],
    names: &[Reference],
    unpacked: &[UnpackedManifest],
) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO image (digest, media_type, size, registered) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (digest) DO UPDATE SET media_type = excluded.media_type",
        (
            target.digest.as_str(),
            &target.media_type,
            i64::try_from(target.size).unwrap_or(i64::MAX),
            now(),
        ),
    )?;
    for blob in blobs {
        tx.prepare_cached("INSERT OR IGNORE INTO image_blob (image, blob) VALUES (?1, ?2)")?
            .execute((target.digest.as_str(), blob.digest.as_str()))?;
    }
    for manifest in unpacked {
        put_snapshot(tx, &target.digest, manifest)?;
    }
    for name in names {
        tx.execute(
            "INSERT INTO image_name (name, digest, tagged) VALUES (?1, ?2, ?3)
             ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, tagged = excluded.tagged",
            (name.canonical(), target.digest.as_str(), now()),
        )?;
    }
    Ok(())
}

/// Whether registering would change nothing.
fn is_registered(
    db: &Connection,
    target: &Descriptor,
    blobs: &[Descriptor],
    unpacked: &[UnpackedManifest],
) -> rusqlite::Result<bool> {
    let image = target.digest.as_str();
    let same_type = "SELECT 1 FROM image WHERE digest = ?1 AND media_type = ?2";
    if !db
        .prepare_cached(same_type)?
        .exists((image, &target.media_type))?
    {
        return Ok(false);
    }
    let mut blob_row = db.prepare_cached("SELECT 1 FROM image_blob WHERE image = ?1 AND blob = ?2")?;
    for blob in blobs {
        if !blob_row.exists((image, blob.digest.as_str()))? {
            return Ok(false);
        }
    }
    let mut snapshot_row = db.prepare_cached(
        "SELECT 1 FROM image_snapshot WHERE image = ?1 AND manifest = ?2 AND snapshot = ?3",
    )?;
    for manifest in unpacked {
        if !snapshot_row.exists((image, manifest.manifest.as_str(), manifest.top))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn are_named(db: &Connection, target: &Descriptor, names: &[Reference]) -> rusqlite::Result<bool> {
    let mut name_row = db.prepare_cached("SELECT 1 FROM image_name WHERE name = ?1 AND digest = ?2")?;
    for name in names {
        if !name_row.exists((name.canonical(), target.digest.as_str()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn put_snapshot(tx: &Transaction<'_>, image: &Digest, unpacked: &UnpackedManifest) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT OR REPLACE INTO image_snapshot (image, manifest, snapshot)
         SELECT digest, ?2, ?3 FROM image WHERE digest = ?1",
        (image.as_str(), unpacked.manifest.as_str(), unpacked.top),
    )?;
    Ok(())
}
