//! The union filesystem for a user namespace: the same directories with their ids translated.
//!
//! Every directory goes in through an id-mapped mount of its own (Linux 5.12; as a layer of overlayfs 5.19), so
//! nothing on disk changes: what belongs to user 0 there belongs to the namespace's user 0 in the mount, and what a
//! process of the namespace writes is recorded with the ids it has inside. Containers with different maps share the
//! same layers.
//!
//! overlayfs does some things in the upper directory itself, as whoever mounted it. The ids of that one must be in
//! the map too, so the mount is made with the filesystem ids of the namespace's root.
//!
//! Newer kernels take detached mounts as layers (Linux 6.15); older ones look layers up by path, so the mounts are
//! put in a throw-away mount namespace of a helper thread.
//!
//! Sources: mount_setattr(2), Documentation/filesystems/idmappings.rst, overlayfs.rst.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::objects::settings;
use super::overlay::at;
use super::{Attributes, Filesystem, Overlay, Propagation, Tree, UserNamespace, set_propagation};
use crate::namespace::{self, Kind};
use crate::process::with_filesystem_ids;

/// Whose ids the files of a mount are given.
#[derive(Debug, Clone, Copy)]
pub struct IdMap<'fd> {
    /// A user namespace with the map.
    pub namespace: BorrowedFd<'fd>,
    /// User and group 0 of that namespace, as the caller's own numbers them.
    pub root: (u32, u32),
}

impl IdMap<'_> {
    /// Translates the ids of a detached mount, with `recursive` of all below as well.
    pub fn apply(&self, tree: &Tree, recursive: bool) -> io::Result<()> {
        let attributes = Attributes {
            idmap: Some(UserNamespace(self.namespace)),
            ..Attributes::default()
        };
        tree.set(attributes, recursive).map_err(|error| {
            if error.raw_os_error() != Some(libc::EINVAL) {
                return error;
            }
            // The kernel says no more than EINVAL.
            let why = "the filesystem does not support id-mapped mounts (ext4, xfs, btrfs, and tmpfs from Linux 6.3 on do)";
            io::Error::new(io::ErrorKind::Unsupported, why)
        })
    }

    fn directory(&self, path: &Path) -> io::Result<Tree> {
        let tree = Tree::open(CWD, path, false)?;
        self.apply(&tree, false)?;
        Ok(tree)
    }
}

/// The layers as mounts. Upper and work directory must be on one mount: that of the directory with both.
pub(super) struct Layers {
    lower: Vec<Tree>,
    objects: Option<Tree>,
    writable: Option<Tree>,
}

impl Overlay {
    /// As [`Overlay::mount_detached`], for the processes of a user namespace.
    pub fn mount_mapped(&self, map: IdMap<'_>) -> io::Result<OwnedFd> {
        if let Some((directory, writable)) = self.single() {
            let tree = Tree::from_fd(self.bind(directory, writable)?);
            map.apply(&tree, false).map_err(|error| at(directory, error))?;
            return Ok(tree.into_fd());
        }
        self.forget_volatile()?;
        // Kernels that take no descriptors, or no detached mounts, say so in one of these ways. Each attempt uses its
        // mounts up.
        match self.mapped_by_descriptor(&self.layers(map)?, map) {
            Err(error) if is_not_this_way(&error) => {
                self.forget_volatile()?;
                self.mapped_by_path(map)
            }
            result => result,
        }
    }

