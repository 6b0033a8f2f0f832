//! The image store: what is shared by all operations, and its tables.
//!
//! ```text
//!   image           one row per target, with what it was committed from; its names, blobs and snapshots hang from it
//!   image_name      canonical name -> target; the one place where names live
//!   image_blob      every blob an image needs: the roots of garbage collection
//!   image_snapshot  the top layer of each unpacked manifest
//!   layer_blob      diff ID -> compressed forms known, so that a layer is compressed once
//!   blob_origin     where a blob was pulled from or pushed to, for mounts across repositories
//!   upload          where a registry takes the rest of a blob whose push was cut short
//!   layer_recipe    compressed layers whose files may be missing, and how they are had again
//! ```
//!
//! `layer_blob`, `blob_origin` and `upload` are hints: rows may outlive their blobs, and whoever uses one asks the content
//! store first.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Transaction;
use store::{Roots, Store, rusqlite};

use crate::chain::ChainLocks;
use crate::document::Documents;
use crate::download::Downloads;
use crate::error::ImageError;
use crate::logins::Logins;
use crate::recipe;

const STEPS: &[&str] = &[
    "
    CREATE TABLE image (
        digest TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        registered INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE image_name (
        name TEXT PRIMARY KEY,
        digest TEXT NOT NULL REFERENCES image (digest) ON DELETE CASCADE,
        tagged INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX image_name_digest ON image_name (digest);
    CREATE TABLE image_blob (
        image TEXT NOT NULL REFERENCES image (digest) ON DELETE CASCADE,
        blob TEXT NOT NULL,
        PRIMARY KEY (image, blob)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE image_snapshot (
        image TEXT NOT NULL REFERENCES image (digest) ON DELETE CASCADE,
        manifest TEXT NOT NULL,
        snapshot INTEGER NOT NULL,
        PRIMARY KEY (image, manifest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE layer_blob (
        diff TEXT NOT NULL,
        blob TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (diff, blob)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE blob_origin (
        blob TEXT NOT NULL,
        domain TEXT NOT NULL,
        path TEXT NOT NULL,
        PRIMARY KEY (blob, domain, path)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE upload (
        blob TEXT NOT NULL,
        domain TEXT NOT NULL,
        path TEXT NOT NULL,
        location TEXT NOT NULL,
        PRIMARY KEY (blob, domain, path)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE image ADD COLUMN parent TEXT;
    CREATE INDEX image_parent ON image (parent);
",
    recipe::STEP,
];

/// Says what else must be kept, inside the transaction of a garbage collection.
pub(crate) type RootSource = Arc<dyn Fn(&Transaction<'_>) -> rusqlite::Result<Roots> + Send + Sync>;

/// The images of one data root. Clones share everything.
#[derive(Clone)]
pub struct Images {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub store: Store,
    pub registry: registry::Client,
    pub documents: Documents,
    pub downloads: Downloads,
    pub max_uploads: AtomicUsize,
    /// Bytes of one layer, unpacked.
    pub max_layer: AtomicU64,
    /// Users know images by their configurations.
    pub config_ids: AtomicBool,
    pub chains: ChainLocks,
    /// Of blobs that are brought back. Not those of chains: whoever unpacks a layer holds its chain, which has the digest of
    /// the blob where the lowest layer is not compressed.
    pub bringing: ChainLocks,
    /// Drives downloads for threads that are none of the runtime's.
    pub runtime: Option<tokio::runtime::Handle>,
    pub logins: Logins,
    pub roots: Mutex<Vec<RootSource>>,
    /// An image came, or what it is made of was used.
    pub changed: Arc<tokio::sync::Notify>,
}

impl Images {
    /// Opens the image store of `store` and brings its tables up to date.
    pub fn open(store: Store, registry: registry::Client) -> Result<Images, ImageError> {
        store.db().migrate("image", STEPS)?;
        recipe::load(&store)?;
        let inner = Arc::new(Inner {
            store,
            registry,
            documents: Documents::default(),
            downloads: Downloads::default(),
            max_uploads: AtomicUsize::new(crate::MAX_UPLOADS),
            max_layer: AtomicU64::new(crate::MAX_LAYER),
            config_ids: AtomicBool::new(false),
            chains: ChainLocks::default(),
            bringing: ChainLocks::default(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            logins: Logins::default(),
            roots: Mutex::default(),
            changed: Arc::default(),
        });
        inner.store.content().bring_with(recipe::bringer(&inner));
        inner.store.keep_dependents(recipe::dependents(&inner));
        Ok(Images { inner })
    }

    /// The store the images live in.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// The registry client pulls and pushes go through.
    pub fn registry(&self) -> &registry::Client {
        &self.inner.registry
    }

    /// Has `source` asked, at every garbage collection, what must be kept beside images.
    pub fn keep_also(
        &self,
        source: impl Fn(&Transaction<'_>) -> rusqlite::Result<Roots> + Send + Sync + 'static,
    ) {
        self.inner
            .roots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::new(source));
    }

    /// Notified after an image was registered, and when one was pushed or saved: then compressed layers may be on the disk
    /// that need not be ([`Images::reduce`]).
    pub fn changed(&self) -> Arc<tokio::sync::Notify> {
        Arc::clone(&self.inner.changed)
    }

    /// How many layers are downloaded at once, over all pulls (3 unless changed).
    pub fn set_max_downloads(&self, most: usize) {
        self.inner.downloads.set_most(most);
    }

    /// How many blobs each push uploads at once (5 unless changed).
    pub fn set_max_uploads(&self, most: usize) {
        self.inner
            .max_uploads
            .store(most.max(1), std::sync::atomic::Ordering::Relaxed);
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

/// The time now as image documents write it.
pub(crate) fn now_text() -> String {
    jiff::Timestamp::now().to_string()
}
