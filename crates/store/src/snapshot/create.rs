//! Making a writable snapshot.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rusqlite::{OptionalExtension, Transaction};

use super::{SnapshotError, SnapshotId, Snapshots, table};
use crate::failure::{Context, PathError};

/// The mode of `/` where no layer says otherwise.
const ROOT_MODE: u32 = 0o755;

impl Snapshots {
    /// A new writable snapshot on top of the layer `parent`. Its root directory starts as the parent's: the
    /// upper's root is what a container sees as `/`.
    pub fn create(&self, parent: Option<SnapshotId>, owner: &str) -> Result<SnapshotId, SnapshotError> {
        // The directories are made inside the transaction, so that a row is never seen without them; when it
        // fails after that, what was made is a leftover under a number that was never given out.
        self.inner.db.write(|tx| {
            if let Some(parent) = parent {
                check_parent(tx, parent)?;
            }
            tx.prepare_cached("INSERT INTO snapshot (parent, owner) VALUES (?1, ?2)")?
                .execute((parent, owner))?;
            let id = SnapshotId(u64::try_from(tx.last_insert_rowid()).unwrap_or(0));
            if let Err(error) = self.make_directories(id, parent) {
                // The first error is the one to tell; the leftover also goes at the next start.
                if let Err(second) = self.inner.trash.dispose(&self.home(id)) {
                    tracing::warn!(error = %second, "a half-made snapshot stays until the next start");
                }
                return Err(error.into());
            }
            Ok(id)
        })
    }

    fn make_directories(&self, id: SnapshotId, parent: Option<SnapshotId>) -> Result<(), PathError> {
        let home = self.home(id);
        match make(&home, 0o700) {
            Err(error) if error.cause.kind() == io::ErrorKind::AlreadyExists => {
                self.inner.trash.dispose(&home)?;
                make(&home, 0o700)?;
            }
            other => other?,
        }
        let fs = self.fs(id);
        make(&fs, ROOT_MODE)?;
        make(&self.work(id), 0o700)?;
        match parent {
            Some(parent) => copy_root(&self.fs(parent), &fs),
            // Against an unusual umask.
            None => fs::set_permissions(&fs, Permissions::from_mode(ROOT_MODE)).at("set the mode of", &fs),
        }
    }

    /// Makes the directories of a writable snapshot again that a power cut took.
    pub(super) fn make_directories_again(
        &self,
        id: SnapshotId,
        parent: Option<SnapshotId>,
    ) -> Result<(), PathError> {
        self.inner.trash.dispose(&self.home(id))?;
        self.make_directories(id, parent)
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

fn make(path: &Path, mode: u32) -> Result<(), PathError> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .at("create directory", path)
}

/// Mode, owner, time and attributes of the parent's root, except what overlayfs keeps for itself there.
fn copy_root(from: &Path, to: &Path) -> Result<(), PathError> {
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
