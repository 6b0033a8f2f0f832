//! Layers that share their files: one content on the disk and in memory, metadata of each, nothing left behind, and the same
//! archives as without.

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use image::layer::{DiffOptions, diff_part};
use rustix::fs::{Advice, XattrFlags, fadvise, lsetxattr};
use spec::Digest;
use store::{Roots, SharedFiles, SnapshotId, StorageDriver, Store};

use crate::Bench;
use crate::bytes::{Header, Tar};
use crate::picture::assert_same;

/// Content that is nowhere else, of some size.
pub fn content(seed: u8, size: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        bytes.extend(state.to_be_bytes());
    }
    bytes.truncate(size);
    bytes
}

pub fn objects(store: &Store) -> Vec<PathBuf> {
    let Ok(first) = fs::read_dir(store.root().join("objects/files")) else {
        return Vec::new();
    };
    let all = first.flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap());
    all.map(|entry| entry.unwrap().path()).collect()
}

pub fn layer_of(
    bench: &Bench,
    parent: Option<SnapshotId>,
    name: &str,
    bytes: &[u8],
    mtime: u64,
    uid: u32,
) -> SnapshotId {
    let mut tar = Tar::new();
    tar.header(&Header {
        name: name.as_bytes(),
        mode: 0o640,
        uid,
        gid: uid,
        size: bytes.len() as u64,
        mtime,
        ..Header::default()
    });
    bench.unpacked(parent, &tar.content(bytes).finish())
}

/// What this thread had read from disks so far; nothing where the kernel does not count.
fn disk_reads() -> Option<u64> {
    let text = fs::read_to_string("/proc/thread-self/io").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("read_bytes: "))?;
    line.parse().ok()
}

#[test]
fn equal_files_are_there_once_whatever_else_they_are() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(1, 300_000);
    let one = layer_of(&bench, None, "a", &bytes, 1000, 0);
    let two = layer_of(&bench, Some(one), "b", &bytes, 2000, 33);
    let other = layer_of(&bench, None, "c", &bytes, 3000, 7);
    let all = objects(&bench.store);
    assert_eq!(all.len(), 1);
    assert_eq!(
        fs::metadata(&all[0]).unwrap().nlink(),
        4,
        "its name and three layers"
    );
    let root = bench.root(two);
    for (name, mtime, uid) in [("a", 1000, 0), ("b", 2000, 33)] {
        let meta = fs::metadata(root.path.join(name)).unwrap();
        assert_eq!(
            (meta.mtime(), meta.uid(), meta.mode() & 0o7777),
            (mtime, uid, 0o640)
        );
        assert_eq!(fs::read(root.path.join(name)).unwrap(), bytes);
    }
    assert_eq!(fs::read(bench.root(other).path.join("c")).unwrap(), bytes);
    // Each layer is as large as what it holds; the disk has it once.
    let snapshots = bench.store.snapshots();
    for layer in [one, two, other] {
        assert!(snapshots.usage(layer).unwrap().bytes >= 300_000);
        assert!(snapshots.disk_bytes(layer) < 100_000);
        // What has its content elsewhere takes no block of its own, not even for saying where.
        let held = snapshots.held(layer).unwrap();
        assert_eq!((held.len(), held[0].layers), (1, 3));
    }
    let own = fs::metadata(snapshots.fs(one).join("a")).unwrap();
    assert_eq!((own.len(), own.uid()), (300_000, 0));
    let (theirs, others) = snapshots.shared_bytes(&[one]).unwrap();
    assert!(theirs >= 300_000 && others == 0, "{theirs} {others}");
    assert_eq!(snapshots.shared_bytes(&[]).unwrap(), (0, theirs));
}

#[test]
fn what_one_container_has_read_another_finds_in_memory() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(2, 4 << 20);
    let layers = [
        layer_of(&bench, None, "a", &bytes, 1000, 0),
        layer_of(&bench, None, "b", &bytes, 2000, 33),
    ];
    let roots = layers.map(|layer| bench.root(bench.container(layer)));
    bench.store.snapshots().settle().unwrap();
    let object = File::open(&objects(&bench.store)[0]).unwrap();
    rustix::fs::fsync(&object).unwrap();
    fadvise(&object, 0, None, Advice::DontNeed).unwrap();
    let read = |root: &crate::Root, name: &str| {
        let before = disk_reads()?;
        let mut all = Vec::new();
        File::open(root.path.join(name))
            .unwrap()
            .read_to_end(&mut all)
            .unwrap();
        assert_eq!(all, bytes);
        Some(disk_reads()? - before)
    };
    let first = read(&roots[0], "a");
    if first.is_none_or(|first| first < 4 << 20) {
        println!("skipped: this filesystem does not say what it reads from the disk ({first:?})");
        return;
    }
    assert!(read(&roots[1], "b").unwrap() < 1 << 20, "it was read once more");
}

