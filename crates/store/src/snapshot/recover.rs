//! After a crash: rows and directories are brought together again, when the root is opened and when somebody asks.
//!
//! - A writable snapshot whose owner died with the daemon goes.
//! - A directory without a row goes; so does the work directory of a layer.
//! - A layer whose files may not have reached the disk before a power cut loses its chain ID, and so does
//!   everything on top of it: it is unpacked again when needed, and collected when nothing refers to it. What it shares is
//!   read once, and what is damaged is shared no more.
//! - A writable snapshot that lost its directory to a power cut begins anew, as it was created, so that its container
//!   can be inspected, started and removed.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::{SnapshotError, SnapshotId, SnapshotInfo, Snapshots};
use crate::failure::Context;

/// A row and a directory that do not belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stray {
    /// A directory without a row.
    Directory(PathBuf),
    /// A row without a directory.
    Lost(SnapshotId),
    /// What layers shared once, and no layer has.
    Object(String),
    /// What a layer shares and nobody finds under its name.
    LostObject { layer: SnapshotId, object: String },
}

impl Snapshots {
    pub(super) fn recover(&self) -> Result<(), SnapshotError> {
        self.make_empty()?;
        self.remove_ownerless()?;
        self.distrust_torn()?;
        let rows = self.list()?;
        self.remove_strays(&rows)?;
        self.restore_missing(&rows)?;
        let (objects, boot) = (&self.inner.objects, &self.inner.boot);
        if !objects.is_of_boot(boot) {
            self.inner.trash.release_names()?;
            if let Err(error) = objects.note_boot(boot) {
                tracing::warn!(%error, "the next start looks at what removed layers share once more");
            }
        }
        Ok(())
    }

