//! What is known of how blobs can be had again.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};

use rusqlite::{OptionalExtension, Transaction};
use spec::{Digest, Reference};
use store::{Away, Dependents, Roots, SnapshotId, Store, rusqlite};

use crate::error::ImageError;
use crate::images::{Images, Inner};

/// A row says that a layer's blob was looked at. Its file may be missing where `away` is set: then it is made with the
/// recipe, or fetched where there is none.
pub(crate) const STEP: &str = "
    CREATE TABLE layer_recipe (
        blob TEXT PRIMARY KEY,
        diff TEXT NOT NULL,
        size INTEGER NOT NULL,
        recipe TEXT,
        away INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub diff: Digest,
    pub size: u64,
    pub recipe: Option<Digest>,
    pub away: bool,
}

/// Tells the store which blobs count as here though their files may be missing.
pub(crate) fn load(store: &Store) -> Result<(), ImageError> {
    let rows: Vec<(String, i64, Option<String>)> = store.db().read(|db| {
        db.prepare("SELECT blob, size, recipe FROM layer_recipe WHERE away = 1")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect()
    })?;
    for (blob, size, recipe) in rows {
        let Ok(blob) = blob.parse::<Digest>() else {
            continue;
        };
        let away = Away {
            size: u64::try_from(size).unwrap_or(0),
            recipe: recipe.and_then(|recipe| recipe.parse().ok()),
        };
        store.content().say_away(&blob, away);
    }
    Ok(())
}

/// What blobs that are made of recipes need at a garbage collection; rows of those that nothing needs go.
pub(crate) fn dependents(inner: &Arc<Inner>) -> Arc<Dependents> {
    let inner: Weak<Inner> = Arc::downgrade(inner);
    Arc::new(
        move |tx: &Transaction<'_>, roots: &mut Roots, rehearsed: bool| match inner.upgrade() {
            Some(inner) => depend(tx, &inner.store, roots, rehearsed),
            None => Ok(()),
        },
    )
}

