//! A process that is killed at each point where pull, push, load, commit or prune make something last.
//!
//! What the child ([`killed`]) was told is done must be so for the next process, nothing half may show, and the same work
//! must go through on what is there, downloading only what is missing: the registry counts the bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "../../store/tests/support/killed.rs"]
mod killed;
mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use image::{CommitLayers, Images, LoadOptions, PullOptions, PushOptions};
use killed::{Told, able, assert_whole, killed};
use registry::{Client, ClientConfig};
use spec::Digest;
use store::{Roots, Store};
use support::servers::memory::MemoryRegistry;
use support::servers::noise;
use support::{is_root, log, tar_of};

const ROOT: &str = "IMAGE_KILL_TEST_ROOT";
const HOST: &str = "IMAGE_KILL_TEST_HOST";
const LAYER: usize = 400_000;

/// System calls that make something last: how many of each are tried, and in which steps.
const POINTS: &[(&str, usize, usize)] = &[
    ("rename,renameat,renameat2", 12, 1),
    ("fsync,fdatasync,syncfs", 12, 1),
    ("unlink,unlinkat", 10, 1),
    ("mkdir,mkdirat", 8, 1),
    ("pwrite64", 60, 7),
    ("write", 16, 2),
    ("ftruncate", 4, 1),
    ("linkat,symlinkat,mknodat", 3, 1),
    ("openat", 120, 17),
];

fn open(root: &Path) -> Images {
    let store = Store::open(&root.join("root")).unwrap();
    // As a daemon does that starts.
    store.empty_trash().unwrap();
    Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap()
}

/// The layers of what is pulled, which are unpacked at the same time: the second takes the first one's directories for
/// granted, the third links to the second one's file.
fn layers() -> Vec<Vec<u8>> {
    let mut linked = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Link);
    header.set_size(0);
    header.set_mode(0o644);
    linked
        .append_link(&mut header, "alias", "deep/down/second")
        .unwrap();
    vec![
        tar_of(&[("deep/down/first", &noise(LAYER, 6))]),
        tar_of(&[("deep/down/second", &noise(LAYER / 4, 7))]),
        linked.into_inner().unwrap(),
    ]
}

/// An archive of one image, `loaded:1`.
fn archive() -> Vec<u8> {
    let layer = tar_of(&[("loaded", b"from an archive")]);
    let config = serde_json::json!({
        "architecture": spec::Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&layer)]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = br#"[{"Config":"c.json","RepoTags":["loaded:1"],"Layers":["l.tar"]}]"#;
    tar_of(&[
        ("c.json", &config),
        ("l.tar", &layer),
        ("manifest.json", manifest),
    ])
}

/// The work of one process, told step by step.
async fn work(root: &Path, host: &str, mut done: impl FnMut(String)) {
    let images = open(root);
    let name = |text: &str| format!("{host}/{text}").parse().unwrap();
    let (progress, _events) = log();
    images
        .pull(&name("app:1"), PullOptions::default(), progress)
        .await
        .unwrap();
    done(format!("image {host}/app:1"));
    let both = images.clone();
    support::blocking(move || {
        both.load(archive().as_slice(), LoadOptions::default(), log().0)
            .unwrap()
    })
    .await;
    done("image loaded:1".to_owned());
    let all = images.clone();
    let pushed = host.to_owned();
    support::blocking(move || {
        all.tag("loaded:1", &format!("{pushed}/copy:1").parse().unwrap())
            .unwrap();
        let image = all.resolve("loaded:1").unwrap();
        let top = all.snapshot(&image).unwrap();
        let container = all.store().snapshots().create(Some(top), "container:x").unwrap();
        fs::write(
            all.store().snapshots().fs(container).join("made"),
            "by a container",
        )
        .unwrap();
        let config = image.config.clone();
        all.commit_layers(CommitLayers {
            parent: Some(image),
            layers: vec![container],
            config,
            names: vec!["committed:1".parse().unwrap()],
        })
        .unwrap();
        all.store().snapshots().remove(container).unwrap();
    })
    .await;
    done("image committed:1".to_owned());
    let (progress, _events) = log();
    images
        .push(&name("copy:1"), PushOptions::default(), progress)
        .await
        .unwrap();
    done("pushed".to_owned());
    let all = images.clone();
    support::blocking(move || {
        let gone = all.resolve("loaded:1").unwrap().id;
        all.remove_by_digest(&gone).unwrap();
        all.gc(|_| Ok(Roots::default())).unwrap();
    })
    .await;
    done("removed loaded:1".to_owned());
}

