//! Content that layers share: each file once, however many layers have it, under whatever names, owners and times.
//!
//! ```text
//! ROOT/objects/boot                since which start of the machine nothing can have been lost
//! ROOT/objects/key                 what names are made with; nobody but the engine reads it
//! ROOT/objects/files/<c>/<rest>    the content of one file; its name is a keyed digest of it
//! ROOT/snapshots/<n>/fs/…          in its place: a file of the same size, owner, mode, times and attributes without
//!                                  content, which says where that is (overlayfs: `metacopy` and `redirect`)
//! ROOT/snapshots/<n>/objects/<name>  that the layer needs it: a hard link to the object
//! ```
//!
//! The kernel shows both together ([`sys::mount::Objects`]), and reads of every layer come from one inode: one copy on the
//! disk and one in the page cache. Whoever reads a layer's directory itself goes through [`SharedFiles`].
//!
//! Invariants, at every instruction at which the process may be killed:
//! - an object that a layer refers to is there: the layer's own link to it is made first and removed last, and an object
//!   goes only when that link is the last one besides its name. The filesystem counts; there is no second count to repair.
//! - an object is complete and never changes once it has its name (but for a power cut, see below), unless it was found to hold
//!   something else: then its own content is put back, in its place, for everybody who has it ([`mend`]);
//! - what is linked and looked at together is done under one lock, so that nobody takes what another is removing.
//!
//! Files are shared when a snapshot becomes a layer, wherever they came from; what a layer was before stays as it is, so
//! that the setting may be changed at any time. A power cut may take an object's content as it may take a layer's: then
//! what the layers of that time hold is read again, and what is damaged is nobody's any more before anything new is shared.
//!
//! Names. overlayfs looks a redirect up in the layers below, too, before it comes to the objects; an image that could guess
//! a name could put something in the object's place. So names are made with a secret of this data root.
//!
//! Sources: Linux, Documentation/filesystems/overlayfs.rst, "Metadata only copy up", "Data-only lower layers".

mod damage;
mod hold;
mod mend;
mod name;
mod probe;
mod read;
mod share;
mod usage;

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::failure::{Context, PathError};
use name::Key;

pub(crate) use probe::{clear_probe, probe};
pub use read::SharedFiles;
pub(crate) use share::How;
pub use usage::HeldObject;

/// The directory of a layer's links, in its home.
pub(crate) const HOLDS: &str = "objects";

const METACOPY: &str = "trusted.overlay.metacopy";
const REDIRECT: &str = "trusted.overlay.redirect";

/// The shared content of a data root. Clones share it.
#[derive(Clone)]
pub(crate) struct Objects {
    inner: Arc<Inner>,
}

struct Inner {
    /// `ROOT/objects`, made when it is first needed.
    dir: PathBuf,
    key: OnceLock<Key>,
    /// Held while links are made, counted and removed.
    gate: Mutex<()>,
}

impl Objects {
    pub(crate) fn of_root(root: &Path) -> Objects {
        Objects {
            inner: Arc::new(Inner {
                dir: root.join("objects"),
                key: OnceLock::new(),
                gate: Mutex::new(()),
            }),
        }
    }

    /// What redirects are relative to.
    pub(crate) fn files(&self) -> PathBuf {
        self.inner.dir.join("files")
    }

    /// Whether any layer shares anything.
    pub(crate) fn is_there(&self) -> bool {
        fs::read_dir(self.files()).is_ok_and(|mut entries| entries.next().is_some())
    }

    fn make(&self) -> Result<(), PathError> {
        // Below the first one nobody but the engine gets; below the second, whoever owns a container's layers.
        for (path, mode) in [(self.inner.dir.clone(), 0o700), (self.files(), 0o755)] {
            match DirBuilder::new().mode(mode).create(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(error).at("create directory", &path);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn key(&self) -> Result<&Key, PathError> {
        if let Some(key) = self.inner.key.get() {
            return Ok(key);
        }
        let _gate = self.gate();
        let path = self.inner.dir.join("key");
        let key = Key::load_or_make(&path).at("make or read", &path)?;
        Ok(self.inner.key.get_or_init(|| key))
    }

    fn gate(&self) -> MutexGuard<'_, ()> {
        self.inner.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing when no layer ever shared anything.
    fn open_files(&self) -> io::Result<Option<OwnedFd>> {
        open_if_there(&self.files())
    }
}

/// Whether the layer whose home this is shares files.
pub(crate) fn are_held_in(home: &Path) -> bool {
    fs::symlink_metadata(home.join(HOLDS)).is_ok()
}

fn open_if_there(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match openat(CWD, dir, flags, Mode::empty()) {
        Ok(dir) => Ok(Some(dir)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