    fn make_empty(&self) -> Result<(), SnapshotError> {
        let path = self.empty();
        match DirBuilder::new().mode(0o755).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Ok(Err(error).at("create directory", &path)?)
            }
            _ => Ok(()),
        }
    }

    fn remove_ownerless(&self) -> Result<(), SnapshotError> {
        let doomed: Vec<SnapshotId> = self
            .list()?
            .into_iter()
            .filter(|row| !row.committed && !outlives_daemon(&row.owner))
            .map(|row| row.id)
            .collect();
        if doomed.is_empty() {
            return Ok(());
        }
        // Writable snapshots have no children. Their directories have no row after this and go with the strays.
        self.inner.db.write(|tx| {
            for id in &doomed {
                tx.execute("DELETE FROM snapshot WHERE id = ?1", [id])?;
            }
            Ok(())
        })
    }

    fn distrust_torn(&self) -> Result<(), SnapshotError> {
        let boot = &self.inner.boot;
        // First what they share, so that no layer to come takes it: after a crash in between it is done again.
        let torn: Vec<SnapshotId> = self.inner.db.read(|db| {
            db.prepare(
                // Layers of build steps have no chain ID, and others take what they share as well.
                "SELECT id FROM snapshot WHERE committed = 1 AND settled = 0 AND boot <> ?1",
            )?
            .query_map([boot], |row| row.get(0))?
            .collect()
        })?;
        for id in torn {
            self.inner.objects.forget_damaged(&self.home(id))?;
        }
        self.inner.db.write(|tx| {
            let changed = tx.execute(
                "WITH RECURSIVE torn (id) AS (
                     SELECT id FROM snapshot WHERE committed = 1 AND settled = 0 AND boot <> ?1
                     UNION
                     SELECT snapshot.id FROM snapshot JOIN torn ON snapshot.parent = torn.id
                 )
                 UPDATE snapshot SET chain = NULL
                 WHERE chain IS NOT NULL AND id IN (SELECT id FROM torn)",
                [boot],
            )?;
            // Nor is it what anything is made again of. Those above lie on it, and are what they were all the same.
            tx.execute(
                "UPDATE snapshot SET diff = NULL WHERE committed = 1 AND settled = 0 AND boot <> ?1",
                [boot],
            )?;
            if changed != 0 {
                tracing::warn!(
                    layers = changed,
                    "layers were written shortly before the machine went down; they are unpacked again"
                );
            }
            Ok(())
        })
    }

    /// What is wrong now. A busy store makes and removes snapshots all the time, directories first and rows first: what
    /// counts is what is still so when asked again.
    pub fn strays(&self) -> Result<Vec<Stray>, SnapshotError> {
        // Directories first: one that is made meanwhile has its row by the time the rows are read.
        let directories = self.numbered_directories()?;
        let rows = self.list()?;
        let known: HashSet<SnapshotId> = rows.iter().map(|row| row.id).collect();
        let mut strays: Vec<Stray> = directories
            .into_iter()
            .filter(|(id, _)| !known.contains(id))
            .map(|(_, path)| Stray::Directory(path))
            .collect();
        let lost = rows.iter().filter(|row| !self.fs(row.id).is_dir());
        strays.extend(lost.map(|row| Stray::Lost(row.id)));
        let objects = &self.inner.objects;
        let unheld = objects
            .unheld()
            .at("look for what no layer has in", &objects.files())?;
        strays.extend(unheld.into_iter().map(Stray::Object));
        for row in rows.iter().filter(|row| row.committed) {
            let home = self.home(row.id);
            let lost = objects.lost(&home).at("read what is shared by", &home)?;
            strays.extend(lost.into_iter().map(|object| Stray::LostObject {
                layer: row.id,
                object,
            }));
        }
        Ok(strays)
    }

    /// Removes a directory that is nobody's; makes a snapshot that lost its files anew as it began, and forgets what a
    /// layer was.
    pub fn repair(&self, stray: &Stray) -> Result<(), SnapshotError> {
        match stray {
            Stray::Directory(path) => {
                self.inner.trash.dispose(path)?;
                Ok(())
            }
            Stray::Lost(id) => self.restore(&self.get(*id)?),
            Stray::Object(_) => {
                self.inner.objects.sweep()?;
                Ok(())
            }
            Stray::LostObject { layer, object } => {
                Ok(self.inner.objects.put_back(&self.home(*layer), object)?)
            }
        }
    }

    fn numbered_directories(&self) -> Result<Vec<(SnapshotId, PathBuf)>, SnapshotError> {
        let dir = &self.inner.dir;
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).at("read", dir)? {
            let entry = entry.at("read", dir)?;
            if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                found.push((SnapshotId(id), entry.path()));
            }
        }
        Ok(found)
    }

    fn remove_strays(&self, rows: &[SnapshotInfo]) -> Result<(), SnapshotError> {
        let known: HashSet<SnapshotId> = rows.iter().map(|row| row.id).collect();
        for (id, path) in self.numbered_directories()? {
            if !known.contains(&id)
                && let Some(discarded) = self.inner.trash.discard(&path)?
            {
                // Deleted by whoever empties the trash after the start.
                drop(discarded);
            }
        }
        for row in rows.iter().filter(|row| row.committed) {
            let work = self.work(row.id);
            if work.exists() {
                self.inner.trash.dispose(&work)?;
            }
        }
        Ok(())
    }

    fn restore_missing(&self, rows: &[SnapshotInfo]) -> Result<(), SnapshotError> {
        rows.iter()
            .filter(|row| !self.fs(row.id).is_dir())
            .try_for_each(|row| self.restore(row))
    }

    /// Makes what is lost of a snapshot and of those below it again, the lowest first: each begins as the one below it. Those
    /// may have higher numbers, since the layers of an image are unpacked side by side.
    fn restore(&self, row: &SnapshotInfo) -> Result<(), SnapshotError> {
        let mut lost = Vec::new();
        let mut next = Some(row.clone());
        while let Some(row) = next {
            next = row.parent.map(|below| self.get(below)).transpose()?;
            if !self.fs(row.id).is_dir() {
                lost.push(row);
            }
        }
        lost.iter().rev().try_for_each(|row| self.restore_one(row))
    }

    fn restore_one(&self, row: &SnapshotInfo) -> Result<(), SnapshotError> {
        tracing::warn!(snapshot = %row.id, owner = row.owner, "the files of a snapshot are lost");
        if !row.committed
            && row.is_whole()
            && let Some(below) = row.parent
        {
            match self.fill_again(row, below) {
                Ok(()) => return Ok(()),
                // A full disk, most likely: the daemon starts nevertheless, and the container can be removed.
                Err(error) => {
                    tracing::warn!(snapshot = %row.id, %error, "what is below cannot be copied again");
                }
            }
        }
        self.make_directories_again(row)?;
        if !row.committed {
            return Ok(());
        }
        self.distrust(row.id)
    }
}

/// Whether a writable snapshot of this owner is of use to the next daemon.
pub(super) fn outlives_daemon(owner: &str) -> bool {
    ["container:", "cache:", "build:cache"]
        .iter()
        .any(|prefix| owner.starts_with(prefix))
}

/// Names this boot of the machine. Without /proc every boot looks like this one.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}
