//! What a crash leaves, what a second daemon is told, and what collection keeps.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;

use spec::Digest;
use store::{DbError, IngestError, OpenError, RemoveError, Roots, Store};

#[test]
fn a_second_daemon_is_told_who_holds_the_root() {
    let dir = tempfile::tempdir().unwrap();
    let held = Store::open(dir.path()).unwrap();
    let Err(OpenError::Locked { holder, .. }) = Store::open(dir.path()) else {
        panic!("two daemons hold one root");
    };
    assert_eq!(holder, Some(std::process::id()));
    drop(held);
    Store::open(dir.path()).unwrap();
}

#[test]
fn tables_of_a_newer_program_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let steps = ["CREATE TABLE one (a)", "CREATE TABLE two (a)"];
    store.db().migrate("room", &steps).unwrap();
    store.db().migrate("room", &steps).unwrap();
    let error = store.db().migrate("room", &steps[..1]).unwrap_err();
    assert!(
        matches!(
            error,
            DbError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_download_goes_on_and_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::sha256(b"hello world");
    let store = Store::open(dir.path()).unwrap();
    let mut first = store.content().ingest("key").unwrap();
    first.write_all(b"hello ").unwrap();
    assert!(matches!(store.content().ingest("key"), Err(IngestError::Busy(_))));
    drop(first);
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    let mut second = store.content().ingest("key").unwrap();
    assert_eq!(second.offset(), 6);
    second.write_all(b"world").unwrap();
    second.commit(Some(&digest), Some(11)).unwrap();
    assert_eq!(store.content().read(&digest, 100).unwrap(), b"hello world");

    let mut wrong = store.content().ingest("other").unwrap();
    wrong.write_all(b"evil").unwrap();
    let error = wrong.commit(Some(&Digest::sha256(b"good")), None).unwrap_err();
    assert!(matches!(error, IngestError::DigestMismatch { .. }), "{error}");
    assert_eq!(
        fs::read_dir(dir.path().join("content/ingest")).unwrap().count(),
        0
    );
}

#[test]
fn blobs_become_visible_together_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let content = store.content();
    let texts: Vec<String> = (0..40).map(|number| format!("text {number}")).collect();
    let digests: Vec<Digest> = texts.iter().map(|text| Digest::sha256(text.as_bytes())).collect();
    let seal = |text: &String, digest: &Digest| content.seal(text.as_bytes(), digest).unwrap();
    let sealed: Vec<_> = texts
        .iter()
        .zip(&digests)
        .filter_map(|(text, digest)| seal(text, digest))
        .collect();
    assert_eq!((sealed.len(), content.list().unwrap().len()), (40, 0));
    assert_eq!((sealed[3].digest(), sealed[3].size()), (&digests[3], 6));
    content.publish(sealed).unwrap();
    for (text, digest) in texts.iter().zip(&digests) {
        assert_eq!(content.read(digest, 100).unwrap(), text.as_bytes());
        assert!(seal(text, digest).is_none());
    }
    // What is given up leaves nothing.
    let other = Digest::sha256(b"other");
    drop(content.seal(b"other", &other).unwrap());
    assert!(!content.has(&other));
    assert!(content.seal(b"another", &other).is_err());
    assert_eq!(
        fs::read_dir(dir.path().join("content/ingest")).unwrap().count(),
        0
    );
}

#[test]
fn leftovers_of_a_crash_go_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let unpack = store.snapshots().create(None, "unpack:1").unwrap();
    let container = store.snapshots().create(None, "container:x").unwrap();
    let stray = dir.path().join("snapshots/999/fs");
    fs::create_dir_all(&stray).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert!(store.snapshots().get(unpack).is_err());
    assert!(!store.snapshots().fs(unpack).exists());
    assert!(!stray.exists());
    assert!(store.snapshots().fs(container).is_dir());
}