/// All recipes of blobs of images.
pub(crate) fn recipes(tx: &Transaction<'_>) -> rusqlite::Result<Vec<Digest>> {
    let found: Vec<String> = tx
        .prepare_cached("SELECT recipe FROM layer_recipe WHERE recipe IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(found.iter().filter_map(|digest| digest.parse().ok()).collect())
}

fn depend(tx: &Transaction<'_>, store: &Store, roots: &mut Roots, rehearsed: bool) -> rusqlite::Result<()> {
    let rows: Vec<(String, String, Option<String>)> = tx
        .prepare_cached("SELECT blob, diff, recipe FROM layer_recipe")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut layers: Vec<String> = Vec::new();
    for (blob, diff, recipe) in rows {
        let digest: Option<Digest> = blob.parse().ok();
        if digest.as_ref().is_some_and(|digest| roots.blobs.contains(digest)) {
            if let Some(recipe) = recipe.and_then(|recipe| recipe.parse().ok()) {
                roots.blobs.insert(recipe);
                layers.push(diff);
            }
            continue;
        }
        if rehearsed {
            continue;
        }
        for table in ["layer_recipe", "layer_blob", "blob_origin", "upload"] {
            tx.prepare_cached(&format!("DELETE FROM {table} WHERE blob = ?1"))?
                .execute([&blob])?;
        }
        if let Some(digest) = digest {
            store.content().forget_away(&digest);
        }
    }
    match layers.is_empty() {
        true => Ok(()),
        false => keep_layers(tx, &layers, roots),
    }
}

/// Of each layer that a recipe takes files from, one snapshot stays. Mostly an image or a container has it anyway.
fn keep_layers(tx: &Transaction<'_>, layers: &[String], roots: &mut Roots) -> rusqlite::Result<()> {
    struct Row {
        parent: Option<SnapshotId>,
        committed: bool,
        diff: Option<String>,
    }
    let rows: BTreeMap<SnapshotId, Row> = tx
        .prepare_cached("SELECT id, parent, committed, diff FROM snapshot")?
        .query_map([], |row| {
            let parts = Row {
                parent: row.get(1)?,
                committed: row.get(2)?,
                diff: row.get(3)?,
            };
            Ok((row.get(0)?, parts))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut kept = HashSet::new();
    let rooted = rows
        .iter()
        .filter(|(id, row)| !row.committed || roots.snapshots.contains(id));
    for (id, _) in rooted {
        let mut next = Some(*id);
        while let Some(id) = next.filter(|id| kept.insert(*id)) {
            next = rows.get(&id).and_then(|row| row.parent);
        }
    }
    for diff in layers {
        let of_it = || {
            rows.iter()
                .filter(|(_, row)| row.committed && row.diff.as_ref() == Some(diff))
                .map(|(id, _)| *id)
        };
        if !of_it().any(|id| kept.contains(&id)) {
            roots.snapshots.extend(of_it().next());
        }
    }
    Ok(())
}

impl Images {
    pub(super) fn known_recipe(&self, blob: &Digest) -> Result<Option<Known>, ImageError> {
        let row: Option<(String, i64, Option<String>, bool)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT diff, size, recipe, away FROM layer_recipe WHERE blob = ?1")?
                .query_row([blob.as_str()], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                })
                .optional()
        })?;
        Ok(row.and_then(|(diff, size, recipe, away)| {
            Some(Known {
                diff: diff.parse().ok()?,
                size: u64::try_from(size).ok()?,
                recipe: recipe.and_then(|recipe| recipe.parse().ok()),
                away,
            })
        }))
    }

    /// Remembers what was found out about a blob; false if no image has it any more. From then on its file may go, if it is
    /// `away`.
    pub(super) fn record_recipe(&self, blob: &Digest, known: &Known) -> Result<bool, ImageError> {
        let changed = self.inner.store.db().write_durable::<_, store::DbError>(|tx| {
            let changed = tx
                .prepare_cached(
                    "INSERT OR REPLACE INTO layer_recipe (blob, diff, size, recipe, away)
                     SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM image_blob WHERE blob = ?1)",
                )?
                .execute((
                    blob.as_str(),
                    known.diff.as_str(),
                    i64::try_from(known.size).unwrap_or(i64::MAX),
                    known.recipe.as_ref().map(Digest::as_str),
                    known.away,
                ))?;
            Ok(changed)
        })?;
        if changed > 0 && known.away {
            let away = Away {
                size: known.size,
                recipe: known.recipe.clone(),
            };
            self.inner.store.content().say_away(blob, away);
        }
        Ok(changed > 0)
    }

    /// The blob is here only while its file is.
    pub(super) fn forget_recipe(&self, blob: &Digest) -> Result<(), ImageError> {
        self.inner.store.content().forget_away(blob);
        self.inner.store.db().write::<_, store::DbError>(|tx| {
            tx.prepare_cached("DELETE FROM layer_recipe WHERE blob = ?1")?
                .execute([blob.as_str()])?;
            Ok(())
        })?;
        Ok(())
    }

    /// The size of a compressed layer; none of other blobs.
    pub(super) fn layer_size(&self, blob: &Digest) -> Result<Option<u64>, ImageError> {
        let size: Option<i64> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT size FROM layer_blob WHERE blob = ?1 LIMIT 1")?
                .query_row([blob.as_str()], |row| row.get(0))
                .optional()
        })?;
        Ok(size.and_then(|size| u64::try_from(size).ok()))
    }

    /// The compressed forms of a layer that were ever here, with their sizes.
    pub(super) fn forms_of(&self, diff: &Digest) -> Result<Vec<(Digest, u64)>, ImageError> {
        let rows: Vec<(String, i64)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT blob, size FROM layer_blob WHERE diff = ?1 ORDER BY size")?
                .query_map([diff.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let parsed = rows
            .into_iter()
            .filter_map(|(blob, size)| Some((blob.parse().ok()?, u64::try_from(size).ok()?)));
        Ok(parsed.collect())
    }

    /// Where a blob was pulled from or pushed to.
    pub(super) fn origins(&self, blob: &Digest) -> Result<Vec<Reference>, ImageError> {
        let rows: Vec<(String, String)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT domain, path FROM blob_origin WHERE blob = ?1 ORDER BY domain, path")?
                .query_map([blob.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let parsed = rows
            .iter()
            .filter_map(|(domain, path)| Reference::parse_normalized(&format!("{domain}/{path}")).ok());
        Ok(parsed.collect())
    }
}
