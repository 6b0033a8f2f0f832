//! A process that is killed at each point where it makes something last, and a disk without room.
//!
//! What the child ([`killed`]) was told is done before that, it has written down; all of it must still be so for the next
//! process, nothing half may show, and the whole work must go through on what the dead one left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/killed.rs"]
mod killed;

use std::fs;
use std::io::Write;
use std::path::Path;

use killed::{Told, able, assert_whole, killed};
use spec::{Digest, ErrorClass};
use store::{Options, Roots, SharedFiles, SnapshotId, Snapshots, StorageDriver, Store};

const ROOT: &str = "STORE_KILL_TEST_ROOT";
const DRIVER: &str = "STORE_KILL_TEST_DRIVER";

/// System calls that make something last, and how many of each are tried at most.
const POINTS: &[(&str, usize)] = &[
    ("openat", 60),
    ("mkdir,mkdirat", 20),
    ("rename,renameat,renameat2", 12),
    ("unlink,unlinkat", 30),
    ("fsync,fdatasync,syncfs", 16),
    ("pwrite64", 60),
    ("write", 12),
    ("ftruncate", 8),
];

/// The same where layers are copied.
const COPYING_POINTS: &[(&str, usize)] = &[
    ("mkdir,mkdirat", 16),
    ("rename,renameat,renameat2", 16),
    ("pwrite64", 60),
    ("utimensat", 16),
];

/// The same where layers share files: links besides.
const SHARING_POINTS: &[(&str, usize)] = &[
    ("mkdir,mkdirat", 24),
    ("rename,renameat,renameat2", 24),
    ("unlink,unlinkat", 60),
    ("link,linkat", 30),
    ("fsetxattr", 16),
    ("fchown", 24),
];

fn open(root: &Path, driver: &str) -> Result<Store, store::OpenError> {
    let options = match driver {
        "sharing" => Options {
            driver: StorageDriver::Overlay,
            dedup: Some(1),
        },
        driver => Options {
            driver: driver.parse().unwrap(),
            dedup: None,
        },
    };
    Store::open_as(root, options)
}

/// What is in a file of a layer.
fn read(snapshots: &Snapshots, layer: SnapshotId, name: &str) -> String {
    let dir = snapshots.fs(layer);
    let file = fs::File::open(dir.join(name)).unwrap();
    let file = match SharedFiles::beside(&dir).unwrap() {
        Some(shared) => shared.content(file).unwrap(),
        None => file,
    };
    std::io::read_to_string(file).unwrap()
}

/// The work of one process, told step by step.
fn work(root: &Path, driver: &str, mut done: impl FnMut(String)) {
    let store = open(&root.join("store"), driver).unwrap();
    let content = store.content();
    let kept = content.put(b"kept").unwrap();
    done(format!("blob {kept}"));
    let mut download = content.ingest("key").unwrap();
    if download.offset() == 0 {
        download.write_all(b"first half, ").unwrap();
        drop(download);
        download = content.ingest("key").unwrap();
    }
    let missing = &b"first half, second half"[usize::try_from(download.offset()).unwrap()..];
    download.write_all(missing).unwrap();
    let whole = Digest::sha256(b"first half, second half");
    download.commit(Some(&whole), Some(23)).unwrap();
    done(format!("blob {whole}"));
    let together = ["one of three", "two of three", "three of three"];
    let seal = |text: &str| {
        content
            .seal(text.as_bytes(), &Digest::sha256(text.as_bytes()))
            .unwrap()
    };
    let sealed = together.iter().filter_map(|text| seal(text)).collect();
    content.publish(sealed).unwrap();
    let together = together.map(|text| Digest::sha256(text.as_bytes()));
    for blob in &together {
        done(format!("blob {blob}"));
    }

    let snapshots = store.snapshots();
    let layer = |parent: Option<SnapshotId>, name: &str| {
        let chain = Digest::sha256(name.as_bytes());
        if let Some(known) = snapshots.by_chain(&chain) {
            return known;
        }
        let id = snapshots.create(parent, "unpack:1").unwrap();
        fs::write(snapshots.fs(id).join("file"), name).unwrap();
        fs::write(snapshots.fs(id).join("same"), "in every layer").unwrap();
        snapshots.commit(id, Some(&chain), Some(&chain)).unwrap()
    };
    let bottom = layer(None, "bottom");
    done(format!("layer bottom {bottom}"));
    let top = layer(Some(bottom), "top");
    done(format!("layer top {top}"));
    let container = snapshots.create(Some(top), "container:x").unwrap();
    done(format!("container {container}"));

    content.put(b"loose").unwrap();
    layer(Some(bottom), "loose");
    let roots = Roots {
        blobs: [kept, whole].into_iter().chain(together).collect(),
        snapshots: [top].into(),
    };
    store.gc(|_| Ok(roots)).unwrap();
    done("collected".to_owned());
    snapshots.remove(container).unwrap();
    done(format!("removed {container}"));
}