    pub(super) fn layers(&self, map: IdMap<'_>) -> io::Result<Layers> {
        let tree = |path: &Path| map.directory(path).map_err(|error| at(path, error));
        // What one overlay does not take becomes one of its own, translated already, as the last layer.
        let split = self.split();
        let own = split.as_ref().map_or(self, |(above, _)| above);
        let mut lower: Vec<Tree> = own
            .lower
            .iter()
            .map(|path| tree(path))
            .collect::<io::Result<_>>()?;
        if let Some((_, below)) = &split {
            lower.push(Tree::from_fd(below.mount_mapped(map)?));
        }
        let objects = own
            .objects
            .as_ref()
            .map(|objects| tree(&objects.dir))
            .transpose()?;
        let writable = match self.upper_and_work()? {
            Some((upper, work)) => {
                let both = upper.parent().filter(|parent| work.parent() == Some(*parent));
                Some(tree(both.ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "upper and work directory of a mapped overlay must be beside one another",
                    )
                })?)?)
            }
            None => None,
        };
        Ok(Layers {
            lower,
            objects,
            writable,
        })
    }

    pub(super) fn mapped_by_descriptor(&self, layers: &Layers, map: IdMap<'_>) -> io::Result<OwnedFd> {
        let fs = Filesystem::new("overlay")?;
        let context = fs.context.as_fd();
        for (layer, path) in layers.lower.iter().zip(&self.lower) {
            rustix::mount::fsconfig_set_fd(context, "lowerdir+", layer.as_fd())
                .map_err(|error| at(path, error.into()))?;
        }
        if let Some(tree) = &layers.objects {
            rustix::mount::fsconfig_set_fd(context, "datadir+", tree.as_fd())?;
        }
        if let (Some(tree), Some((upper, work))) = (&layers.writable, self.upper_and_work()?) {
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                let directory = below(tree, path).map_err(|error| at(path, error))?;
                rustix::mount::fsconfig_set_fd(context, key, directory.as_fd())?;
            }
        }
        for (key, value) in settings(layers.objects.is_some()) {
            fs.string(key, value)?;
        }
        self.set_volatile(&fs)?;
        self.set_label(&fs)?;
        let attributes = self.mount_attributes();
        let mounted = with_filesystem_ids(map.root.0, map.root.1, || fs.mount(attributes))?;
        Ok(mounted?.into_fd())
    }

    pub(super) fn mapped_by_path(&self, map: IdMap<'_>) -> io::Result<OwnedFd> {
        let layers = self.layers(map)?;
        let (_namespace, mounted) =
            namespace::create_with(Kind::Mount, || self.mount_in_own_namespace(&layers, map))?;
        mounted
    }

    fn mount_in_own_namespace(&self, layers: &Layers, map: IdMap<'_>) -> io::Result<OwnedFd> {
        set_propagation(Path::new("/"), Propagation::Private, true)?;
        let names = Filesystem::new("tmpfs")?.mount(0)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let over = rustix::fs::open("/proc", flags, Mode::empty())?;
        names.attach(over.as_fd())?;
        rustix::process::fchdir(names.as_fd())?;
        let place = |tree: &Tree, name: &str| -> io::Result<()> {
            rustix::fs::mkdir(name, Mode::from_raw_mode(0o755))?;
            tree.attach(rustix::fs::open(name, flags, Mode::empty())?.as_fd())
        };
        let mut lower = Vec::new();
        for (number, tree) in layers.lower.iter().enumerate() {
            lower.push(number.to_string());
            place(tree, &number.to_string())?;
        }
        let mut lower = lower.join(":");
        if let Some(tree) = &layers.objects {
            place(tree, "d")?;
            lower.push_str("::d");
        }
        let mut options = vec![("lowerdir", OsString::from(lower))];
        if let (Some(tree), Some((upper, work))) = (&layers.writable, self.upper_and_work()?) {
            place(tree, "w")?;
            for (key, path) in [("upperdir", upper), ("workdir", work)] {
                let name = path.file_name().unwrap_or_default();
                options.push((key, Path::new("w").join(name).into_os_string()));
            }
        }
        let mounted = with_filesystem_ids(map.root.0, map.root.1, || {
            self.mount_here(&options, settings(layers.objects.is_some()))
        })?;
        Ok(mounted?.into_fd())
    }
}

