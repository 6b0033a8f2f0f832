//! Layers that are not what they were: their files are gone, or what they share holds something else.
//!
//! Nothing finds such a layer by its chain ID or diff ID any more, so an image unpacks it again. Whoever knows snapshots as the
//! results of something else (steps of builds) hears of it in the same transaction and forgets them.

use std::io::Read;
use std::sync::Arc;

use rusqlite::Transaction;

use super::{SnapshotError, SnapshotId, SnapshotInfo, Snapshots};
use crate::failure::Context;
use crate::stop::Stop;

/// In place of the boot in which a layer was written: its files are gone. It is never settled.
pub(super) const LOST: &str = "lost";

/// Told, inside the transaction, of layers that are not what they were, and of what lies on them.
pub type Doubt = dyn Fn(&Transaction<'_>, &[SnapshotId]) -> rusqlite::Result<()> + Send + Sync;

impl Snapshots {
    /// Who is told of layers that are not what they were. The first one stays.
    pub fn doubt_with(&self, doubt: Arc<Doubt>) {
        // A second one would be of another owner of the same store, which there is not.
        let _ = self.inner.doubt.set(doubt);
    }

    /// Has these layers, and all on top of them, forgotten as results. Images that have them keep them.
    pub fn doubt(&self, layers: &[SnapshotId]) -> Result<(), SnapshotError> {
        self.inner.db.write(|tx| Ok(self.tell(tx, layers)?))
    }

    fn tell(&self, tx: &Transaction<'_>, layers: &[SnapshotId]) -> rusqlite::Result<()> {
        let Some(doubt) = self.inner.doubt.get() else {
            return Ok(());
        };
        let mut above = tx.prepare_cached(
            "WITH RECURSIVE doubted (id) AS (
                 VALUES (?1)
                 UNION
                 SELECT snapshot.id FROM snapshot JOIN doubted ON snapshot.parent = doubted.id
             )
             SELECT id FROM doubted",
        )?;
        for layer in layers {
            let all: Vec<SnapshotId> = above
                .query_map([layer], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            doubt(tx, &all)?;
        }
        Ok(())
    }

    /// Forgets what a layer is whose files are gone, and all on top of it: they are unpacked again when they are needed. At the
    /// start nobody can be told yet; then what the row says tells it (`boot`).
    pub(super) fn distrust(&self, layer: SnapshotId) -> Result<(), SnapshotError> {
        self.inner.db.write(|tx| {
            tx.execute(
                "WITH RECURSIVE lost (id) AS (
                     VALUES (?1)
                     UNION
                     SELECT snapshot.id FROM snapshot JOIN lost ON snapshot.parent = lost.id
                 )
                 UPDATE snapshot SET chain = NULL, bytes = NULL, inodes = NULL
                 WHERE id IN (SELECT id FROM lost)",
                [layer],
            )?;
            // Nor is it what anything is made again of.
            tx.execute(
                "UPDATE snapshot SET diff = NULL, settled = 0, boot = ?2 WHERE id = ?1",
                (layer, LOST),
            )?;
            Ok(self.tell(tx, &[layer])?)
        })
    }

    /// Reads what layers share; the objects whose content is not what their name says. `stop` ends it.
    pub fn damaged_objects(&self, stop: &Stop<'_>) -> Result<Vec<String>, SnapshotError> {
        Ok(self.inner.objects.damaged(stop)?)
    }

    /// The layers that have an object.
    pub fn holders(&self, object: &str) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let mut layers = Vec::new();
        for row in self.list()?.into_iter().filter(|row| row.committed) {
            let home = self.home(row.id);
            let held = self.inner.objects.is_held(&home, object);
            if held.at("read what is shared by", &home)? {
                layers.push(row);
            }
        }
        Ok(layers)
    }

    /// Looks at an object once more, and if it is damaged, marks it: from then on the next layer that has the file puts it
    /// right, and so does [`Snapshots::offer_content`]. False where it is as it should be.
    pub fn mark_damaged(&self, object: &str, stop: &Stop<'_>) -> Result<bool, SnapshotError> {
        Ok(self.inner.objects.mark(object, stop)?)
    }

    /// Puts `content` into a damaged object, for every layer that has it and every container that reads it, if it is that
    /// object's content; whether it is.
    pub fn offer_content(&self, object: &str, content: impl Read) -> Result<bool, SnapshotError> {
        Ok(self.inner.objects.offer(object, content)?)
    }
}
