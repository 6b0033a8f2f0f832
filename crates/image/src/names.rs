//! Names of images: giving, taking away, and what is left of an image without one.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};
use spec::image::Descriptor;
use spec::{Digest, Reference};
use store::{DbError, rusqlite};

use crate::error::ImageError;
use crate::images::{Images, now};

/// What taking a name away came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untagged {
    pub name: Reference,
    /// The image that lost it.
    pub id: Digest,
    /// Names the image still has.
    pub remaining: usize,
}

/// What removing an image came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    pub untagged: Vec<Reference>,
    /// As users knew it.
    pub deleted: Digest,
}

impl Images {
    /// Gives the image that `source` names another name, taking it from whatever had it.
    pub fn tag(&self, source: &str, target: &Reference) -> Result<(), ImageError> {
        if target.digest().is_some() {
            return Err(ImageError::TagWithDigest);
        }
        let found = self.find(source)?;
        self.set_name(&target.or_latest(), &found.digest)
    }

    /// Takes a name away. The image stays, dangling if that was its last name.
    pub fn untag(&self, name: &Reference) -> Result<Untagged, ImageError> {
        let name = name.or_latest();
        let canonical = name.canonical();
        self.inner.store.db().make_room();
        self.inner.store.db().write_durable(|tx| {
            let digest: Option<String> = tx
                .query_row(
                    "SELECT digest FROM image_name WHERE name = ?1",
                    [&canonical],
                    |row| row.get(0),
                )
                .optional()
                .map_err(DbError::from)?;
            let Some(digest) = digest else {
                return Err(ImageError::no_such(&name));
            };
            tx.execute("DELETE FROM image_name WHERE name = ?1", [&canonical])
                .map_err(DbError::from)?;
            let remaining: i64 = tx
                .query_row(
                    "SELECT count(*) FROM image_name WHERE digest = ?1",
                    [&digest],
                    |row| row.get(0),
                )
                .map_err(DbError::from)?;
            Ok(Untagged {
                id: parse(&digest)?,
                name: name.clone(),
                remaining: usize::try_from(remaining).unwrap_or(0),
            })
        })
    }

    /// Removes an image with all its names. Its content goes with the next garbage collection, unless other
    /// images or containers use it.
    pub fn remove_by_digest(&self, id: &Digest) -> Result<Removed, ImageError> {
        let (references, _) = self.names_of(id)?;
        let shown = self.target(id)?.map(|target| self.id_of(&target));
        self.inner.store.db().make_room();
        let gone = self.inner.store.db().write_durable(|tx| {
            tx.execute("DELETE FROM image WHERE digest = ?1", [id.as_str()])
                .map_err(DbError::from)
        })?;
        if gone == 0 {
            return Err(ImageError::NotFound(id.to_string()));
        }
        Ok(Removed {
            untagged: references,
            deleted: shown.unwrap_or_else(|| id.clone()),
        })
    }

    /// The image that bears exactly this name, if any.
    pub fn named(&self, name: &Reference) -> Result<Option<Digest>, ImageError> {
        Ok(self.target_of(&name.or_latest().canonical())?.map(|d| d.digest))
    }

    /// Names of an image, tags before digests, and the time the last one was given.
    pub(crate) fn names_of(&self, id: &Digest) -> Result<(Vec<Reference>, String), ImageError> {
        Ok(read(&self.inner.store.db().read(|db| rows_of(db, id))?))
    }