/// Everything a file can be, with and without sharing.
fn of_everything(bench: &Bench) -> [SnapshotId; 2] {
    let below = bench.layer(None, |root| {
        for dir in ["etc/deep/er", "bin", "empty"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        fs::write(root.join("etc/file"), content(3, 5000)).unwrap();
        fs::write(root.join("etc/same"), content(3, 5000)).unwrap();
        fs::write(root.join("etc/deep/er/nothing"), "").unwrap();
        fs::write(root.join("bin/tool"), content(4, 70_000)).unwrap();
        fs::hard_link(root.join("bin/tool"), root.join("bin/again")).unwrap();
        fs::hard_link(root.join("bin/tool"), root.join("etc/deep/tool")).unwrap();
        fs::set_permissions(root.join("bin/tool"), Permissions::from_mode(0o6755)).unwrap();
        std::os::unix::fs::chown(root.join("etc/file"), Some(100_000), Some(7)).unwrap();
        fs::set_permissions(root.join("etc/file"), Permissions::from_mode(0o4600)).unwrap();
        let path = root.join("etc/same");
        for (key, value) in [("user.x", &b"y"[..]), ("trusted.own", b"z")] {
            lsetxattr(&path, key, value, XattrFlags::empty()).unwrap();
        }
        // cap_net_raw, as setcap writes it.
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lsetxattr(&path, "security.capability", &capability, XattrFlags::empty()).unwrap();
        let holes = File::create(root.join("etc/holes")).unwrap();
        holes.write_all_at(b"end", 1 << 24).unwrap();
        for (number, path) in [
            "etc/file",
            "etc/same",
            "bin/tool",
            "etc/holes",
            "etc/deep/er/nothing",
        ]
        .iter()
        .enumerate()
        {
            let time = UNIX_EPOCH + Duration::new(1_000_000 + number as u64, 123_456_789);
            let options = File::options().write(true).open(root.join(path)).unwrap();
            options.set_modified(time).unwrap();
        }
        for dir in ["etc/deep/er", "etc/deep", "etc", "bin", "empty", ""] {
            let time = UNIX_EPOCH + Duration::new(2_000_000, 987_654_321);
            File::open(root.join(dir)).unwrap().set_modified(time).unwrap();
        }
    });
    let top = bench.layer(Some(below), |root| {
        fs::remove_file(root.join("bin/again")).unwrap();
        fs::remove_file(root.join("etc/same")).unwrap();
        fs::write(root.join("etc/same"), content(3, 5000)).unwrap();
        fs::write(root.join("etc/new"), content(5, 9000)).unwrap();
        for path in ["etc/same", "etc/new", "etc", "bin"] {
            let file = File::open(root.join(path)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::new(3_000_000, 5))
                .unwrap();
        }
    });
    [below, top]
}

fn without_holes(mut picture: crate::picture::Picture) -> crate::picture::Picture {
    // A gigabyte of nothing need not be compared byte by byte.
    picture.retain(|path, _| path != Path::new("etc/holes"));
    picture
}

#[test]
fn layers_show_and_give_the_same_as_without() {
    let (Some(sharing), Some(plain)) = (Bench::sharing(), Bench::new(StorageDriver::Overlay)) else {
        return;
    };
    let (shared, alone) = (of_everything(&sharing), of_everything(&plain));
    assert_eq!(
        objects(&sharing.store).len(),
        3,
        "two of five are of equal content, one has holes"
    );
    for (one, other) in shared.into_iter().zip(alone) {
        assert_same(
            &without_holes(sharing.picture(one)),
            &without_holes(plain.picture(other)),
        );
        assert_eq!(sharing.changes(one), plain.changes(other));
        let archive = |bench: &Bench, layer| {
            let mut tar = Vec::new();
            let options = DiffOptions {
                nanoseconds: true,
                // What says that something is deleted has the time at which it was.
                latest: Some(5_000_000),
            };
            diff_part(&bench.store.snapshots().part(layer).unwrap(), &mut tar, options).unwrap();
            tar
        };
        assert!(
            archive(&sharing, one) == archive(&plain, other),
            "the archives differ"
        );
    }
    // What a container writes to such a file is its own alone.
    for bench in [&sharing, &plain] {
        let top = if std::ptr::eq(bench, &sharing) {
            shared[1]
        } else {
            alone[1]
        };
        let container = bench.container(top);
        let root = bench.root(container);
        let file = File::options()
            .append(true)
            .open(root.path.join("etc/file"))
            .unwrap();
        std::io::Write::write_all(&mut &file, b"more").unwrap();
        std::os::unix::fs::chown(root.path.join("bin/tool"), Some(5), Some(5)).unwrap();
        drop((file, root));
        assert_eq!(
            bench.changes(container),
            ["C /bin", "C /bin/tool", "C /etc", "C /etc/file"]
        );
        let root = bench.root(container);
        let mut expected = content(3, 5000);
        expected.extend(b"more");
        assert_eq!(fs::read(root.path.join("etc/file")).unwrap(), expected);
        assert_eq!(fs::read(root.path.join("bin/tool")).unwrap(), content(4, 70_000));
        assert_eq!(fs::read(root.path.join("etc/same")).unwrap(), content(3, 5000));
        drop(root);
        bench.assert_committed(container);
        let upper = bench.store.snapshots().fs(container).join("etc/file");
        assert!(
            !SharedFiles::has_elsewhere(&upper).unwrap(),
            "the upper directory is complete"
        );
        assert_eq!(fs::read(upper).unwrap(), expected);
    }
}

#[test]
fn the_last_layer_takes_the_content_along() {
    let Some(bench) = Bench::sharing() else { return };
    let (both, alone) = (content(6, 1 << 20), content(7, 1 << 20));
    let one = layer_of(&bench, None, "both", &both, 1, 0);
    let other = bench.unpacked(
        None,
        &Tar::new().file("both", &both).file("alone", &alone).finish(),
    );
    assert_eq!(objects(&bench.store).len(), 2);
    let snapshots = bench.store.snapshots();
    assert!(snapshots.freed_with(&[one]).unwrap() < 1 << 20);
    assert_eq!(snapshots.freed_with(&[one, other]).unwrap() >> 20, 2);
    let kept = || Roots {
        snapshots: [one].into(),
        ..Roots::default()
    };
    let rehearsed = bench.store.rehearse(|_| Ok(()), |_| Ok(kept())).unwrap();
    let freed = bench.store.gc(|_| Ok(kept())).unwrap();
    assert_eq!(freed.snapshots, [other]);
    assert_eq!((freed.bytes >> 20, rehearsed.bytes >> 20), (1, 1));
    assert_eq!(objects(&bench.store).len(), 1);
    assert_eq!(fs::read(bench.root(one).path.join("both")).unwrap(), both);
    assert_eq!(snapshots.remove(one).unwrap().bytes >> 20, 1);
    assert_eq!(objects(&bench.store).len(), 0);
    assert_eq!(
        fs::read_dir(bench.store.root().join("objects/files"))
            .unwrap()
            .count(),
        0
    );
    assert!(snapshots.strays().unwrap().is_empty());
}

/// A layer that is dropped because another one was quicker, and one that never became one.
#[test]
fn what_never_became_a_layer_holds_nothing() {
    let Some(bench) = Bench::sharing() else { return };
    let snapshots = bench.store.snapshots();
    let chain = Digest::sha256(b"chain");
    let kept = content(8, 10_000);
    for own in [b"first", b"again"] {
        let id = snapshots.create(None, "unpack:1").unwrap();
        fs::write(snapshots.fs(id).join("kept"), &kept).unwrap();
        fs::write(snapshots.fs(id).join("own"), own).unwrap();
        snapshots.commit(id, Some(&chain), Some(&chain)).unwrap();
    }
    assert_eq!(objects(&bench.store).len(), 2);
    let id = snapshots.create(None, "unpack:1").unwrap();
    fs::write(snapshots.fs(id).join("kept"), &kept).unwrap();
    fs::write(snapshots.fs(id).join("own"), "given up").unwrap();
    snapshots.remove(id).unwrap();
    assert_eq!(objects(&bench.store).len(), 2);
    assert!(snapshots.strays().unwrap().is_empty());
}

#[test]
fn the_setting_may_change_at_any_time() {
    let Some(bench) = Bench::new(StorageDriver::Overlay) else {
        return;
    };
    let (same, changed) = (content(9, 8000), content(10, 8000));
    let plain = layer_of(&bench, None, "plain", &same, 1, 0);
    let bench = bench.sharing_from_now_on(true);
    let shared = layer_of(&bench, Some(plain), "shared", &same, 2, 33);
    let container = bench.container(shared);
    fs::write(bench.root(container).path.join("plain"), &changed).unwrap();
    let bench = bench.sharing_from_now_on(false);
    let again = layer_of(&bench, Some(shared), "again", &same, 3, 5);
    assert_eq!(objects(&bench.store).len(), 1);
    assert_eq!(bench.changes(container), ["C /plain"]);
    let root = bench.root(bench.container(again));
    for name in ["plain", "shared", "again"] {
        assert_eq!(fs::read(root.path.join(name)).unwrap(), same, "{name}");
    }
    drop(root);
    // An archive that links to a shared file of a layer below brings it up whole.
    let linked = bench.unpacked(Some(again), &Tar::new().hard_link("linked", "shared").finish());
    let own = bench.store.snapshots().fs(linked).join("linked");
    assert_eq!(fs::read(&own).unwrap(), same);
    assert_eq!(fs::metadata(&own).unwrap().uid(), 33);
    // Copies of what is below are whole as well.
    let bench = bench.reopen(StorageDriver::Vfs);
    let copy = bench.container(again);
    assert_eq!(
        fs::read(bench.store.snapshots().fs(copy).join("shared")).unwrap(),
        same
    );
    assert_eq!(bench.changes(copy), [""; 0]);
}

/// overlayfs' own attributes are never taken from an archive, so nobody's file leads to another's content.
#[test]
fn an_image_cannot_say_where_its_content_is() {
    let Some(bench) = Bench::sharing() else { return };
    let secret = content(11, 6000);
    layer_of(&bench, None, "secret", &secret, 1, 0);
    let object = objects(&bench.store).remove(0);
    let redirect = format!(
        "/{}",
        object
            .strip_prefix(bench.store.root().join("objects/files"))
            .unwrap()
            .display()
    );
    let mut tar = Tar::new();
    tar.pax(&[
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.trusted.overlay.redirect", redirect.as_bytes()),
        ("SCHILY.xattr.user.overlay.redirect", redirect.as_bytes()),
    ])
    .file("hostile", &[b'.'; 6000]);
    let hostile = bench.unpacked(None, &tar.finish());
    let container = bench.container(hostile);
    let root = bench.root(container);
    assert_eq!(fs::read(root.path.join("hostile")).unwrap(), [b'.'; 6000]);
    // Nor does a container: what it sets are attributes for overlays of its own.
    fs::write(root.path.join("own"), [b','; 6000]).unwrap();
    for (key, value) in [
        ("trusted.overlay.metacopy", &b""[..]),
        ("trusted.overlay.redirect", redirect.as_bytes()),
    ] {
        let _ = lsetxattr(root.path.join("own"), key, value, XattrFlags::empty());
    }
    drop(root);
    let layer = bench.commit(container);
    assert_eq!(
        fs::read(bench.root(layer).path.join("own")).unwrap(),
        [b','; 6000]
    );
    // One whose content is not what an object is called is refused, not followed.
    let forged = bench.container(layer);
    let file = bench.store.snapshots().fs(forged).join("forged");
    fs::write(&file, "").unwrap();
    lsetxattr(&file, "trusted.overlay.metacopy", b"", XattrFlags::empty()).unwrap();
    lsetxattr(
        &file,
        "trusted.overlay.redirect",
        redirect.as_bytes(),
        XattrFlags::empty(),
    )
    .unwrap();
    let part = bench.store.snapshots().part(forged).unwrap();
    let refused = diff_part(&part, std::io::sink(), Default::default());
    assert!(refused.unwrap_err().to_string().contains("metacopy"));
}

#[test]
fn content_that_is_gone_is_told_and_put_back() {
    let Some(bench) = Bench::sharing() else { return };
    let layer = layer_of(&bench, None, "file", &content(12, 9000), 1, 0);
    let object = objects(&bench.store).remove(0);
    fs::remove_file(&object).unwrap();
    let part = bench.store.snapshots().part(layer).unwrap();
    let told = diff_part(&part, std::io::sink(), Default::default()).unwrap_err();
    assert!(told.to_string().contains("system check"), "{told}");
    let strays = bench.store.snapshots().strays().unwrap();
    assert_eq!(strays.len(), 1, "{strays:?}");
    for stray in &strays {
        assert!(matches!(stray, store::Stray::LostObject { layer: of, .. } if *of == layer));
        bench.store.snapshots().repair(stray).unwrap();
    }
    assert_eq!(
        fs::read(bench.root(layer).path.join("file")).unwrap(),
        content(12, 9000)
    );
    // One that no layer has.
    let loose = object.with_file_name("x".repeat(21));
    fs::write(&loose, "loose").unwrap();
    for stray in bench.store.snapshots().strays().unwrap() {
        assert!(matches!(stray, store::Stray::Object(_)), "{stray:?}");
        bench.store.snapshots().repair(&stray).unwrap();
    }
    assert!(!loose.exists() && object.exists());
    assert!(bench.store.snapshots().strays().unwrap().is_empty());
}

/// A power cut may leave an object without its content; layers of that time are unpacked again, from good content.
#[test]
fn what_a_power_cut_damaged_is_not_taken_again() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(13, 9000);
    let snapshots = bench.store.snapshots();
    let chain = Digest::sha256(b"torn");
    let unpack = |bench: &Bench| {
        let snapshots = bench.store.snapshots();
        let id = snapshots.create(None, "unpack:1").unwrap();
        fs::write(snapshots.fs(id).join("file"), &bytes).unwrap();
        snapshots.commit(id, Some(&chain), Some(&chain)).unwrap()
    };
    let torn = unpack(&bench);
    let object = objects(&bench.store).remove(0);
    let whole = snapshots.create(None, "unpack:1").unwrap();
    fs::write(snapshots.fs(whole).join("other"), content(14, 9000)).unwrap();
    snapshots.commit(whole, None, None).unwrap();
    let damaged = File::options().write(true).open(&object).unwrap();
    damaged.write_all_at(&[0; 9000], 0).unwrap();
    bench
        .store
        .db()
        .write::<_, store::DbError>(|tx| {
            Ok(tx.execute("UPDATE snapshot SET settled = 0, boot = 'before'", [])?)
        })
        .unwrap();
    let bench = bench.reopen(StorageDriver::Overlay);
    assert_eq!(
        objects(&bench.store).len(),
        1,
        "the damaged one has no name any more"
    );
    assert_eq!(bench.store.snapshots().by_chain(&chain), None);
    // What is left is not put back either.
    let strays = bench.store.snapshots().strays().unwrap();
    assert_eq!(strays.len(), 1, "{strays:?}");
    let told = bench.store.snapshots().repair(&strays[0]).unwrap_err();
    assert!(told.to_string().contains("damaged"), "{told}");
    assert_eq!(objects(&bench.store).len(), 1);
    let again = unpack(&bench);
    assert_ne!(again, torn);
    assert_eq!(fs::read(bench.root(again).path.join("file")).unwrap(), bytes);
}

