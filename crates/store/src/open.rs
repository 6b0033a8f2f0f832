//! Opening a data root: the lock, the directories, the database, and the removal of what a crash left.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use spec::ErrorClass;

use crate::content::Content;
use crate::db::{Db, DbError};
use crate::failure::{Context, PathError};
use crate::lease::Leases;
use crate::lock::RootLock;
use crate::objects::Objects;
use crate::room::Room;
use crate::snapshot::{SnapshotError, Snapshots, StorageDriver};
use crate::trash::Trash;
use crate::{Inner, Store};

/// A data root could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon has it.
    #[error(
        "the data root {} is in use by another daemon{}; stop that one or choose another --data-root",
        root.display(),
        holder.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Locked { root: PathBuf, holder: Option<u32> },
    /// A file operation failed.
    #[error(transparent)]
    Io(#[from] PathError),
    /// The database could not be opened or brought up to date.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The snapshots could not be put in order.
    #[error(transparent)]
    Snapshots(#[from] SnapshotError),
}

impl OpenError {
    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        match self {
            OpenError::Locked { .. } => ErrorClass::Conflict,
            OpenError::Io(error) => error.class(),
            OpenError::Db(error) => error.class(),
            OpenError::Snapshots(error) => error.class(),
        }
    }
}

/// How a store keeps what it is given from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    pub driver: StorageDriver,
    /// Equal files of layers are kept once if they have at least so many bytes. Refused where the driver, the kernel or the
    /// filesystem cannot.
    pub dedup: Option<u64>,
}

/// Smaller files may stay in their layers: each one shared takes an inode and two names more.
pub const DEDUP_FROM: u64 = 512;

impl Store {
    /// [`Store::open_with`] the driver that suits.
    pub fn open(root: &Path) -> Result<Store, OpenError> {
        Store::open_with(root, StorageDriver::Auto)
    }

    /// [`Store::open_as`] with this driver.
    pub fn open_with(root: &Path, driver: StorageDriver) -> Result<Store, OpenError> {
        let dedup = None;
        Store::open_as(root, Options { driver, dedup })
    }

    /// Takes the data root `root`, creating it if needed, and removes what a crash left there.
    pub fn open_as(root: &Path, options: Options) -> Result<Store, OpenError> {
        if !root.is_dir() {
            create(root, 0o711)?;
        }
        let root = root.canonicalize().at("resolve", root)?;
        let lock = RootLock::take(&root)?;
        // Layers hold setuid programs and other people's files under guessable names: nobody but the engine
        // gets below these (compare CVE-2021-41091).
        for name in ["content", "snapshots", "trash"] {
            let path = root.join(name);
            create(&path, 0o700)?;
            fs::set_permissions(&path, Permissions::from_mode(0o700)).at("protect", &path)?;
        }
        let objects = Objects::of_root(&root);
        let trash = Trash::open(root.join("trash"), objects.clone())?;
        let db = Arc::new(Db::open(&root.join("meta.db"))?);
        let room = Room::new(&root);
        let content = Content::create(&root.join("content"), trash.clone(), room.clone())?;
        let snapshots = Snapshots::open(
            root.join("snapshots"),
            Arc::clone(&db),
            trash.clone(),
            objects,
            options,
        )?;
        Ok(Store {
            inner: Arc::new(Inner {
                root,
                db,
                content,
                snapshots,
                leases: Arc::new(Leases::default()),
                trash,
                room,
                dependents: std::sync::OnceLock::new(),
                _lock: lock,
            }),
        })
    }
}

fn create(path: &Path, mode: u32) -> Result<(), PathError> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .at("create directory", path)
}
