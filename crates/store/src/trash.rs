//! Deleting in two steps: a rename into `ROOT/trash`, which is instant and atomic, then the deletion proper.
//!
//! What a crash leaves in the trash is deleted after the next start, in the background, when whoever opened the store has
//! ended those that may still use it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat, renameat};
use rustix::io::Errno;
use sys::beneath::{DIRECTORY, Removed, list, remove_tree};

use crate::failure::{Context, PathError};
use crate::objects::{HOLDS, Objects, are_held_in};

#[derive(Clone)]
pub(crate) struct Trash {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    dir: File,
    /// What layers among it hold.
    objects: Objects,
    next: AtomicU64,
    /// What could not be deleted when it should have been, for want of descriptors for one.
    stuck: Mutex<Vec<OsString>>,
}

/// Something renamed away that still takes space.
#[must_use = "the space is given back by Trash::delete"]
pub(crate) struct Discarded {
    name: OsString,
}

impl Trash {
    pub(crate) fn open(path: PathBuf, objects: Objects) -> Result<Trash, PathError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, &path, flags, Mode::empty()).at("open", &path)?;
        Ok(Trash {
            inner: Arc::new(Inner {
                path,
                dir: dir.into(),
                objects,
                next: AtomicU64::new(0),
                stuck: Mutex::default(),
            }),
        })
    }

    /// Takes `path` out of sight. `None` when there was nothing.
    pub(crate) fn discard(&self, path: &Path) -> Result<Option<Discarded>, PathError> {
        let base = path.file_name().unwrap_or(OsStr::new("thing"));
        loop {
            let count = self.inner.next.fetch_add(1, Ordering::Relaxed);
            let mut name = OsString::from(format!("{}-{count}-", std::process::id()));
            name.push(base);
            match renameat(CWD, path, &self.inner.dir, &name) {
                Ok(()) => return Ok(Some(Discarded { name })),
                Err(Errno::NOENT) => return Ok(None),
                // A leftover of an earlier process with the same pid.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR) => {}
                Err(error) => return Err(error).at("move to the trash", path),
            }
        }
    }

    /// Gives the space back. What cannot be deleted now is tried again with the next that can.
    pub(crate) fn delete(&self, discarded: Discarded) -> Result<Removed, PathError> {
        let name = discarded.name;
        let removed = self.remove(&name);
        let mut stuck = self.inner.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        match &removed {
            Ok(_) => stuck.retain(|name| self.remove(name).is_err()),
            Err(_) => stuck.push(name),
        }
        removed
    }

    fn remove(&self, name: &OsStr) -> Result<Removed, PathError> {
        let trash = self.inner.dir.as_fd();
        let path = self.inner.path.join(name);
        let mut removed = Removed::default();
        let mut add = |more: Removed| {
            removed.bytes += more.bytes;
            removed.inodes += more.inodes;
        };
        if are_held_in(&path) {
            let home = openat(trash, name, DIRECTORY, Mode::empty()).at("open", &path)?;
            // What it holds comes last, when none of its own files is an object's other name.
            for (part, _) in list(home.as_fd()).at("read", &path)? {
                if part != HOLDS {
                    add(remove_tree(home.as_fd(), &part).at("delete", &path)?);
                }
            }
            let bytes = self.inner.objects.release(home.as_fd()).at("delete", &path)?;
            add(Removed { bytes, inodes: 0 });
        }
        add(remove_tree(trash, name).at("delete", &path)?);
        Ok(removed)
    }

    /// Takes the names from what layers hold that an earlier process left. After a power cut it may have lost its content, so
    /// nobody may take it before the layer is deleted.
    pub(crate) fn release_names(&self) -> Result<(), PathError> {
        for (name, _) in list(self.inner.dir.as_fd()).at("read", &self.inner.path)? {
            let home = self.inner.path.join(&name);
            if are_held_in(&home)
                && let Err(error) = self.inner.objects.release_names(&home)
            {
                tracing::warn!(%error, "what a removed layer shares may be damaged");
            }
        }
        Ok(())
    }

    /// Discards and deletes.
    pub(crate) fn dispose(&self, path: &Path) -> Result<Removed, PathError> {
        match self.discard(path)? {
            Some(discarded) => self.delete(discarded),
            None => Ok(Removed::default()),
        }
    }

    /// Deletes what an earlier process left, on a thread of its own so that a start never waits for it.
    pub(crate) fn empty_in_background(&self) -> Result<(), PathError> {
        let left = list(self.inner.dir.as_fd()).at("read", &self.inner.path)?;
        if left.is_empty() {
            return Ok(());
        }
        let trash = self.clone();
        std::thread::Builder::new()
            .name("store-trash".into())
            .spawn(move || {
                for (name, _) in left {
                    if let Err(error) = trash.delete(Discarded { name }) {
                        tracing::warn!(%error, "a leftover stays in the trash until the next start");
                    }
                }
            })
            .at("start a thread to empty", &self.inner.path)?;
        Ok(())
    }
}