/// Run by the test below in a process of its own; does nothing when the suite runs it.
#[test]
fn child() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let root = Path::new(&root);
    let driver = std::env::var(DRIVER).unwrap();
    let mut told = Told::open(root);
    work(root, &driver, |line| told.line(&line));
}

/// What was told must be so.
fn check(root: &Path, at: &str) {
    let store = Store::open(&root.join("store")).unwrap_or_else(|error| panic!("{at}: {error}"));
    let (content, snapshots) = (store.content(), store.snapshots());
    let told = Told::read(root);
    let gone: Vec<&str> = told
        .lines()
        .filter_map(|line| line.strip_prefix("removed "))
        .collect();
    for line in told.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["blob", digest] => {
                let digest: Digest = digest.parse().unwrap();
                let bytes = content
                    .read(&digest, 1000)
                    .unwrap_or_else(|error| panic!("{at}: {line}: {error}"));
                assert_eq!(Digest::sha256(&bytes), digest, "{at}");
            }
            ["layer", name, id] => {
                let id: SnapshotId = id.parse().unwrap();
                assert_eq!(
                    snapshots.by_chain(&Digest::sha256(name.as_bytes())),
                    Some(id),
                    "{at}: {line}"
                );
                assert_eq!(read(snapshots, id, "file"), *name, "{at}");
                assert_eq!(read(snapshots, id, "same"), "in every layer", "{at}");
            }
            ["container", id] => {
                let id: SnapshotId = id.parse().unwrap();
                // The one thing whose end may be done before it was told.
                if !gone.contains(&words[1])
                    && let Ok(container) = snapshots.get(id)
                {
                    assert_eq!(container.owner, "container:x", "{at}: {line}");
                    assert!(snapshots.fs(id).is_dir(), "{at}: {line}");
                    if container.is_whole() {
                        let copied = fs::read_to_string(snapshots.fs(id).join("file")).unwrap();
                        assert_eq!(copied, "top", "{at}: {line}");
                    }
                }
            }
            ["collected"] => {
                assert!(!content.has(&Digest::sha256(b"loose")), "{at}");
                assert_eq!(snapshots.by_chain(&Digest::sha256(b"loose")), None, "{at}");
            }
            ["removed", id] => assert!(snapshots.get(id.parse().unwrap()).is_err(), "{at}: {line}"),
            other => panic!("{other:?}"),
        }
    }
    assert_whole(&store, at);
    assert_eq!(snapshots.strays().unwrap(), [], "{at}");
}

#[test]
fn nothing_that_was_told_is_lost_whenever_the_process_is_killed() {
    if !able() {
        return;
    }
    kill_at("overlay", POINTS);
}

#[test]
fn no_half_copy_is_taken_for_a_whole_one() {
    if !able() {
        return;
    }
    kill_at("vfs", COPYING_POINTS);
}

#[test]
fn what_layers_share_is_there_as_long_as_any_has_it() {
    if !able() {
        return;
    }
    if !rustix::process::geteuid().is_root() {
        println!("skipped: overlayfs' attributes need root");
        return;
    }
    kill_at("sharing", SHARING_POINTS);
}

