//! Turning a writable snapshot into a layer, and giving a layer its name.

use rusqlite::{OptionalExtension, Transaction};
use spec::Digest;

use super::create::check_parent;
use super::{SnapshotError, SnapshotId, Snapshots, table};
use crate::objects::How;

/// How many layers of a stack share files, from the lowest: all that do are in one overlay, which takes 500 with that of the
/// objects. Images may have a few more.
const MOST_SHARING: usize = 490;

impl Snapshots {
    /// Makes the snapshot a layer. When a layer with this chain ID exists already (somebody else unpacked the
    /// same one meanwhile), this one is dropped and the existing one is the answer.
    ///
    /// A power cut may take the row as it may take the layer's files: then it is unpacked again. What names a layer is
    /// written durably, and that makes this durable as well.
    pub fn commit(
        &self,
        id: SnapshotId,
        chain: Option<&Digest>,
        diff: Option<&Digest>,
    ) -> Result<SnapshotId, SnapshotError> {
        self.finish(id, None, chain, diff)
    }

    /// As [`Snapshots::commit`], for one that was created without a parent because its parent was not a layer yet. Its
    /// root directory is the caller's to make like the parent's.
    pub fn commit_on(
        &self,
        id: SnapshotId,
        parent: SnapshotId,
        chain: Option<&Digest>,
        diff: Option<&Digest>,
    ) -> Result<SnapshotId, SnapshotError> {
        self.finish(id, Some(parent), chain, diff)
    }

    fn finish(
        &self,
        id: SnapshotId,
        parent: Option<SnapshotId>,
        chain: Option<&Digest>,
        diff: Option<&Digest>,
    ) -> Result<SnapshotId, SnapshotError> {
        self.share(id, parent, chain)?;
        let kept = self.inner.db.write(|tx| {
            let info = table::find(tx, id)
                .optional()?
                .ok_or(SnapshotError::NotFound(id))?;
            if info.committed {
                return Err(SnapshotError::AlreadyCommitted(id));
            }
            if let Some(existing) = holder(tx, chain)? {
                tx.execute("DELETE FROM snapshot WHERE id = ?1", [id])?;
                return Ok(existing);
            }
            if let Some(parent) = parent {
                check_parent(tx, parent)?;
            }
            tx.execute(
                "UPDATE snapshot SET committed = 1, parent = ifnull(?5, parent), chain = ?2, diff = ?3, boot = ?4 \
                 WHERE id = ?1",
                (id, chain.map(Digest::as_str), diff.map(Digest::as_str), &self.inner.boot, parent),
            )?;
            Ok(id)
        })?;
        // From here on the answer stands; what can not be cleared away now goes at the next start.
        let leftover = if kept == id { self.work(id) } else { self.home(id) };
        if let Err(error) = self.inner.trash.dispose(&leftover) {
            tracing::warn!(%error, "a directory of a committed snapshot stays until the next start");
        }
        if kept == id {
            self.settle_soon();
        }
        Ok(kept)
    }

    /// Has the files of what is to become a layer kept once with those of others.
    fn share(
        &self,
        id: SnapshotId,
        parent: Option<SnapshotId>,
        chain: Option<&Digest>,
    ) -> Result<(), SnapshotError> {
        let info = self.get(id)?;
        let known = chain.is_some_and(|chain| self.by_chain(chain).is_some());
        let possible = self.inner.dedup.is_some() || self.inner.objects.is_there();
        if info.committed || info.is_whole() || known || !possible {
            return Ok(());
        }
        let below = match parent.or(info.parent) {
            Some(parent) => self.stack(parent)?.len(),
            None => 0,
        };
        let how = match self.inner.dedup {
            // What is linked from other layers is shared whatever the setting is now.
            _ if below >= MOST_SHARING => How::Whole,
            Some(from) => How::From(from),
            None => How::AsTheyAre,
        };
        self.inner.objects.share(&self.home(id), &self.fs(id), how)?;
        Ok(())
    }

    /// Gives layers their chain IDs and diff IDs once they are known. When another layer has one of the chain IDs, the layer
    /// stays without, and the other one is the answer.
    pub fn label_chains(&self, labels: &[Label]) -> Result<Vec<SnapshotId>, SnapshotError> {
        if labels.is_empty() {
            return Ok(Vec::new());
        }
        let label = |tx: &Transaction<'_>, label: &Label| {
            let id = label.id;
            let info = table::find(tx, id)
                .optional()?
                .ok_or(SnapshotError::NotFound(id))?;
            if !info.committed {
                return Err(SnapshotError::NotCommitted(id));
            }
            let chain_holder = holder(tx, Some(&label.chain))?.filter(|holder| *holder != id);
            let chain = chain_holder.is_none().then_some(label.chain.as_str());
            tx.execute(
                "UPDATE snapshot SET chain = ifnull(?2, chain), diff = ?3 WHERE id = ?1",
                (id, chain, label.diff.as_str()),
            )?;
            Ok(chain_holder.unwrap_or(id))
        };
        self.inner
            .db
            .write(|tx| labels.iter().map(|one| label(tx, one)).collect())
    }
}

/// What a layer is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub id: SnapshotId,
    pub chain: Digest,
    pub diff: Digest,
}

fn holder(tx: &Transaction<'_>, chain: Option<&Digest>) -> Result<Option<SnapshotId>, SnapshotError> {
    let Some(chain) = chain else { return Ok(None) };
    let found = tx
        .query_row(
            "SELECT id FROM snapshot WHERE chain = ?1",
            [chain.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    Ok(found)
}