/// Run by the test below in a process of its own; does nothing when the suite runs it.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let (Some(root), Ok(host)) = (std::env::var_os(ROOT), std::env::var(HOST)) else {
        return;
    };
    let root = Path::new(&root);
    let mut told = Told::open(root);
    work(root, &host, |line| told.line(&line)).await;
}

/// What was told must be so, and everything that shows must be whole.
fn check(root: &Path, registry: &MemoryRegistry, at: &str) {
    let images = open(root);
    assert_eq!(images.missing_blobs().unwrap(), [], "{at}");
    let told = Told::read(root);
    for line in told.lines() {
        match line.split_once(' ') {
            Some(("image", "loaded:1")) if told.contains("committed:1") => {}
            Some(("image", name)) => {
                let image = images
                    .resolve(name)
                    .unwrap_or_else(|error| panic!("{at}: {line}: {error}"));
                images
                    .snapshot(&image)
                    .unwrap_or_else(|error| panic!("{at}: {line}: {error}"));
            }
            Some(("removed", name)) => assert!(images.resolve(name).is_err(), "{at}: {line}"),
            _ => assert!(
                line == "pushed" && registry.manifest("copy", "1").is_some(),
                "{at}: {line}"
            ),
        }
    }
    let store = images.store();
    for image in images.list().unwrap() {
        // Every layer is there, and has what its chain ID says.
        let image = images.resolve(image.id.as_str()).unwrap();
        for (diff, chain) in image.config.rootfs.diff_ids.iter().zip(image.chains()) {
            if let Some(snapshot) = store.snapshots().by_chain(&chain) {
                assert_eq!(store.snapshots().diff_of(snapshot).as_ref(), Some(diff), "{at}");
                assert!(
                    fs::read_dir(store.snapshots().fs(snapshot)).unwrap().count() > 0,
                    "{at}: an empty layer"
                );
            }
        }
    }
    assert_whole(store, at);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_nothing_is_lost_and_only_what_is_missing_is_fetched() {
    if !is_root() || !able() {
        return;
    }
    let mut kills = 0;
    for (calls, most, step) in POINTS {
        for count in (1..=*most).step_by(*step) {
            let dir = tempfile::tempdir().unwrap();
            let at = format!("killed at {calls} number {count}");
            let registry = MemoryRegistry::start(|_, _| None);
            let layers = layers();
            let digests = support::serve(&registry, &layers);
            let host = registry.server.host();
            let environment = [(ROOT, dir.path().as_os_str()), (HOST, OsStr::new(&host))];
            if !killed(&environment, calls, count) {
                break;
            }
            kills += 1;
            check(dir.path(), &registry, &at);
            // Of each layer, what the dead one wrote is not fetched again.
            let kept = |digest: &Digest| match fs::metadata(
                dir.path().join("root/content/blobs/sha256").join(digest.hex()),
            ) {
                Ok(blob) => blob.len(),
                Err(_) => {
                    let key = Digest::sha256(digest.as_str().as_bytes());
                    let partial = dir.path().join("root/content/ingest").join(key.hex());
                    fs::metadata(partial).map_or(0, |partial| partial.len())
                }
            };
            let before: Vec<(u64, usize)> = digests
                .iter()
                .map(|digest| (kept(digest), registry.sent(digest)))
                .collect();
            Told::forget(dir.path());
            let mut told = Told::open(dir.path());
            work(dir.path(), &host, |line| told.line(&line)).await;
            for ((digest, layer), (kept, sent)) in digests.iter().zip(&layers).zip(before) {
                let fetched = (registry.sent(digest) - sent) as u64;
                assert_eq!(fetched + kept, layer.len() as u64, "{at}: fetched again");
            }
            check(dir.path(), &registry, &format!("after {at}"));
            for left in ["root/content/ingest", "root/trash"] {
                // The trash is emptied in the background.
                let is_empty = || fs::read_dir(dir.path().join(left)).unwrap().count() == 0;
                let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
                while !is_empty() && std::time::Instant::now() < end {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                assert!(is_empty(), "after {at}: {left}");
            }
        }
    }
    assert!(kills > 25, "only {kills} kills: strace did not do its work");
}