/// As if the machine had gone down before anything was on the disk.
fn forget_the_boot(store: &Store) {
    store
        .db()
        .write::<_, store::DbError>(|tx| {
            Ok(tx.execute("UPDATE snapshot SET settled = 0, boot = 'before'", [])?)
        })
        .unwrap();
    fs::write(store.root().join("objects/boot"), "before").unwrap();
}

/// Layers of build steps have no chain ID.
#[test]
fn what_a_power_cut_damaged_in_a_layer_of_a_step_is_not_taken_again() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(17, 9000);
    layer_of(&bench, None, "file", &bytes, 1, 0);
    let object = objects(&bench.store).remove(0);
    fs::write(&object, vec![0; 9000]).unwrap();
    forget_the_boot(&bench.store);
    let bench = bench.reopen(StorageDriver::Overlay);
    assert_eq!(objects(&bench.store).len(), 0);
    let again = layer_of(&bench, None, "file", &bytes, 1, 0);
    assert_eq!(fs::read(bench.root(again).path.join("file")).unwrap(), bytes);
}

/// A layer that was being deleted: after a power cut nobody takes what it had; otherwise the start leaves it alone.
#[test]
fn what_a_removed_layer_had_is_not_taken_after_a_power_cut() {
    for cut in [false, true] {
        let Some(bench) = Bench::sharing() else { return };
        let bytes = content(18, 9000);
        layer_of(&bench, None, "file", &bytes, 1, 0);
        let also = layer_of(&bench, None, "both", &content(19, 9000), 1, 0);
        let removed = layer_of(&bench, None, "file", &bytes, 1, 0);
        let doomed = bench.unpacked(
            None,
            &Tar::new()
                .file("alone", &content(20, 9000))
                .file("both", &content(19, 9000))
                .finish(),
        );
        // Opened once more, so that this boot is noted.
        let bench = bench.reopen(StorageDriver::Overlay);
        let root = bench.store.root().to_owned();
        assert_eq!(objects(&bench.store).len(), 3);
        for (number, id) in [doomed, removed].into_iter().enumerate() {
            let home = bench.store.snapshots().fs(id).parent().unwrap().to_owned();
            bench
                .store
                .db()
                .write::<_, store::DbError>(|tx| Ok(tx.execute("DELETE FROM snapshot WHERE id = ?1", [id])?))
                .unwrap();
            fs::rename(&home, root.join(format!("trash/1-{number}-left"))).unwrap();
        }
        if cut {
            for object in objects(&bench.store) {
                if fs::read(&object).unwrap() == bytes {
                    fs::write(&object, vec![0; 9000]).unwrap();
                }
            }
            fs::write(root.join("objects/boot"), "before").unwrap();
        }
        let bench = bench.reopen(StorageDriver::Overlay);
        let left = fs::read_dir(root.join("trash")).unwrap().count();
        assert_eq!(left, 2, "the start deletes nothing itself");
        // What only the removed one had, and what is damaged, has no name any more.
        assert_eq!(objects(&bench.store).len(), if cut { 1 } else { 3 });
        assert_eq!(
            fs::read(bench.root(also).path.join("both")).unwrap(),
            content(19, 9000)
        );
        let again = layer_of(&bench, None, "file", &bytes, 1, 0);
        assert_eq!(fs::read(bench.root(again).path.join("file")).unwrap(), bytes);
    }
}