#[test]
fn collection_keeps_roots_parents_and_leases() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let snapshots = store.snapshots();
    let layer = |parent, name: &[u8]| {
        let id = snapshots.create(parent, "unpack:1").unwrap();
        let digest = Digest::sha256(name);
        snapshots.commit(id, Some(&digest), Some(&digest)).unwrap()
    };
    let bottom = layer(None, b"bottom");
    let top = layer(Some(bottom), b"top");
    let loose = layer(Some(bottom), b"loose");
    let leased = layer(None, b"leased");
    assert_eq!(layer(None, b"bottom"), bottom);
    assert!(matches!(
        snapshots.remove(bottom),
        Err(RemoveError::HasChildren { children: 2, .. })
    ));
    let kept = store.content().put(b"kept").unwrap();
    let gone = store.content().put(b"gone").unwrap();
    let lease = store.lease();
    lease.hold_snapshot(leased);
    let freed = store
        .gc(|_| {
            Ok(Roots {
                blobs: [kept.clone()].into(),
                snapshots: [top].into(),
            })
        })
        .unwrap();
    assert_eq!(freed.snapshots, [loose]);
    assert_eq!(freed.blobs, [gone]);
    assert!(store.content().has(&kept) && snapshots.get(leased).is_ok());
    assert!(!snapshots.fs(loose).exists());
    drop(lease);
}

/// Whoever looks and keeps what is found need not look again: a collection that comes meanwhile waits, and then leaves it.
#[test]
fn nothing_goes_between_a_look_and_the_hold() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let chain = Digest::sha256(b"layer");
    let id = store.snapshots().create(None, "unpack:1").unwrap();
    store.snapshots().commit(id, Some(&chain), Some(&chain)).unwrap();
    let (lease, collector) = (store.lease(), store.clone());
    let (look, looked) = std::sync::mpsc::channel();
    let collecting = std::thread::spawn(move || {
        looked.recv().unwrap();
        collector.gc(|_| Ok(Roots::default())).unwrap()
    });
    lease.keep_found(|keep| {
        let found = store.snapshots().by_chain(&chain).unwrap();
        look.send(()).unwrap();
        // Long enough for a collection that does not wait.
        std::thread::sleep(std::time::Duration::from_millis(100));
        keep(found);
    });
    assert!(collecting.join().unwrap().snapshots.is_empty());
    assert_eq!(store.snapshots().by_chain_kept(&chain, &store.lease()), Some(id));
    drop(lease);
    assert_eq!(store.gc(|_| Ok(Roots::default())).unwrap().snapshots, [id]);
    assert_eq!(store.snapshots().by_chain_kept(&chain, &store.lease()), None);
}

/// What blobs are made again of is whole: neither a layer that a power cut may have torn nor one whose files are gone.
#[test]
fn layers_that_are_not_what_they_were_are_nothing_to_copy_from() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let diff = Digest::sha256(b"diff");
    let layers = ["torn", "lost", "whole"].map(|name| {
        let id = store.snapshots().create(None, "unpack:1").unwrap();
        let chain = Digest::sha256(name.as_bytes());
        store.snapshots().commit(id, Some(&chain), Some(&diff)).unwrap()
    });
    let [torn, lost, whole] = layers;
    store.snapshots().settle().unwrap();
    assert_eq!(store.snapshots().by_diff(&diff).unwrap(), layers);
    let sql = "UPDATE snapshot SET settled = 0, boot = 'an earlier one' WHERE id = ?1";
    let written = store.db().write::<_, DbError>(|tx| Ok(tx.execute(sql, [torn])?));
    assert_eq!(written.unwrap(), 1);
    fs::remove_dir_all(store.snapshots().fs(lost)).unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    store.snapshots().settle().unwrap();
    assert_eq!(store.snapshots().by_diff(&diff).unwrap(), [whole]);
}

/// Layers of one image are unpacked side by side, so that a layer may have a lower number than the one it lies on.
#[test]
fn a_stack_that_lost_all_its_files_is_made_again_from_below() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let snapshots = store.snapshots();
    let begun: Vec<_> = (0..3)
        .map(|_| snapshots.create(None, "unpack:1").unwrap())
        .collect();
    let chain = |number: usize| Digest::sha256(&[number as u8]);
    // The last one begun is the lowest.
    let mut below = snapshots.commit(begun[2], Some(&chain(2)), None).unwrap();
    for number in [1, 0] {
        let chain = chain(number);
        below = snapshots
            .commit_on(begun[number], below, Some(&chain), None)
            .unwrap();
    }
    let container = snapshots.create(Some(below), "container:x").unwrap();
    drop(store);
    fs::remove_dir_all(dir.path().join("snapshots")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    let snapshots = store.snapshots();
    for (number, id) in begun.iter().enumerate() {
        assert_eq!(snapshots.by_chain(&chain(number)), None);
        assert!(snapshots.fs(*id).is_dir());
    }
    assert!(snapshots.fs(container).is_dir());
    assert_eq!(snapshots.parent(container), Some(begun[0]));
}
