//! Making a writable snapshot.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rusqlite::{OptionalExtension, Transaction};

use super::driver::{self, Below, Driver};
use super::{SnapshotError, SnapshotId, SnapshotInfo, Snapshots, recover, table};
use crate::failure::{Context, PathError};

/// The mode of `/` where no layer says otherwise.
pub(super) const ROOT_MODE: u32 = 0o755;

/// Who owns a snapshot that is being filled: nobody the next daemon knows.
const FILLING: &str = "filling:";

impl Snapshots {
    /// A new writable snapshot on top of the layer `parent`. Its root directory starts as the parent's: the
    /// upper's root is what a container sees as `/`.
    pub fn create(&self, parent: Option<SnapshotId>, owner: &str) -> Result<SnapshotId, SnapshotError> {
        self.create_by(self.inner.driver, parent, owner)
    }

    /// As [`Snapshots::create`], for one that is to hold only what it changes whatever the driver is: what it deletes
    /// matters to something else than its parent.
    pub fn create_changes(
        &self,
        parent: Option<SnapshotId>,
        owner: &str,
    ) -> Result<SnapshotId, SnapshotError> {
        self.create_by(driver::of(false), parent, owner)
    }

    fn create_by(
        &self,
        driver: &dyn Driver,
        parent: Option<SnapshotId>,
        owner: &str,
    ) -> Result<SnapshotId, SnapshotError> {
        let unfilled = parent.filter(|_| driver.whole());
        let first = if unfilled.is_some() { FILLING } else { owner };
        // The directories are made inside the transaction, so that a row is never seen without them; when it
        // fails after that, what was made is a leftover under a number that was never given out.
        let id = self.inner.db.write::<_, SnapshotError>(|tx| {
            if let Some(parent) = parent {
                check_parent(tx, parent)?;
            }
            tx.prepare_cached("INSERT INTO snapshot (parent, owner, filled) VALUES (?1, ?2, ?3)")?
                .execute((parent, first, driver.whole().then_some(0)))?;
            let id = SnapshotId(u64::try_from(tx.last_insert_rowid()).unwrap_or(0));
            if let Err(error) = self.make_directories(driver, &self.home(id), parent) {
                // The first error is the one to tell; the leftover also goes at the next start.
                if let Err(second) = self.inner.trash.dispose(&self.home(id)) {
                    tracing::warn!(error = %second, "a half-made snapshot stays until the next start");
                }
                return Err(error.into());
            }
            Ok(id)
        })?;
        let Some(below) = unfilled else { return Ok(id) };
        // Copying takes long: the row is there and nobody's until it is done. As its child it keeps the parent.
        let filled = self
            .fill(driver, &self.home(id), below, owner)
            .and_then(|filled| {
                self.inner.db.write(|tx| {
                    tx.prepare_cached("UPDATE snapshot SET owner = ?2, filled = ?3 WHERE id = ?1")?
                        .execute((id, owner, filled))?;
                    Ok(())
                })
            });
        if filled.is_err()
            && let Err(error) = self.remove(id)
        {
            tracing::warn!(%error, "a half-filled snapshot stays until the next start");
        }
        filled.map(|()| id)
    }

    /// Puts into `home` what is below; when it was done. On the disk before anybody relies on it if the owner outlives a
    /// power cut: nothing else tells a copy that the cut tore from a whole one.
    fn fill(
        &self,
        driver: &dyn Driver,
        home: &Path,
        below: SnapshotId,
        owner: &str,
    ) -> Result<i64, SnapshotError> {
        let below = Below {
            top: self.fs(below),
            tree: self.overlay(below)?,
        };
        let filled = driver.fill(home, &below)?;
        if recover::outlives_daemon(owner) {
            self.sync()?;
        }
        Ok(filled)
    }

    fn make_directories(
        &self,
        driver: &dyn Driver,
        home: &Path,
        parent: Option<SnapshotId>,
    ) -> Result<(), PathError> {
        match make(home, 0o700) {
            Err(error) if error.cause.kind() == io::ErrorKind::AlreadyExists => {
                self.inner.trash.dispose(home)?;
                make(home, 0o700)?;
            }
            other => other?,
        }
        driver.make(home, parent.map(|parent| self.fs(parent)).as_deref())
    }

    /// Makes the directories of a snapshot again that a power cut took.
    pub(super) fn make_directories_again(&self, row: &SnapshotInfo) -> Result<(), PathError> {
        self.inner.trash.dispose(&self.home(row.id))?;
        self.make_directories(driver::of(row.is_whole()), &self.home(row.id), row.parent)
    }

    /// Copies what is below into a whole writable snapshot again that a power cut took. It appears when it is complete:
    /// until then it counts as lost, and the next start begins anew.
    pub(super) fn fill_again(&self, row: &SnapshotInfo, below: SnapshotId) -> Result<(), SnapshotError> {
        let (driver, home) = (driver::of(true), self.home(row.id));
        let fresh = home.with_extension("again");
        self.make_directories(driver, &fresh, row.parent)?;
        let filled = self.fill(driver, &fresh, below, &row.owner);
        if filled.is_err()
            && let Err(error) = self.inner.trash.dispose(&fresh)
        {
            tracing::warn!(%error, "half a copy stays until the next start");
        }
        let filled = filled?;
        self.inner.trash.dispose(&home)?;
        fs::rename(&fresh, &home).at("rename", &fresh)?;
        self.inner.db.write(|tx| {
            tx.execute("UPDATE snapshot SET filled = ?2 WHERE id = ?1", (row.id, filled))?;
            Ok(())
        })
    }
}

pub(super) fn check_parent(tx: &Transaction<'_>, parent: SnapshotId) -> Result<(), SnapshotError> {
    let found = table::find(tx, parent)
        .optional()?
        .ok_or(SnapshotError::NotFound(parent))?;
    if found.committed {
        Ok(())
    } else {
        Err(SnapshotError::NotCommitted(parent))
    }
}

pub(super) fn make(path: &Path, mode: u32) -> Result<(), PathError> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .at("create directory", path)
}

/// Mode, owner, time and attributes of the parent's root, except what overlayfs keeps for itself there.
pub(super) fn copy_root(from: &Path, to: &Path) -> Result<(), PathError> {
    let meta: Metadata = fs::metadata(from).at("read", from)?;
    chown(to, Some(meta.uid()), Some(meta.gid())).at("set the owner of", to)?;
    let mode = Permissions::from_mode(meta.mode() & 0o7777);
    fs::set_permissions(to, mode).at("set the mode of", to)?;
    let source = fs::File::open(from).at("open", from)?;
    let target = fs::File::open(to).at("open", to)?;
    for (key, value) in sys::beneath::file_xattrs(source.as_fd()).at("read attributes of", from)? {
        if !key.as_bytes().starts_with(b"trusted.overlay.") {
            set_attribute(&target, &key, &value).at("set an attribute of", to)?;
        }
    }
    let time = meta.modified().at("read", from)?;
    target.set_modified(time).at("set the time of", to)
}

/// A filesystem that can not hold the attribute (a label of a module that is not loaded) goes without.
fn set_attribute(target: &fs::File, key: &OsStr, value: &[u8]) -> io::Result<()> {
    match sys::beneath::set_file_xattr(target.as_fd(), key, value) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        other => other,
    }
}