fn is_not_this_way(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

fn below(tree: &Tree, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = path.file_name().unwrap_or_default();
    Ok(rustix::fs::openat(tree, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::{AtFlags, statat};

    use super::*;
    use crate::namespace::{IdRange, create_user};

    fn map(outside: u32) -> Option<OwnedFd> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let range = IdRange {
            inside: 0,
            outside,
            count: 65536,
        };
        Some(create_user(&[range], &[range], &[]).unwrap().user)
    }

    /// Two layers, an upper directory, and files of users 0 and 33 below.
    fn directories() -> (tempfile::TempDir, Overlay) {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b", "up/fs", "up/work"] {
            std::fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("a/root"), "x").unwrap();
        std::fs::write(dir.path().join("b/web"), "x").unwrap();
        std::os::unix::fs::chown(dir.path().join("b/web"), Some(33), Some(33)).unwrap();
        let overlay = Overlay {
            lower: vec![dir.path().join("a"), dir.path().join("b")],
            upper: Some(dir.path().join("up/fs")),
            work: Some(dir.path().join("up/work")),
            read_only: false,
            ..Overlay::default()
        };
        (dir, overlay)
    }

    fn owner(root: &OwnedFd, name: &str) -> u32 {
        statat(root, name, AtFlags::SYMLINK_NOFOLLOW).unwrap().st_uid
    }

    fn check(mount: fn(&Overlay, IdMap<'_>) -> io::Result<OwnedFd>) {
        let Some(namespace) = map(300_000) else { return };
        let (dir, overlay) = directories();
        let map = IdMap {
            namespace: namespace.as_fd(),
            root: (300_000, 300_000),
        };
        let root = mount(&overlay, map).unwrap();
        assert_eq!((owner(&root, "root"), owner(&root, "web")), (300_000, 300_033));
        // As a process of the namespace would: make, copy up, remove.
        with_filesystem_ids(300_007, 300_007, || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::openat(&root, "new", flags, 0o644.into()).unwrap();
            rustix::fs::mkdirat(&root, "dir", 0o755.into()).unwrap();
            let file =
                rustix::fs::openat(&root, "web", OFlags::WRONLY | OFlags::CLOEXEC, 0o0.into()).unwrap();
            rustix::io::write(&file, b"changed").unwrap();
            rustix::fs::unlinkat(&root, "root", AtFlags::empty()).unwrap();
        })
        .unwrap();
        assert_eq!(owner(&root, "new"), 300_007);
        drop(root);
        let on_disk = |name: &str| std::fs::symlink_metadata(dir.path().join(name)).unwrap();
        assert_eq!(on_disk("up/fs/new").uid(), 7);
        assert_eq!(on_disk("up/fs/dir").uid(), 7);
        assert_eq!(on_disk("up/fs/web").uid(), 33, "a copy keeps its owner");
        assert_eq!(on_disk("b/web").uid(), 33);
        assert_eq!(on_disk("up/fs/root").rdev(), 0, "a whiteout");
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(dir.path().to_str().unwrap()), "{table}");
    }

    #[test]
    fn layers_are_translated_in_detached_mounts() {
        check(|overlay, map| overlay.mapped_by_descriptor(&overlay.layers(map)?, map));
    }

    #[test]
    fn layers_are_translated_in_a_namespace_of_their_own() {
        check(Overlay::mapped_by_path);
    }

    type Way = dyn Fn(&Overlay, IdMap<'_>) -> io::Result<OwnedFd>;

    /// Images may have 512 layers, one overlay takes 500.
    #[test]
    fn more_layers_than_one_overlay_takes_are_stacked_in_two() {
        let Some(namespace) = map(300_000) else { return };
        let map = IdMap {
            namespace: namespace.as_fd(),
            root: (300_000, 300_000),
        };
        let by_descriptor =
            |overlay: &Overlay, map: IdMap<'_>| overlay.mapped_by_descriptor(&overlay.layers(map)?, map);
        let ways: [&Way; 2] = [&by_descriptor, &Overlay::mapped_by_path];
        for mount in ways {
            let (dir, mut overlay) = directories();
            overlay.lower.clear();
            for number in 0..512 {
                let layer = dir.path().join(format!("layer{number}"));
                std::fs::create_dir(&layer).unwrap();
                for name in ["all".to_owned(), number.to_string()] {
                    std::fs::write(layer.join(&name), number.to_string()).unwrap();
                    std::os::unix::fs::chown(layer.join(&name), Some(33), Some(33)).unwrap();
                }
                overlay.lower.push(layer);
            }
            let root = mount(&overlay, map).unwrap();
            for name in ["all", "0", "498", "499", "511"] {
                assert_eq!(owner(&root, name), 300_033, "{name}");
            }
            let topmost =
                rustix::fs::openat(&root, "all", OFlags::RDONLY | OFlags::CLOEXEC, 0o0.into()).unwrap();
            assert_eq!(io::read_to_string(std::fs::File::from(topmost)).unwrap(), "0");
            with_filesystem_ids(300_007, 300_007, || {
                rustix::fs::unlinkat(&root, "511", AtFlags::empty()).unwrap();
            })
            .unwrap();
            drop(root);
            let whiteout = std::fs::symlink_metadata(dir.path().join("up/fs/511")).unwrap();
            assert_eq!(whiteout.rdev(), 0, "a whiteout");
        }
    }

    #[test]
    fn two_maps_share_the_layers() {
        let (Some(first), Some(second)) = (map(300_000), map(400_000)) else {
            return;
        };
        let (_dir, overlay) = directories();
        let read_only = Overlay {
            upper: None,
            work: None,
            ..overlay
        };
        let mount = |namespace: &OwnedFd, root: u32| {
            let map = IdMap {
                namespace: namespace.as_fd(),
                root: (root, root),
            };
            read_only.mount_mapped(map).unwrap()
        };
        let roots = [mount(&first, 300_000), mount(&second, 400_000)];
        assert_eq!(owner(&roots[0], "web"), 300_033);
        assert_eq!(owner(&roots[1], "web"), 400_033);
    }

    #[test]
    fn filesystems_that_cannot_translate_are_named() {
        let Some(namespace) = map(300_000) else { return };
        let map = IdMap {
            namespace: namespace.as_fd(),
            root: (300_000, 300_000),
        };
        let error = map.directory(Path::new("/proc")).unwrap_err();
        assert!(error.to_string().contains("id-mapped"), "{error}");
    }
}
