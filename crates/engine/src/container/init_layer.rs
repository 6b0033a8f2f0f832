//! The layer between an image and a container's own: what a container has beside its image's files, so that neither
//! `diff` nor `commit` take it for a change of the container's.
//!
//! It holds empty files and directories to mount on, where the image lacks them, and what programs look for to learn
//! that they are in a container. Its content follows from the image alone, so all containers of an image share one;
//! it is known by a chain ID of its own and goes with the garbage collection that finds no container on it.
//! `export` shows it, as Docker's does.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use spec::Digest;
use store::{Lease, SnapshotId};
use sys::beneath::resolve_dir_in_root;

use crate::engine::Inner;
use crate::error::{Error, Result};

/// Changed with the list below: a layer with another list is another layer.
const VERSION: u32 = 1;

enum Stub {
    Directory,
    File,
    Link(&'static str),
}

/// Parents come before what is in them. The same as Docker's.
const STUBS: &[(&str, Stub)] = &[
    ("/.dockerenv", Stub::File),
    ("/dev", Stub::Directory),
    ("/dev/console", Stub::File),
    ("/dev/pts", Stub::Directory),
    ("/dev/shm", Stub::Directory),
    ("/etc", Stub::Directory),
    ("/etc/hostname", Stub::File),
    ("/etc/hosts", Stub::File),
    ("/etc/mtab", Stub::Link("/proc/mounts")),
    ("/etc/resolv.conf", Stub::File),
    ("/proc", Stub::Directory),
    ("/sys", Stub::Directory),
];

/// The layer on top of the image's topmost one, made at the first container of an image. The lease keeps it until a
/// container does.
pub(super) fn on_top_of(inner: &Inner, image: SnapshotId, lease: &Lease) -> Result<SnapshotId> {
    let snapshots = inner.store.snapshots();
    let below = match snapshots.chain_of(image) {
        Some(chain) => chain.to_string(),
        None => image.to_string(),
    };
    let chain = Digest::sha256(format!("container init layer {VERSION} on {below}").as_bytes());
    loop {
        let id = match snapshots.by_chain(&chain) {
            Some(id) => id,
            None => make(inner, image, &chain)?,
        };
        lease.hold_snapshot(id);
        // Held first and looked for second: a collection in between is noticed.
        if snapshots.get(id).is_ok() {
            return Ok(id);
        }
    }
}

fn make(inner: &Inner, image: SnapshotId, chain: &Digest) -> Result<SnapshotId> {
    let snapshots = inner.store.snapshots();
    let id = snapshots.create(Some(image), "init:")?;
    let filled = fill(inner, id).and_then(|()| Ok(snapshots.commit(id, Some(chain), None)?));
    if filled.is_err() {
        // The first failure is the one to tell; the leftover goes at the next start.
        let _ = snapshots.remove(id);
    }
    filled
}

fn fill(inner: &Inner, id: SnapshotId) -> Result<()> {
    let root = inner.store.snapshots().overlay(id)?.mount_detached()?;
    for (path, stub) in STUBS {
        put(root.as_fd(), Path::new(path), stub)
            .map_err(|error| Error::internal(format!("cannot make {path} for containers: {error}")))?;
    }
    Ok(())
}

/// Makes a stub where nothing is. What an image has, of whatever kind, stays as it is: the start will say what it
/// cannot mount on.
fn put(root: BorrowedFd<'_>, path: &Path, stub: &Stub) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    let Ok(dir) = resolve_dir_in_root(root, parent) else {
        return Ok(());
    };
    match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => {}
        Ok(_) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match stub {
        Stub::Directory => rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?,
        Stub::Link(target) => rustix::fs::symlinkat(*target, &dir, name)?,
        Stub::File => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(0o644))?;
        }
    }
    Ok(())
}
