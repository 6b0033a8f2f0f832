//! What every storage driver keeps to, asked of each of them with the kernel: containers write through the mounted root,
//! and what they did is looked at in what a diff, a commit and the next container show. Needs root; skipped with a reason
//! without.
//!
//! A case is a function that takes a [`Bench`]; a new driver is a line of [`each_driver`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../layer/bytes.rs"]
#[allow(dead_code, reason = "shared with the tests of layers")]
mod bytes;
#[path = "../layer/picture.rs"]
#[allow(dead_code, reason = "shared with the tests of layers")]
mod picture;

mod archives;
mod containers;
mod mending;
mod sharing;
mod stores;

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::layer::{Change, DiffOptions, Kind, apply_part, changes, diff_part};
use picture::{Picture, merged, picture};
use store::{Options, SnapshotId, StorageDriver, Store};

/// A store with one driver.
pub struct Bench {
    dir: tempfile::TempDir,
    pub driver: StorageDriver,
    dedup: bool,
    pub store: Store,
}

impl Bench {
    pub fn new(driver: StorageDriver) -> Option<Bench> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounts, devices and trusted attributes need root");
            return None;
        }
        Some(Bench::open(tempfile::tempdir().unwrap(), driver, false))
    }

    /// Layers are stacked, and share every file that is not empty.
    pub fn sharing() -> Option<Bench> {
        let bench = Bench::new(StorageDriver::Overlay)?;
        let Bench { dir, store, .. } = bench;
        drop(store);
        Some(Bench::open(dir, StorageDriver::Overlay, true))
    }

    fn open(dir: tempfile::TempDir, driver: StorageDriver, dedup: bool) -> Bench {
        let options = Options {
            driver,
            dedup: (dedup && driver == StorageDriver::Overlay).then_some(1),
        };
        let store = Store::open_as(&dir.path().join("root"), options).unwrap();
        Bench {
            dir,
            driver,
            dedup,
            store,
        }
    }

    /// The same root, opened by another process that shares files or does not.
    pub fn sharing_from_now_on(self, dedup: bool) -> Bench {
        let Bench {
            dir, driver, store, ..
        } = self;
        drop(store);
        Bench::open(dir, driver, dedup)
    }

    /// The same root, opened by another process with this driver.
    pub fn reopen(self, driver: StorageDriver) -> Bench {
        let Bench {
            dir, dedup, store, ..
        } = self;
        drop(store);
        Bench::open(dir, driver, dedup)
    }

    /// A layer that `fill` writes, on `parent`.
    pub fn layer(&self, parent: Option<SnapshotId>, fill: impl FnOnce(&PathBuf)) -> SnapshotId {
        let id = self.store.snapshots().create(parent, "unpack:test").unwrap();
        let root = self.root(id);
        fill(&root.path);
        drop(root);
        self.store.snapshots().commit(id, None, None).unwrap()
    }

    /// A layer from an archive.
    pub fn unpacked(&self, parent: Option<SnapshotId>, tar: &[u8]) -> SnapshotId {
        let id = self.store.snapshots().create(parent, "unpack:test").unwrap();
        apply_part(tar, &self.store.snapshots().part(id).unwrap()).unwrap();
        self.store.snapshots().commit(id, None, None).unwrap()
    }

    pub fn container(&self, parent: SnapshotId) -> SnapshotId {
        self.store
            .snapshots()
            .create(Some(parent), "container:x")
            .unwrap()
    }

    /// The root filesystem, mounted where nobody sees it.
    pub fn root(&self, id: SnapshotId) -> Root {
        let mount = self
            .store
            .snapshots()
            .overlay(id)
            .unwrap()
            .mount_detached()
            .unwrap();
        Root {
            path: PathBuf::from(format!("/proc/{}/fd/{}/", std::process::id(), mount.as_raw_fd())),
            _mount: mount,
        }
    }

    /// All of it but the root's time, which is when it was made where no archive says otherwise.
    pub fn picture(&self, id: SnapshotId) -> Picture {
        let mut picture = merged(picture(&self.root(id).path));
        if let Some(root) = picture.get_mut(Path::new("")) {
            root.mtime = (0, 0);
        }
        picture
    }

    pub fn tar(&self, id: SnapshotId) -> Vec<u8> {
        let mut tar = Vec::new();
        let options = DiffOptions {
            nanoseconds: true,
            latest: None,
        };
        diff_part(&self.store.snapshots().part(id).unwrap(), &mut tar, options).unwrap();
        tar
    }

    /// As `docker diff` tells it: `A /path`.
    pub fn changes(&self, id: SnapshotId) -> Vec<String> {
        let told = |change: Change| {
            let kind = match change.kind {
                Kind::Added => 'A',
                Kind::Modified => 'C',
                Kind::Deleted => 'D',
            };
            format!("{kind} {}", change.path.display())
        };
        let part = self.store.snapshots().part(id).unwrap();
        changes(&part).unwrap().into_iter().map(told).collect()
    }

    /// What a commit makes of a container: its changes as an archive, on the same layers.
    pub fn commit(&self, container: SnapshotId) -> SnapshotId {
        let parent = self.store.snapshots().parent(container);
        self.unpacked(parent, &self.tar(container))
    }

    /// What a commit shows is what the container shows, times of directories aside: those of whoever looked.
    pub fn assert_committed(&self, container: SnapshotId) -> SnapshotId {
        let layer = self.commit(container);
        let without = |id| without_directory_times(self.picture(id));
        picture::assert_same(&without(container), &without(layer));
        layer
    }
}

/// A mounted root filesystem.
pub struct Root {
    pub path: PathBuf,
    _mount: OwnedFd,
}

pub fn without_directory_times(mut picture: Picture) -> Picture {
    for item in picture.values_mut().filter(|item| item.kind == "directory") {
        item.mtime = (0, 0);
    }
    picture
}

/// Makes a test of each case with each driver.
macro_rules! each_driver {
    ($($case:ident),* $(,)?) => {
        mod overlay {
            $(#[test] fn $case() {
                if let Some(bench) = crate::Bench::new(store::StorageDriver::Overlay) {
                    super::$case(bench);
                }
            })*
        }
        mod sharing {
            $(#[test] fn $case() {
                if let Some(bench) = crate::Bench::sharing() {
                    super::$case(bench);
                }
            })*
        }
        mod vfs {
            $(#[test] fn $case() {
                if let Some(bench) = crate::Bench::new(store::StorageDriver::Vfs) {
                    super::$case(bench);
                }
            })*
        }
    };
}
pub(crate) use each_driver;