/// What lies in a directory that may not be changed stays what it was.
#[test]
fn files_in_a_frozen_directory_keep_what_they_are() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let Some(bench) = Bench::sharing() else { return };
    for flag in [IFlags::IMMUTABLE, IFlags::APPEND] {
        let id = bench.store.snapshots().create(None, "unpack:1").unwrap();
        let dir = bench.store.snapshots().fs(id).join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), content(21, 9000)).unwrap();
        fs::set_permissions(dir.join("file"), Permissions::from_mode(0o4750)).unwrap();
        lsetxattr(dir.join("file"), "user.mark", b"mine", XattrFlags::empty()).unwrap();
        let frozen = File::open(&dir).unwrap();
        let flags = match ioctl_getflags(&frozen) {
            Ok(flags) => flags,
            Err(error) => return println!("skipped: no flags here ({error})"),
        };
        if let Err(error) = ioctl_setflags(&frozen, flags | flag) {
            return println!("skipped: flags cannot be set here ({error})");
        }
        let layer = bench.store.snapshots().commit(id, None, None);
        ioctl_setflags(&frozen, flags).unwrap();
        layer.unwrap();
        let meta = fs::metadata(dir.join("file")).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o4750);
        let mut value = [0; 4];
        rustix::fs::lgetxattr(dir.join("file"), "user.mark", &mut value).unwrap();
        assert_eq!(&value, b"mine");
        assert_eq!(fs::read(dir.join("file")).unwrap(), content(21, 9000));
        assert_eq!(objects(&bench.store).len(), 0);
    }
}

