//! Which image another was committed from.
//!
//! The parent is a note and keeps nothing alive: the child has all layers by itself. It counts where people look at
//! images (`inspect`, `history`) and where they remove them: a parent that loses its last name stays as long as it has
//! children, and goes with the last of them, as with Docker.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, Transaction};
use spec::Digest;
use store::rusqlite;

use crate::error::ImageError;
use crate::images::Images;

/// Notes the parent of a registered image.
pub(crate) fn record(tx: &Transaction<'_>, image: &Digest, parent: &Digest) -> rusqlite::Result<()> {
    tx.execute(
        "UPDATE image SET parent = ?2 WHERE digest = ?1",
        (image.as_str(), parent.as_str()),
    )?;
    Ok(())
}

/// The parent as it was noted.
pub(crate) fn parent_in(db: &Connection, image: &Digest) -> rusqlite::Result<Option<Digest>> {
    let parent: Option<Option<String>> = db
        .prepare_cached("SELECT parent FROM image WHERE digest = ?1")?
        .query_row([image.as_str()], |row| row.get(0))
        .optional()?;
    Ok(parent.flatten().and_then(|parent| parent.parse().ok()))
}

impl Images {
    /// What `image` was committed from, whether or not that is still here.
    pub fn parent_of(&self, image: &Digest) -> Result<Option<Digest>, ImageError> {
        Ok(self.inner.store.db().read(|db| parent_in(db, image))?)
    }

    /// The ID under which an image is known to people; its digest where it is not here.
    pub(crate) fn shown(&self, image: &Digest) -> Result<Digest, ImageError> {
        let target = self.target(image)?;
        Ok(target.map_or_else(|| image.clone(), |target| self.id_of(&target)))
    }

    /// The images here that were committed from `image`.
    pub fn children_of(&self, image: &Digest) -> Result<Vec<Digest>, ImageError> {
        let children: Vec<String> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT digest FROM image WHERE parent = ?1 ORDER BY registered")?
                .query_map([image.as_str()], |row| row.get(0))?
                .collect()
        })?;
        Ok(children.iter().filter_map(|child| child.parse().ok()).collect())
    }

    /// The parent of every image that has one.
    pub(crate) fn all_parents(&self) -> Result<HashMap<Digest, Digest>, ImageError> {
        let rows: Vec<(String, String)> = self.inner.store.db().read(|db| {
            db.prepare_cached("SELECT digest, parent FROM image WHERE parent IS NOT NULL")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        let parsed = rows
            .iter()
            .filter_map(|(image, parent)| Some((image.parse().ok()?, parent.parse().ok()?)));
        Ok(parsed.collect())
    }
}
