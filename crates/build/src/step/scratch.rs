//! A writable snapshot that is removed unless it is committed.

use std::io;
use std::os::fd::OwnedFd;

use image::layer::{DiffOptions, apply_part, diff_part};
use rustix::fs::Mode;
use spec::ErrorClass;
use store::{SnapshotId, Store};
use sys::beneath::DIRECTORY;
use sys::mount::Overlay;

use crate::error::BuildError;

/// A writable snapshot of a running step.
pub struct Scratch {
    store: Store,
    id: Option<SnapshotId>,
}

impl Scratch {
    /// A new one on top of `parent`, owned by the build `build`; none while the disk is nearly full.
    pub fn create(store: &Store, parent: Option<SnapshotId>, build: &str) -> Result<Scratch, BuildError> {
        store.room().check()?;
        let id = store.snapshots().create(parent, &format!("build:{build}"))?;
        Ok(Scratch {
            store: store.clone(),
            id: Some(id),
        })
    }

    /// The same, which holds only what it changes whatever the store's driver is: for what is to be laid over something
    /// else than `parent`.
    pub fn create_changes(
        store: &Store,
        parent: Option<SnapshotId>,
        build: &str,
    ) -> Result<Scratch, BuildError> {
        store.room().check()?;
        let id = store
            .snapshots()
            .create_changes(parent, &format!("build:{build}"))?;
        Ok(Scratch {
            store: store.clone(),
            id: Some(id),
        })
    }

    /// Puts what the layer `layer` changes in those below it into this one.
    pub fn lay(&self, layer: SnapshotId, options: DiffOptions) -> Result<(), BuildError> {
        let snapshots = self.store.snapshots();
        let (from, into) = (snapshots.part(layer)?, snapshots.part(self.id()?)?);
        let (reader, writer) =
            io::pipe().map_err(|error| BuildError::io("making a pipe between layers", &error))?;
        let (read, applied) = std::thread::scope(|scope| {
            let read = scope.spawn(move || diff_part(&from, writer, options));
            let applied = apply_part(reader, &into);
            (read.join(), applied)
        });
        let failed = |error: image::layer::LayerError| {
            BuildError::step(
                format!("putting a layer on another: {error}"),
                ErrorClass::Internal,
            )
        };
        applied.map_err(failed)?;
        match read {
            Ok(read) => read.map_err(failed),
            Err(_) => Err(BuildError::step(
                "reading a layer ended unexpectedly",
                ErrorClass::Internal,
            )),
        }
    }

    pub fn id(&self) -> Result<SnapshotId, BuildError> {
        self.id.ok_or(BuildError::Cancelled)
    }

    /// The merged tree, mounted nowhere, to be changed through the descriptor.
    pub fn mount(&self) -> Result<OwnedFd, BuildError> {
        mount(&self.store, self.id()?)
    }

    /// The directory that holds what it changes. To be written to only while it is mounted nowhere, and where nothing shows from
    /// below.
    pub fn directory(&self) -> Result<OwnedFd, BuildError> {
        let path = self.store.snapshots().fs(self.id()?);
        rustix::fs::open(&path, DIRECTORY, Mode::empty())
            .map_err(|error| BuildError::io(format_args!("opening {}", path.display()), &error.into()))
    }

    /// Makes it a layer, in place. `hold` is called with it before anything else could collect it.
    pub fn commit(mut self, hold: impl FnOnce(SnapshotId)) -> Result<SnapshotId, BuildError> {
        let id = self.id()?;
        hold(id);
        let committed = self.store.snapshots().commit(id, None, None)?;
        self.id = None;
        Ok(committed)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(id) = self.id.take()
            && let Err(error) = self.store.snapshots().remove(id)
        {
            tracing::warn!(%error, snapshot = %id, "a build's snapshot stays until the next start");
        }
    }
}

/// What to mount to see a snapshot. What a step writes need not be on the disk when it ends: a layer is trusted after a
/// crash of the machine only if the store has synced it since.
pub fn volatile(store: &Store, snapshot: SnapshotId) -> Result<Overlay, BuildError> {
    Ok(Overlay {
        volatile: true,
        ..store.snapshots().overlay(snapshot)?
    })
}

/// The tree of a snapshot, mounted nowhere.
pub fn mount(store: &Store, snapshot: SnapshotId) -> Result<OwnedFd, BuildError> {
    volatile(store, snapshot)?
        .mount_detached()
        .map_err(|error| BuildError::io(format_args!("mounting snapshot {snapshot}"), &error))
}