/// A file that may not be changed stays, and is in nobody's way: the links of another one are exchanged after it.
#[test]
fn links_after_a_frozen_file_are_shared() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let Some(bench) = Bench::sharing() else { return };
    let snapshots = bench.store.snapshots();
    let id = snapshots.create(None, "unpack:1").unwrap();
    let dir = snapshots.fs(id);
    fs::write(dir.join("frozen"), content(23, 9000)).unwrap();
    fs::write(dir.join("0"), content(24, 9000)).unwrap();
    // Whatever order they are read in, one of the links comes after it.
    for number in 1..40 {
        fs::hard_link(dir.join("0"), dir.join(number.to_string())).unwrap();
    }
    let frozen = File::open(dir.join("frozen")).unwrap();
    let flags = match ioctl_getflags(&frozen) {
        Ok(flags) => flags,
        Err(error) => return println!("skipped: no flags here ({error})"),
    };
    if let Err(error) = ioctl_setflags(&frozen, flags | IFlags::IMMUTABLE) {
        return println!("skipped: flags cannot be set here ({error})");
    }
    let layer = snapshots.commit(id, None, None);
    ioctl_setflags(&frozen, flags).unwrap();
    layer.unwrap();
    assert_eq!(fs::read(dir.join("frozen")).unwrap(), content(23, 9000));
    assert_eq!(objects(&bench.store).len(), 1);
    let inode = fs::metadata(dir.join("0")).unwrap().ino();
    for number in 1..40 {
        assert_eq!(fs::metadata(dir.join(number.to_string())).unwrap().ino(), inode);
    }
}