fn kill_at(driver: &str, points: &[(&str, usize)]) {
    let mut kills = 0;
    for (calls, most) in points {
        for count in 1..=*most {
            let dir = tempfile::tempdir().unwrap();
            let at = format!("killed at {calls} number {count}");
            let environment = [(ROOT, dir.path().as_os_str()), (DRIVER, driver.as_ref())];
            if !killed(&environment, calls, count) {
                break;
            }
            kills += 1;
            check(dir.path(), &at);
            // The same work again, on what is there.
            Told::forget(dir.path());
            let mut told = Told::open(dir.path());
            work(dir.path(), driver, |line| told.line(&line));
            check(dir.path(), &format!("after {at}"));
        }
    }
    assert!(kills > 20, "only {kills} kills: strace did not do its work");
}

/// The disk is full at every size from nothing upwards.
#[test]
fn a_full_disk_is_told_and_costs_nothing_that_was_there() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let (_namespace, ()) = sys::namespace::create_with(sys::namespace::Kind::Mount, || {
        sys::mount::set_propagation(Path::new("/"), sys::mount::Propagation::Private, true).unwrap();
        let tmpfs = sys::mount::Filesystem::new("tmpfs").unwrap();
        tmpfs.string("size", "1m").unwrap();
        tmpfs
            .mount(0)
            .unwrap()
            .attach(std::os::fd::AsFd::as_fd(&fs::File::open(&disk).unwrap()))
            .unwrap();
        full(&disk.join("store"));
    })
    .unwrap();
}

fn full(root: &Path) {
    let store = Store::open(root).unwrap();
    let first = store.content().put(b"first").unwrap();
    let layer = store.snapshots().create(None, "unpack:1").unwrap();
    let chain = Digest::sha256(b"layer");
    let layer = store
        .snapshots()
        .commit(layer, Some(&chain), Some(&chain))
        .unwrap();
    let mut stored = Vec::new();
    let error = loop {
        let bytes = vec![u8::try_from(stored.len() % 251).unwrap(); 30_000 + stored.len()];
        match store.content().put(&bytes) {
            Ok(digest) => stored.push((digest, bytes)),
            Err(error) => break error,
        }
        assert!(stored.len() < 1000, "the disk never fills");
    };
    assert_eq!(error.class(), ErrorClass::Unavailable, "{error}");
    assert!(
        error.to_string().to_lowercase().contains("no space left"),
        "{error}"
    );
    let mut download = store.content().ingest("key").unwrap();
    let failed = download.write_all(&[1; 200_000]).unwrap_err();
    assert_eq!(failed.kind(), std::io::ErrorKind::StorageFull);
    drop(download);
    // To the last byte, so that the database has no room either.
    let brim = root.parent().unwrap().join("brim");
    let mut file = fs::File::create(&brim).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut refused = None;
    for number in 0..2000 {
        if let Err(error) = store
            .snapshots()
            .create(Some(layer), &format!("container:{number}"))
        {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("snapshots are made without room");
    assert_eq!(refused.class(), ErrorClass::Unavailable, "{refused}");
    // What was there is there, and can be read by the next process even now.
    for (digest, bytes) in &stored {
        assert_eq!(store.content().read(digest, 1 << 20).unwrap(), *bytes);
    }
    assert!(store.content().has(&first) && store.snapshots().by_chain(&chain).is_some());
    fs::remove_file(&brim).unwrap();
    store.content().remove_partial().unwrap();
    drop(store);
    let store = Store::open(root).unwrap();
    assert!(store.content().has(&first) && store.snapshots().by_chain(&chain).is_some());
    let freed = store
        .gc(|_| {
            Ok(Roots {
                blobs: [first.clone()].into(),
                snapshots: [layer].into(),
            })
        })
        .unwrap();
    assert_eq!(freed.blobs.len(), stored.len());
    store.content().put(&vec![9; 100_000]).unwrap();
}
