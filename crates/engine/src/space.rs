//! Every byte below the data root, with what it is there for.
//!
//! Each file is measured once, as blocks on the disk, and belongs to one kind; what belongs to none is told apart, so
//! that the sum is what the disk says and nothing hides. Directories that change meanwhile are measured as they are
//! found.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};

/// Bytes on disk by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Space {
    /// Blobs and layers that images have.
    pub images: u64,
    /// Blobs and layers that only builds and their cache have.
    pub build_cache: u64,
    /// Writable layers of containers.
    pub containers: u64,
    /// Logs of containers.
    pub logs: u64,
    /// What else a container has: its bundle, hosts, resolv.conf.
    pub container_files: u64,
    pub volumes: u64,
    /// Beginnings of downloads.
    pub downloads: u64,
    /// Removed and not yet given back: being deleted, or a volume in the trash.
    pub trash: u64,
    /// The database, and the space that is kept for removals.
    pub database: u64,
    /// Everything else.
    pub other: u64,
    pub total: u64,
}

impl Engine {
    /// What takes the space below the data root.
    pub async fn space(&self) -> Result<Space> {
        let inner = Arc::clone(&self.inner);
        blocking(move || space(&inner)).await
    }
}

fn space(inner: &Inner) -> Result<Space> {
    let store = &inner.store;
    let root = store.root();
    let rooted = inner.images.rooted()?;
    let mut space = Space::default();
    for (digest, _) in store.content().list().map_err(image::ImageError::from)? {
        let bytes = store.content().disk_bytes(&digest);
        match rooted.blobs.contains(&digest) {
            true => space.images += bytes,
            false => space.build_cache += bytes,
        }
    }
    let mut of_images = Vec::new();
    for snapshot in store.snapshots().list()? {
        let bytes = store.snapshots().disk_bytes(snapshot.id);
        if rooted.snapshots.contains(&snapshot.id) {
            space.images += bytes;
            of_images.push(snapshot.id);
        } else if snapshot.owner.starts_with("container:") {
            space.containers += bytes;
        } else {
            space.build_cache += bytes;
        }
    }
    // What layers share is there once, and an image's if any image has it.
    let (theirs, others) = store
        .snapshots()
        .shared_bytes(&of_images)
        .map_err(store::SnapshotError::from)?;
    space.images += theirs;
    space.build_cache += others;
    space.other += measured(&root.join("objects"))?.saturating_sub(theirs + others);
    containers(&root.join("containers"), &mut space)?;
    let removed_volumes = measured(&root.join("volumes/.trash"))?;
    space.volumes = measured(&root.join("volumes"))?.saturating_sub(removed_volumes);
    space.downloads = measured(&root.join("content/ingest"))?;
    space.trash = measured(&root.join("trash"))? + removed_volumes;
    let known = [
        "containers",
        "content",
        "objects",
        "snapshots",
        "trash",
        "volumes",
    ];
    let database = ["meta.db", "meta.db-wal", "meta.db-shm", "reserve", "lock"];
    for entry in read_dir(root)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if database.contains(&name.as_ref()) {
            space.database += measured(&entry.path())?;
        } else if !known.contains(&name.as_ref()) {
            space.other += measured(&entry.path())?;
        }
    }
    // The directories that hold all this.
    for path in [
        ".",
        "content",
        "content/blobs",
        "content/blobs/sha256",
        "content/blobs/sha512",
        "snapshots",
    ] {
        space.other += of_itself(&root.join(path));
    }
    space.other += measured(&root.join("snapshots/empty"))?;
    space.total = space.images
        + space.build_cache
        + space.containers
        + space.logs
        + space.container_files
        + space.volumes
        + space.downloads
        + space.trash
        + space.database
        + space.other;
    Ok(space)
}

fn containers(dir: &Path, space: &mut Space) -> Result<()> {
    space.other += of_itself(dir);
    for container in read_dir(dir)? {
        let all = measured(&container.path())?;
        let mut logs = 0;
        for entry in read_dir(&container.path())? {
            if is_log(
                &entry.file_name().to_string_lossy(),
                container.file_name().to_string_lossy().as_ref(),
            ) {
                logs += measured(&entry.path())?;
            }
        }
        space.logs += logs;
        space.container_files += all.saturating_sub(logs);
    }
    Ok(())
}

/// Logs and what rotation made of them.
fn is_log(name: &str, container: &str) -> bool {
    name.starts_with(&format!("{container}-json.log")) || name == "local-logs"
}

fn read_dir(path: &Path) -> Result<Vec<std::fs::DirEntry>> {
    let failed = |error: std::io::Error| Error::internal(format!("cannot read {}: {error}", path.display()));
    match std::fs::read_dir(path) {
        Ok(entries) => entries.collect::<std::io::Result<_>>().map_err(failed),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn measured(path: &Path) -> Result<u64> {
    match store::measure(path) {
        Ok(usage) => Ok(usage.bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::internal(format!(
            "cannot measure {}: {error}",
            path.display()
        ))),
    }
}

/// A directory without what is in it.
fn of_itself(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512)
}