/// What a start that was killed left of its try goes with any start.
#[test]
fn what_is_left_of_a_try_goes_without_the_setting_too() {
    let Some(bench) = Bench::new(StorageDriver::Overlay) else {
        return;
    };
    let left = bench.store.root().join("snapshots/probe-dedup");
    fs::create_dir_all(left.join("layer")).unwrap();
    let _bench = bench.reopen(StorageDriver::Overlay);
    assert!(!left.exists());
}

/// Layers laid over others are links of their files. More of them than one overlay takes are whole.
#[test]
fn links_of_shared_files_above_the_most_that_share_are_whole() {
    let Some(bench) = Bench::sharing() else { return };
    let snapshots = bench.store.snapshots();
    let bytes = content(22, 5000);
    let shared = layer_of(&bench, None, "shared", &bytes, 7, 33);
    let from = snapshots.fs(shared).join("shared");
    let mut top = None;
    for number in 0..505 {
        let id = snapshots.create(top, "unpack:1").unwrap();
        for name in ["a", "b"] {
            fs::hard_link(&from, snapshots.fs(id).join(format!("{name}{number}"))).unwrap();
        }
        top = Some(snapshots.commit(id, None, None).unwrap());
    }
    let top = top.unwrap();
    let root = bench.root(bench.container(top));
    for name in ["a0", "b489", "a490", "b504"] {
        let meta = fs::metadata(root.path.join(name)).unwrap();
        assert_eq!((meta.uid(), meta.mtime()), (33, 7), "{name}");
        assert_eq!(fs::read(root.path.join(name)).unwrap(), bytes, "{name}");
    }
    assert!(snapshots.held(top).unwrap().is_empty());
    let own = snapshots.fs(top);
    assert!(!SharedFiles::has_elsewhere(&own.join("a504")).unwrap());
    let inode = |name| fs::metadata(own.join(name)).unwrap().ino();
    assert_eq!(inode("a504"), inode("b504"), "they are one file still");
}