    /// The names of every image that has some, tags before digests.
    pub(crate) fn all_names(&self) -> Result<HashMap<Digest, Vec<Reference>>, ImageError> {
        let rows: Vec<(String, String)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT digest, name FROM image_name ORDER BY name")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let mut names: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for (digest, name) in rows {
            if let Ok(name) = name.parse() {
                names.entry(parse(&digest)?).or_default().push(name);
            }
        }
        for of_one in names.values_mut() {
            in_order(of_one);
        }
        Ok(names)
    }

    pub(crate) fn set_name(&self, name: &Reference, digest: &Digest) -> Result<(), ImageError> {
        self.inner.store.db().make_room();
        // A name that stays where it is needs no more than its new time, which a power cut may take.
        let stays = self.inner.store.db().write::<_, ImageError>(|tx| {
            let update = "UPDATE image_name SET tagged = ?3 WHERE name = ?1 AND digest = ?2";
            let changed = tx.execute(update, (name.canonical(), digest.as_str(), now()));
            Ok(changed.map_err(DbError::from)? > 0)
        })?;
        if stays {
            return Ok(());
        }
        self.inner.store.db().write_durable(|tx| {
            tx.execute(
                "INSERT INTO image_name (name, digest, tagged) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, tagged = excluded.tagged",
                (name.canonical(), digest.as_str(), now()),
            )
            .map_err(DbError::from)?;
            Ok(())
        })
    }

    pub(crate) fn target_of(&self, canonical: &str) -> Result<Option<Descriptor>, ImageError> {
        let row = self.inner.store.db().read(|db| {
            db.prepare_cached(
                "SELECT i.digest, i.media_type, i.size FROM image_name n JOIN image i ON i.digest = n.digest
                 WHERE n.name = ?1",
            )?
            .query_row([canonical], descriptor_row)
            .optional()
        })?;
        row.map(descriptor).transpose()
    }

    /// All registered targets, newest registration first.
    pub(crate) fn targets(&self) -> Result<Vec<Descriptor>, ImageError> {
        let rows: Vec<(String, String, i64)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT digest, media_type, size FROM image ORDER BY registered DESC, digest")?
                .query_map([], descriptor_row)?
                .collect()
        })?;
        rows.into_iter().map(descriptor).collect()
    }

    /// The target with exactly this digest.
    pub(crate) fn target(&self, id: &Digest) -> Result<Option<Descriptor>, ImageError> {
        let row = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT digest, media_type, size FROM image WHERE digest = ?1")?
                .query_row([id.as_str()], descriptor_row)
                .optional()
        })?;
        row.map(descriptor).transpose()
    }

    /// Targets whose digest begins with `prefix`: three at most, which is enough to tell none, one and several.
    pub(crate) fn targets_by_prefix(&self, prefix: &str) -> Result<Vec<Descriptor>, ImageError> {
        let (low, high) = (format!("sha256:{prefix}"), format!("sha256:{prefix}~"));
        let rows: Vec<(String, String, i64)> = self.inner.store.db().read(|db| {
            db.prepare_cached(
                "SELECT digest, media_type, size FROM image WHERE digest >= ?1 AND digest < ?2 ORDER BY digest LIMIT 3",
            )?
            .query_map([&low, &high], descriptor_row)?
            .collect()
        })?;
        rows.into_iter().map(descriptor).collect()
    }
}

/// The names of an image as they are stored, each with the time at which it was given.
pub(crate) fn rows_of(db: &Connection, id: &Digest) -> rusqlite::Result<Vec<(String, i64)>> {
    db.prepare_cached("SELECT name, tagged FROM image_name WHERE digest = ?1 ORDER BY name")?
        .query_map([id.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// What [`rows_of`] gave: tags before digests, and the time the last one was given.
pub(crate) fn read(rows: &[(String, i64)]) -> (Vec<Reference>, String) {
    let last = rows.iter().map(|(_, tagged)| *tagged).max();
    let mut references: Vec<Reference> = rows.iter().filter_map(|(name, _)| name.parse().ok()).collect();
    in_order(&mut references);
    let last = last
        .and_then(|t| jiff::Timestamp::from_nanosecond(i128::from(t)).ok())
        .map(|t| t.to_string())
        .unwrap_or_default();
    (references, last)
}

/// Tags before digests.
fn in_order(references: &mut [Reference]) {
    references.sort_by_cached_key(|reference| (reference.tag().is_none(), reference.canonical()));
}

fn descriptor_row(row: &rusqlite::Row<'_>) -> rusqlite::Result<(String, String, i64)> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn descriptor((digest, media_type, size): (String, String, i64)) -> Result<Descriptor, ImageError> {
    Ok(Descriptor::new(
        &media_type,
        parse(&digest)?,
        u64::try_from(size).unwrap_or(0),
    ))
}

/// A digest from our own tables.
fn parse(text: &str) -> Result<Digest, ImageError> {
    text.parse().map_err(|_| ImageError::Worker)
}
