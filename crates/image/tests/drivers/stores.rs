//! Removal, id maps, what a crash leaves, and stores whose driver was changed.

use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use store::{RemoveError, Roots, SnapshotId, StorageDriver, Store};
use sys::mount::{Filesystem, IdMap, Overlay, Propagation, Tree, set_propagation};
use sys::namespace::{self, IdRange, Kind};
use sys::process::with_filesystem_ids;

use crate::bytes::Tar;
use crate::picture::assert_same;
use crate::{Bench, each_driver};

each_driver!(
    removal_gives_the_space_back,
    layers_are_not_changed_by_what_is_above,
    user_namespaces_see_their_own_ids,
    what_died_half_made_is_gone,
    the_other_driver_goes_on_with_what_is_there,
    deletions_without_anything_below_are_kept,
);

fn filled(bench: &Bench, parent: Option<SnapshotId>, name: &str) -> SnapshotId {
    bench.unpacked(parent, &Tar::new().file(name, &vec![7; 1 << 20]).finish())
}

fn removal_gives_the_space_back(bench: Bench) {
    let snapshots = bench.store.snapshots();
    let below = filled(&bench, None, "below");
    let top = filled(&bench, Some(below), "top");
    let container = bench.container(top);
    assert!(matches!(
        snapshots.remove(below),
        Err(RemoveError::HasChildren { children: 1, .. })
    ));
    let mib = |id| snapshots.usage(id).unwrap().bytes >> 20;
    let expected = match bench.driver {
        StorageDriver::Vfs => [1, 2, 2],
        _ => [1, 1, 0],
    };
    assert_eq!([mib(below), mib(top), mib(container)], expected);
    assert_eq!(snapshots.remove(container).unwrap().bytes >> 20, expected[2]);
    // What nothing needs goes, what is below something stays.
    let loose = filled(&bench, Some(below), "loose");
    let freed = bench
        .store
        .gc(|_| {
            Ok(Roots {
                snapshots: [top].into(),
                ..Roots::default()
            })
        })
        .unwrap();
    assert_eq!(freed.snapshots, [loose]);
    assert!(!snapshots.fs(loose).exists() && snapshots.fs(below).exists());
}

fn layers_are_not_changed_by_what_is_above(bench: Bench) {
    let below = filled(&bench, None, "below");
    let before = bench.picture(below);
    let containers = [bench.container(below), bench.container(below)];
    let root = bench.root(containers[0]);
    fs::write(root.path.join("below"), "changed").unwrap();
    fs::write(root.path.join("own"), "own").unwrap();
    drop(root);
    assert_same(&before, &bench.picture(below));
    assert_same(&before, &bench.picture(containers[1]));
    let frozen = bench.root(below);
    assert_eq!(
        fs::write(frozen.path.join("new"), "").unwrap_err().kind(),
        std::io::ErrorKind::ReadOnlyFilesystem
    );
}

fn user_namespaces_see_their_own_ids(bench: Bench) {
    let image = bench.layer(None, |root| {
        fs::write(root.join("web"), "x").unwrap();
        std::os::unix::fs::chown(root.join("web"), Some(33), Some(33)).unwrap();
    });
    let range = IdRange {
        inside: 0,
        outside: 300_000,
        count: 65536,
    };
    let owned = namespace::create_user(&[range], &[range], &[]).unwrap();
    let map = IdMap {
        namespace: owned.user.as_fd(),
        root: (300_000, 300_000),
    };
    let container = bench.container(image);
    let root = bench
        .store
        .snapshots()
        .overlay(container)
        .unwrap()
        .mount_mapped(map)
        .unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}/", root.as_raw_fd()));
    assert_eq!(fs::metadata(path.join("web")).unwrap().uid(), 300_033);
    with_filesystem_ids(300_033, 300_033, || {
        fs::write(path.join("web"), "changed").unwrap()
    })
    .unwrap();
    with_filesystem_ids(300_000, 300_000, || fs::write(path.join("new"), "new").unwrap()).unwrap();
    drop(root);
    assert_eq!(bench.changes(container), ["A /new", "C /web"]);
    let layer = bench.assert_committed(container);
    let root = bench.root(layer);
    let owner = |name: &str| fs::metadata(root.path.join(name)).unwrap().uid();
    assert_eq!((owner("new"), owner("web")), (0, 33));
}

fn what_died_half_made_is_gone(bench: Bench) {
    let below = filled(&bench, None, "below");
    let unpacking = bench.store.snapshots().create(Some(below), "unpack:1").unwrap();
    let container = bench.container(below);
    fs::write(bench.root(container).path.join("own"), "own").unwrap();
    let driver = bench.driver;
    let bench = bench.reopen(driver);
    let snapshots = bench.store.snapshots();
    assert!(snapshots.get(unpacking).is_err() && !snapshots.fs(unpacking).exists());
    assert_eq!(bench.changes(container), ["A /own"]);
    assert!(snapshots.strays().unwrap().is_empty());
    // A power cut that took a container's files: it begins anew, and what a copy that was cut off left is gone.
    let home = snapshots.fs(container).parent().unwrap().to_owned();
    fs::remove_dir_all(&home).unwrap();
    fs::create_dir_all(home.with_extension("again").join("fs/half")).unwrap();
    let bench = bench.reopen(driver);
    assert_same(&bench.picture(below), &bench.picture(container));
    assert_eq!(bench.changes(container), [""; 0]);
    fs::write(bench.root(container).path.join("own"), "own").unwrap();
    assert_eq!(bench.changes(container), ["A /own"]);
    // One that is lost while the store is open, too.
    let snapshots = bench.store.snapshots();
    fs::remove_dir_all(&home).unwrap();
    for stray in snapshots.strays().unwrap() {
        snapshots.repair(&stray).unwrap();
    }
    assert_same(&bench.picture(below), &bench.picture(container));
    snapshots.remove(container).unwrap();
    if driver == StorageDriver::Vfs {
        assert!(!home.with_extension("again").exists());
    }
}