#[test]
fn two_hundred_and_five_hundred_layers_are_shown() {
    let Some(bench) = Bench::sharing() else { return };
    let bytes = content(15, 5000);
    let mut top = None;
    for number in 0..512 {
        let name = format!("f{number}");
        let tar = Tar::new()
            .file(&name, &bytes)
            .file("all", &content(16, 600 + number))
            .finish();
        let layer = bench.unpacked(top, &tar);
        top = Some(layer);
        if [200, 490, 512].contains(&(number + 1)) {
            let container = bench.container(layer);
            let root = bench.root(container);
            for name in ["f0", "f199", &name] {
                assert_eq!(
                    fs::read(root.path.join(name)).unwrap(),
                    bytes,
                    "{name} of {number}"
                );
            }
            assert_eq!(fs::read(root.path.join("all")).unwrap().len(), 600 + number);
            fs::write(root.path.join("f0"), "changed").unwrap();
            drop(root);
            assert_eq!(bench.changes(container), ["C /f0"]);
        }
    }
}

/// Two that unpack the same at the same time.
#[test]
fn many_share_at_once() {
    let Some(bench) = Bench::sharing() else { return };
    let snapshots = bench.store.snapshots();
    for _ in 0..5 {
        let layers: Vec<SnapshotId> = std::thread::scope(|scope| {
            let work = |number: u8| {
                let id = snapshots.create(None, "unpack:1").unwrap();
                for file in 0..40 {
                    fs::write(
                        snapshots.fs(id).join(format!("{number}-{file}")),
                        content(file, 3000),
                    )
                    .unwrap();
                }
                snapshots.commit(id, None, None).unwrap()
            };
            let started: Vec<_> = (0..4).map(|number| scope.spawn(move || work(number))).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(objects(&bench.store).len(), 40);
        // Some go while others come.
        std::thread::scope(|scope| {
            for layer in &layers[..3] {
                scope.spawn(|| snapshots.remove(*layer).unwrap());
            }
            scope.spawn(|| {
                let id = snapshots.create(None, "unpack:1").unwrap();
                for file in 0..40 {
                    fs::write(snapshots.fs(id).join(format!("late-{file}")), content(file, 3000)).unwrap();
                }
                let late = snapshots.commit(id, None, None).unwrap();
                let root = bench.root(late);
                for file in 0..40 {
                    let read = fs::read(root.path.join(format!("late-{file}"))).unwrap();
                    assert_eq!(read, content(file, 3000));
                }
                drop(root);
                snapshots.remove(late).unwrap();
            });
        });
        let root = bench.root(layers[3]);
        assert_eq!(fs::read(root.path.join("3-7")).unwrap(), content(7, 3000));
        drop(root);
        snapshots.remove(layers[3]).unwrap();
        assert_eq!(objects(&bench.store).len(), 0);
        assert!(snapshots.strays().unwrap().is_empty());
    }
}

/// Nothing is changed of the file of a layer that lends it to another by a link.
#[test]
fn files_that_another_layer_has_as_well_are_left_alone() {
    let Some(bench) = Bench::new(StorageDriver::Overlay) else {
        return;
    };
    let bytes = content(17, 9000);
    let lender = layer_of(&bench, None, "file", &bytes, 7, 33);
    let bench = bench.sharing_from_now_on(true);
    let snapshots = bench.store.snapshots();
    let take = |from: SnapshotId| {
        let id = snapshots.create(None, "unpack:1").unwrap();
        fs::hard_link(snapshots.fs(from).join("file"), snapshots.fs(id).join("file")).unwrap();
        snapshots.commit(id, None, None).unwrap()
    };
    let taker = take(lender);
    for layer in [lender, taker] {
        let meta = fs::metadata(snapshots.fs(layer).join("file")).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o7777, meta.mtime()), (33, 0o640, 7));
    }
    assert_eq!(fs::read(snapshots.fs(lender).join("file")).unwrap(), bytes);
    // Whoever takes over a file that has its content elsewhere holds that, too, also when nothing new is shared.
    let bench = bench.sharing_from_now_on(false);
    let snapshots = bench.store.snapshots();
    let id = snapshots.create(None, "unpack:1").unwrap();
    fs::hard_link(snapshots.fs(taker).join("file"), snapshots.fs(id).join("file")).unwrap();
    let last = snapshots.commit(id, None, None).unwrap();
    snapshots.remove(taker).unwrap();
    assert_eq!(fs::read(bench.root(last).path.join("file")).unwrap(), bytes);
    snapshots.remove(last).unwrap();
    assert_eq!(objects(&bench.store).len(), 0);
    let root = bench.root(lender);
    assert_eq!(
        rustix::fs::fstat(File::open(root.path.join("file")).unwrap().as_fd())
            .unwrap()
            .st_uid,
        33
    );
}

#[test]
fn who_cannot_share_is_told_at_once() {
    let Some(bench) = Bench::new(StorageDriver::Vfs) else {
        return;
    };
    drop(bench);
    let dir = tempfile::tempdir().unwrap();
    let options = store::Options {
        driver: StorageDriver::Vfs,
        dedup: Some(1),
    };
    let refused = Store::open_as(dir.path(), options)
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("store-dedup") && refused.contains("vfs"),
        "{refused}"
    );
}