/// As a build squashes them: into one that lies on nothing.
#[test]
fn layers_put_into_one_copy_delete_what_they_delete() {
    let Some(bench) = Bench::new(StorageDriver::Vfs) else {
        return;
    };
    let snapshots = bench.store.snapshots();
    let all = snapshots.create(None, "build:1").unwrap();
    let layers = [
        Tar::new()
            .directory("etc", 0o755)
            .file("etc/secret", b"secret")
            .file("etc/public", b"public")
            .directory("d", 0o755)
            .file("d/old", b"old")
            .finish(),
        Tar::new()
            .file("etc/.wh.secret", b"")
            .file("d/.wh..wh..opq", b"")
            .file("d/new", b"new")
            .finish(),
        Tar::new().file("etc/more", b"more").file(".wh.d", b"").finish(),
    ];
    let part = snapshots.part(all).unwrap();
    for layer in &layers[..2] {
        image::layer::apply_part(&layer[..], &part).unwrap();
    }
    assert!(part.dir.join("d/new").exists() && !part.dir.join("d/old").exists());
    image::layer::apply_part(&layers[2][..], &part).unwrap();
    let layer = snapshots.commit(all, None, None).unwrap();
    assert_eq!(bench.changes(layer), ["A /etc", "A /etc/more", "A /etc/public"]);
}

fn the_other_driver_goes_on_with_what_is_there(bench: Bench) {
    let below = filled(&bench, None, "below");
    let top = bench.unpacked(
        Some(below),
        &Tar::new().file(".wh.below", b"").file("top", b"top").finish(),
    );
    let container = bench.container(top);
    fs::write(bench.root(container).path.join("own"), "own").unwrap();
    let (own, other) = match bench.driver {
        StorageDriver::Vfs => (StorageDriver::Vfs, StorageDriver::Overlay),
        driver => (driver, StorageDriver::Vfs),
    };
    let bench = bench.reopen(other);
    assert_eq!(bench.changes(container), ["A /own"]);
    let layer = bench.assert_committed(container);
    let next = bench.container(layer);
    let root = bench.root(next);
    assert!(!root.path.join("below").exists());
    fs::remove_file(root.path.join("top")).unwrap();
    drop(root);
    assert_eq!(bench.changes(next), ["D /top"]);
    let last = bench.assert_committed(next);
    // And back.
    let bench = bench.reopen(own);
    let again = bench.container(last);
    let names: Vec<_> = fs::read_dir(&bench.root(again).path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["own"]);
}

/// Differences between trees, which builds lay over others.
fn deletions_without_anything_below_are_kept(bench: Bench) {
    let snapshots = bench.store.snapshots();
    let nothing = snapshots.create_changes(None, "build:1").unwrap();
    let nothing = snapshots.commit(nothing, None, None).unwrap();
    let difference = snapshots.create_changes(Some(nothing), "build:1").unwrap();
    let tar = Tar::new().file(".wh.below", b"").file("new", b"").finish();
    image::layer::apply_part(&tar[..], &snapshots.part(difference).unwrap()).unwrap();
    let difference = snapshots.commit(difference, None, None).unwrap();
    let below = filled(&bench, None, "below");
    let laid = bench.unpacked(Some(below), &bench.tar(difference));
    let root = bench.root(laid);
    assert!(root.path.join("new").exists() && !root.path.join("below").exists());
}

/// An overlay cannot be the upper directory of another.
#[test]
fn a_filesystem_without_overlays_gets_copies() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let (lower, upper, work, root) = (place("lower"), place("upper"), place("work"), place("root"));
    let (_namespace, ()) = namespace::create_with(Kind::Mount, || {
        set_propagation(Path::new("/"), Propagation::Private, true).unwrap();
        // Not every filesystem a test runs on is one that can be an upper directory.
        for part in [&lower, &upper, &work] {
            assert!(part.is_dir());
        }
        let ground = Filesystem::new("tmpfs").unwrap().mount(0).unwrap();
        ground
            .attach(fs::File::open(dir.path()).unwrap().as_fd())
            .unwrap();
        for part in ["lower", "upper", "work", "root"] {
            fs::create_dir(dir.path().join(part)).unwrap();
        }
        let overlay = Overlay {
            lower: vec![lower.clone()],
            upper: Some(upper.clone()),
            work: Some(work.clone()),
            read_only: false,
            ..Overlay::default()
        };
        let mount = Tree::from_fd(overlay.mount_detached().unwrap());
        mount.attach(fs::File::open(&root).unwrap().as_fd()).unwrap();
        let store = Store::open_with(&root, StorageDriver::Auto).unwrap();
        assert_eq!(store.snapshots().driver(), "vfs");
        let layer = store.snapshots().create(None, "unpack:1").unwrap();
        fs::write(store.snapshots().fs(layer).join("file"), "x").unwrap();
        let layer = store.snapshots().commit(layer, None, None).unwrap();
        let container = store.snapshots().create(Some(layer), "container:x").unwrap();
        assert_eq!(
            fs::read_to_string(store.snapshots().fs(container).join("file")).unwrap(),
            "x"
        );
        drop(store);
        let refused = Store::open_with(&root, StorageDriver::Overlay)
            .err()
            .unwrap()
            .to_string();
        assert!(
            refused.contains("storage driver overlay") && refused.contains("vfs"),
            "{refused}"
        );
        // Nothing of the attempts is left.
        assert!(!root.join("snapshots/probe").exists());
    })
    .unwrap();
}
