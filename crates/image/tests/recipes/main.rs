//! Compressed layers that are let go, and had again bit for bit: made of the unpacked layer, or fetched from where they came.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bringing;
#[allow(dead_code, reason = "other tests take the rest")]
#[path = "../../../store/tests/support/killed.rs"]
mod killed;
#[path = "../support/mod.rs"]
mod support;

mod foreign;
mod mending;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use image::{BlobPolicy, CommitLayers, Image, Images, PushOptions, Reduced, SaveOptions};
use killed::{able, assert_whole, killed};
use registry::{Client, ClientConfig};
use spec::image::media_type;
use spec::{Digest, Platform};
use store::{Options, Roots, StorageDriver, Store};
use support::servers::memory::{Fault, MemoryRegistry};
use support::servers::{DistributionRegistry, noise};
use support::{World, blocking, is_root, log, statuses, tar_of};

const ROOT: &str = "IMAGE_RECIPE_TEST_ROOT";
const HOST: &str = "IMAGE_RECIPE_TEST_HOST";

/// Text that compresses as programs do.
fn text(length: usize, seed: u64) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..200)
        .map(|word| noise(2 + word % 9, seed + word as u64))
        .collect();
    let picks = noise(length, seed + 1000);
    let mut text: Vec<u8> = picks
        .iter()
        .flat_map(|pick| words[usize::from(*pick) % words.len()].clone())
        .collect();
    text.truncate(length);
    text
}

/// An image of two layers that were made here, with everything that an archive can hold.
async fn made(world: &World, name: &str) -> Image {
    let base = tar_of(&[
        ("bin/tool", &text(3 << 20, 1)),
        ("etc/empty", b""),
        (
            &format!("deep/{}/{}", "d".repeat(120), "n".repeat(140)),
            &text(5000, 2),
        ),
    ]);
    let parent = world.import(&format!("{name}-base"), base).await;
    let (images, reference) = (world.images.clone(), name.parse().unwrap());
    blocking(move || {
        let snapshots = images.store().snapshots();
        let top = images.snapshot(&parent).unwrap();
        let layer = snapshots.create(Some(top), "build:test").unwrap();
        let root = snapshots.fs(layer);
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        fs::write(root.join("usr/lib/a"), text(700_000, 3)).unwrap();
        fs::hard_link(root.join("usr/lib/a"), root.join("usr/lib/b")).unwrap();
        symlink("a", root.join("usr/lib/c")).unwrap();
        let sparse = fs::File::create(root.join("holes")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        let layer = snapshots.commit(layer, None, None).unwrap();
        let config = parent.config.clone();
        images
            .commit_layers(CommitLayers {
                parent: Some(parent),
                layers: vec![layer],
                config,
                names: vec![reference],
            })
            .unwrap()
    })
    .await
}

async fn reduce(images: &Images, policy: BlobPolicy) -> Reduced {
    let images = images.clone();
    blocking(move || images.reduce(policy, &|| false).unwrap()).await
}

async fn save(images: &Images, name: &str) -> Vec<u8> {
    let (images, name) = (images.clone(), name.to_owned());
    blocking(move || {
        let mut out = Vec::new();
        images.save(&[name], &mut out, SaveOptions::default()).unwrap();
        out
    })
    .await
}

async fn bytes(images: &Images, blob: &Digest) -> Result<Vec<u8>, store::ContentError> {
    let (images, blob) = (images.clone(), blob.clone());
    blocking(move || {
        let mut bytes = Vec::new();
        images
            .store()
            .content()
            .open(&blob)?
            .read_to_end(&mut bytes)
            .unwrap();
        Ok(bytes)
    })
    .await
}

fn stored(images: &Images, image: &Image) -> Vec<bool> {
    let layers = image.manifest.layers.iter();
    layers
        .map(|layer| images.store().content().is_stored(&layer.digest))
        .collect()
}

/// Everything below the root of the store that belongs to images.
fn on_disk(images: &Images) -> u64 {
    let root = images.store().root();
    let files = images.store().content().list().unwrap();
    let blobs: u64 = files.iter().map(|(_, size)| size).sum();
    let snapshots = images.store().snapshots().list().unwrap();
    let layers = snapshots.iter().map(|row| {
        let fs = root.join("snapshots").join(row.id.to_string()).join("fs");
        store::measure(&fs).unwrap().bytes
    });
    blobs + layers.sum::<u64>()
}

/// Layers share files.
const SHARING: Options = Options {
    driver: StorageDriver::Overlay,
    dedup: Some(store::DEDUP_FROM),
};

/// A world whose layers share files.
fn sharing() -> World {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_as(&dir.path().join("root"), SHARING).unwrap();
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    World { images, dir }
}

/// The store of before, once nobody has it any more: what an operation has still to tidy up holds it a moment longer.
fn reopened(root: &Path) -> Store {
    reopened_as(root, Options::default())
}

fn reopened_as(root: &Path, options: Options) -> Store {
    for _ in 0..500 {
        match Store::open_as(root, options) {
            Err(store::OpenError::Locked { .. }) => std::thread::sleep(std::time::Duration::from_millis(20)),
            other => return other.unwrap(),
        }
    }
    panic!("{} stays locked", root.display());
}

fn manifest_of(config: &[u8], config_digest: &Digest, layer: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": media_type::OCI_LAYER_GZIP, "digest": Digest::sha256(layer), "size": layer.len()}],
    }))
    .unwrap()
}

fn config_of(tar: &[u8]) -> Vec<u8> {
    serde_json::to_vec(&serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(tar)]},
    }))
    .unwrap()
}

/// Has the registry serve one layer as `app:1`.
fn serve(registry: &MemoryRegistry, tar: &[u8], layer: &[u8]) -> Digest {
    let config = config_of(tar);
    let config_digest = registry.put_blob(&config);
    let digest = registry.put_blob(layer);
    let manifest = manifest_of(&config, &config_digest, layer);
    registry.put_manifest("app", "1", media_type::OCI_MANIFEST, manifest);
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_here_is_let_go_and_made_again_bit_for_bit() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let (name, other) = (registry.name("app:1"), registry.name("other:1"));
    let world = World::new();
    let image = made(&world, &name).await;
    let before = save(&world.images, &name).await;
    let size = world.images.resolve(&name).unwrap().size;

    assert_eq!(reduce(&world.images, BlobPolicy::Keep).await, Reduced::default());
    assert_eq!(stored(&world.images, &image), [true, true]);
    let reduced = reduce(&world.images, BlobPolicy::Recipe).await;
    assert_eq!(reduced.blobs, 2);
    let blobs: u64 = image.manifest.layers.iter().map(|layer| layer.size).sum();
    assert!(reduced.bytes >= blobs, "{reduced:?} of {blobs}");
    assert_eq!(stored(&world.images, &image), [false, false]);
    // The image is as it was, but for what it takes.
    let now = world.images.resolve(&name).unwrap();
    assert_eq!((&now.id, &now.manifest), (&image.id, &image.manifest));
    assert!(size - now.size > blobs * 9 / 10, "{size} {}", now.size);
    assert_eq!(world.images.missing_blobs().unwrap(), []);
    assert!(
        world
            .images
            .manifests(&now.target)
            .unwrap()
            .iter()
            .all(|m| m.available)
    );
    // Found out once, it is not found out again.
    assert_eq!(
        reduce(&world.images, BlobPolicy::Recipe).await,
        Reduced::default()
    );

    // Pushed to a registry that has nothing, then to one that has all.
    world.push(&name).await.unwrap();
    for layer in &image.manifest.layers {
        assert!(registry.has_blob(&layer.digest));
    }
    assert_eq!(
        registry.manifest("app", "1").unwrap().len() as u64,
        image.target.size
    );
    reduce(&world.images, BlobPolicy::Recipe).await;
    let received = registry.received();
    let said = statuses(&world.push(&name).await.unwrap());
    assert_eq!(
        said.iter().filter(|s| *s == "Layer already exists").count(),
        2,
        "{said:?}"
    );
    assert_eq!(registry.received(), received, "nothing goes over again");
    assert_eq!(
        stored(&world.images, &image),
        [false, false],
        "nothing is made for it"
    );
    world.images.tag(&name, &other.parse().unwrap()).unwrap();
    world.push(&other).await.unwrap();
    assert_eq!(stored(&world.images, &image), [false, false], "mounted");

    // Saved, the same archive comes out; what it was made for goes again.
    world.images.untag(&other.parse().unwrap()).unwrap();
    assert!(save(&world.images, &name).await == before);
    assert_eq!(reduce(&world.images, BlobPolicy::Recipe).await.blobs, 2);

    // Another engine gets the same.
    let there = World::new();
    let (pulled, _) = there.pull(&name).await.unwrap();
    assert_eq!(pulled.id, image.id);
    for layer in &image.manifest.layers {
        assert_eq!(
            bytes(&there.images, &layer.digest).await.unwrap(),
            bytes(&world.images, &layer.digest).await.unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_registry_gets_the_same_digests() {
    let (true, Some(first), Some(second)) = (
        is_root(),
        DistributionRegistry::start(false),
        DistributionRegistry::start(false),
    ) else {
        return;
    };
    let world = World::new();
    let (name, copy) = (first.name("team/app:1"), second.name("team/app:1"));
    let image = made(&world, &name).await;
    world.push(&name).await.unwrap();

    let there = World::new();
    there.pull(&name).await.unwrap();
    assert_eq!(reduce(&there.images, BlobPolicy::Recipe).await.blobs, 2);
    there.images.tag(&name, &copy.parse().unwrap()).unwrap();
    let (progress, _events) = log();
    let pushed = there
        .images
        .push(&copy.parse().unwrap(), PushOptions::default(), progress)
        .await
        .unwrap();
    assert_eq!(pushed.digest, image.id);
    let third = World::new();
    let (pulled, _) = third.pull(&copy).await.unwrap();
    assert_eq!(pulled.raw_config, image.raw_config);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_layers_serve_as_well() {
    if !is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open_with(&dir.path().join("root"), StorageDriver::Vfs).unwrap();
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    let world = World { images, dir };
    let image = made(&world, "local/app:1").await;
    let before = save(&world.images, "local/app:1").await;
    assert_eq!(reduce(&world.images, BlobPolicy::Recipe).await.blobs, 2);
    assert_eq!(stored(&world.images, &image), [false, false]);
    assert!(save(&world.images, "local/app:1").await == before);
}

/// Files whose content lies elsewhere are read from there.
#[tokio::test(flavor = "multi_thread")]
async fn layers_that_share_their_files_serve_as_well() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let elsewhere = MemoryRegistry::start(|_, _| None);
    let (name, copy) = (registry.name("app:1"), elsewhere.name("copy:1"));
    let origin = World::new();
    let image = made(&origin, &name).await;
    origin.push(&name).await.unwrap();

    let world = sharing();
    world.pull(&name).await.unwrap();
    // From here on there is nowhere to fetch them from.
    drop(registry);
    let snapshots = world.images.store().snapshots();
    for chain in image.chains() {
        let layer = snapshots.by_chain(&chain).unwrap();
        assert_ne!(snapshots.held(layer).unwrap().len(), 0, "files are shared");
    }
    assert_eq!(reduce(&world.images, BlobPolicy::Recipe).await.blobs, 2);
    assert_eq!(stored(&world.images, &image), [false, false]);
    world.images.tag(&name, &copy.parse().unwrap()).unwrap();
    world.push(&copy).await.unwrap();
    for layer in &image.manifest.layers {
        assert!(elsewhere.has_blob(&layer.digest));
    }
    let manifest = elsewhere.manifest("copy", "1").unwrap();
    assert_eq!(Digest::sha256(&manifest), image.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_survives_a_restart_and_an_image_on_top() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let image = made(&world, "local/app:1").await;
    reduce(&world.images, BlobPolicy::Recipe).await;
    let World { images, dir } = world;
    drop(images);
    let store = Store::open(&dir.path().join("root")).unwrap();
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    images.gc(|_| Ok(Roots::default())).unwrap();
    assert_eq!(images.missing_blobs().unwrap(), []);
    let (all, parent) = (images.clone(), images.resolve("local/app:1").unwrap());
    let top = blocking(move || {
        let config = parent.config.clone();
        let snapshots = all.store().snapshots();
        let layer = snapshots
            .create(Some(all.snapshot(&parent).unwrap()), "build:x")
            .unwrap();
        fs::write(snapshots.fs(layer).join("more"), "more").unwrap();
        let layer = snapshots.commit(layer, None, None).unwrap();
        all.commit_layers(CommitLayers {
            parent: Some(parent),
            layers: vec![layer],
            config,
            names: vec!["local/top:1".parse().unwrap()],
        })
        .unwrap()
    })
    .await;
    // The image below goes; what the one on top has of it stays possible.
    images.remove_by_digest(&image.id).unwrap();
    images.gc(|_| Ok(Roots::default())).unwrap();
    for layer in &top.manifest.layers {
        assert_eq!(
            Digest::sha256(&bytes(&images, &layer.digest).await.unwrap()),
            layer.digest
        );
    }
    // And with the last one everything goes.
    images.remove_by_digest(&top.id).unwrap();
    for image in images.list().unwrap() {
        images.remove_by_digest(&image.id).unwrap();
    }
    images.gc(|_| Ok(Roots::default())).unwrap();
    assert_eq!(images.store().content().list().unwrap(), []);
    assert_eq!(images.store().snapshots().list().unwrap(), []);
    for layer in &top.manifest.layers {
        assert!(!images.store().content().has(&layer.digest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_are_those_of_the_disk() {
    if !is_root() {
        return;
    }
    let world = World::new();
    made(&world, "local/app:1").await;
    let exact = |images: &Images| {
        let (told, found) = (images.disk_usage().unwrap().total, on_disk(images));
        assert!(
            told.abs_diff(found) * 100 <= found,
            "{told} told, {found} on the disk"
        );
        told
    };
    let before = exact(&world.images);
    let reduced = reduce(&world.images, BlobPolicy::Recipe).await;
    let after = exact(&world.images);
    assert!(
        before - after > reduced.bytes * 9 / 10,
        "{before} {after} {reduced:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_was_changed_on_the_disk_is_one_clear_error_and_a_pull_mends_it() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let name = registry.name("app:1");
    let world = World::new();
    let image = made(&world, &name).await;
    world.push(&name).await.unwrap();
    reduce(&world.images, BlobPolicy::Recipe).await;
    let snapshots = world.images.store().snapshots();
    let base = snapshots.by_chain(&image.chains()[0]).unwrap();
    let file = snapshots.fs(base).join("bin/tool");
    let mut content = fs::read(&file).unwrap();
    content[1000] ^= 1;
    fs::write(&file, content).unwrap();

    // The registry it was pushed to has it: that one counts.
    let digest = &image.manifest.layers[0].digest;
    assert_eq!(
        Digest::sha256(&bytes(&world.images, digest).await.unwrap()),
        *digest
    );
    assert_eq!(registry.sent(digest) as u64, image.manifest.layers[0].size);

    // Nobody else has the other layer.
    let alone = World::new();
    let image = made(&alone, "local/app:1").await;
    reduce(&alone.images, BlobPolicy::Recipe).await;
    let snapshots = alone.images.store().snapshots();
    let layer = snapshots.by_chain(&image.chains()[1]).unwrap();
    let digest = &image.manifest.layers[1].digest;
    fs::remove_file(snapshots.fs(layer).join("holes")).unwrap();
    let lost = bytes(&alone.images, digest).await.unwrap_err().to_string();
    assert!(
        lost.contains(digest.as_str()) && lost.contains("\"holes\"") && lost.contains("is not there"),
        "{lost}"
    );
    // Then it is missing, and says so.
    assert!(!alone.images.store().content().has(digest));
    assert_eq!(alone.images.missing_blobs().unwrap().len(), 1);
    assert!(alone.partial_downloads().is_empty());
}

/// A store with an image that was pulled, whose layers are let go, brought back for a push, and let go again.
async fn work(root: &Path, host: &str) {
    let store = Store::open(&root.join("root")).unwrap();
    store.empty_trash().unwrap();
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    reduce(&images, BlobPolicy::Recipe).await;
    let copy = format!("{host}/copy:1").parse().unwrap();
    images.tag(&format!("{host}/app:1"), &copy).unwrap();
    let (progress, _events) = log();
    images
        .push(&copy, PushOptions::default(), progress)
        .await
        .unwrap();
    reduce(&images, BlobPolicy::Recipe).await;
}

/// Run by the test below in a process of its own; does nothing when the suite runs it.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    if let (Some(root), Ok(host)) = (std::env::var_os(ROOT), std::env::var(HOST)) {
        work(Path::new(&root), &host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_killed_no_layer_is_lost() {
    if !is_root() || !able() {
        return;
    }
    const POINTS: &[(&str, usize, usize)] = &[
        ("rename,renameat,renameat2", 8, 1),
        ("fsync,fdatasync,syncfs", 16, 1),
        ("unlink,unlinkat", 8, 1),
        ("pwrite64", 40, 5),
        ("write", 30, 4),
        ("openat", 90, 13),
    ];
    let mut kills = 0;
    for (calls, most, step) in POINTS {
        for count in (1..=*most).step_by(*step) {
            let at = format!("killed at {calls} number {count}");
            let dir = tempfile::tempdir().unwrap();
            // Mounting from the repository next door would make the push easy.
            let registry = MemoryRegistry::start(|request, _| {
                request
                    .target
                    .contains("mount=")
                    .then_some(Fault::Status(404, None))
            });
            let host = registry.server.host();
            let layers = [
                tar_of(&[("first", &noise(300_000, 6))]),
                tar_of(&[("second", &text(200_000, 7))]),
            ];
            support::serve(&registry, &layers);
            let open = || {
                let store = Store::open(&dir.path().join("root")).unwrap();
                Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap()
            };
            let images = open();
            let (progress, _events) = log();
            let name = format!("{host}/app:1");
            images
                .pull(&name.parse().unwrap(), image::PullOptions::default(), progress)
                .await
                .unwrap();
            drop(images);
            let environment = [(ROOT, dir.path().as_os_str()), (HOST, OsStr::new(&host))];
            if !killed(&environment, calls, count) {
                break;
            }
            kills += 1;
            let images = open();
            assert_eq!(images.missing_blobs().unwrap(), [], "{at}");
            assert_whole(images.store(), &at);
            for layer in &layers {
                let digest = Digest::sha256(layer);
                assert!(bytes(&images, &digest).await.unwrap() == *layer, "{at}");
            }
            drop(images);
            // The same work goes through, and leaves nothing but what is needed.
            work(dir.path(), &host).await;
            let images = open();
            images.gc(|_| Ok(Roots::default())).unwrap();
            let image = images.resolve(&name).unwrap();
            assert_eq!(stored(&images, &image), [false, false], "after {at}");
            // Manifest, configuration and two recipes.
            assert_eq!(images.store().content().list().unwrap().len(), 4, "after {at}");
            assert_eq!(
                fs::read_dir(dir.path().join("root/content/ingest"))
                    .unwrap()
                    .count(),
                0
            );
        }
    }
    assert!(kills > 20, "only {kills} kills: strace did not do its work");
}

/// Archives as other tools write them come out as they came in: every dialect, maps of holes, names twice, what follows the
/// end.
#[tokio::test(flavor = "multi_thread")]
async fn archives_of_other_tools_are_made_again() {
    if !is_root() {
        return;
    }
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    fs::create_dir_all(root.join("usr/share").join("l".repeat(90)).join("m".repeat(90))).unwrap();
    fs::write(root.join("usr/share/text"), text(300_000, 11)).unwrap();
    fs::write(
        root.join("usr/share")
            .join("l".repeat(90))
            .join("m".repeat(90))
            .join("file"),
        text(40_000, 12),
    )
    .unwrap();
    fs::write(root.join("empty"), b"").unwrap();
    fs::hard_link(root.join("usr/share/text"), root.join("again")).unwrap();
    symlink("usr/share/text", root.join("link")).unwrap();
    let holes = fs::File::create(root.join("holes")).unwrap();
    holes.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&holes, b"in the middle", 1 << 20).unwrap();
    let tar = |args: &[&str]| {
        let made = Command::new("tar")
            .args(args)
            .args(["-C", &root.display().to_string(), "-cf", "-", "."])
            .output()
            .unwrap();
        assert!(made.status.success(), "{args:?}");
        made.stdout
    };
    let mut layers = vec![
        tar(&["--format=gnu"]),
        tar(&["--format=pax"]),
        tar(&["--format=posix", "--sparse"]),
        tar(&["--format=gnu", "--sparse", "-b", "1"]),
        tar(&[
            "--format=oldgnu",
            "--sparse",
            "--owner=70000000",
            "--numeric-owner",
        ]),
    ];
    // A name twice, with another length and with another content; and something after the end.
    let mut odd = tar_of(&[
        ("twice", &text(90_000, 13)),
        ("twice", &text(200_000, 14)),
        ("./same", &text(100_000, 15)),
    ]);
    odd.extend([0; 4096]);
    odd.extend(b"behind the end");
    layers.push(odd);
    for (number, layer) in layers.iter().enumerate() {
        let registry = MemoryRegistry::start(|_, _| None);
        support::serve(&registry, std::slice::from_ref(layer));
        let world = World::new();
        let (image, _) = world.pull(&registry.name("app:1")).await.unwrap();
        assert_eq!(
            reduce(&world.images, BlobPolicy::Recipe).await.blobs,
            1,
            "archive {number}"
        );
        assert_eq!(stored(&world.images, &image), [false]);
        let digest = &image.manifest.layers[0].digest;
        assert!(
            bytes(&world.images, digest).await.unwrap() == *layer,
            "archive {number}"
        );
    }
    // With the same length and another content there is no recipe, and the layer stays as it is.
    let twice = tar_of(&[("twice", &text(90_000, 16)), ("twice", &text(90_000, 17))]);
    let registry = MemoryRegistry::start(|_, _| None);
    support::serve(&registry, std::slice::from_ref(&twice));
    let world = World::new();
    let (image, _) = world.pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(
        reduce(&world.images, BlobPolicy::Recipe).await,
        Reduced::default()
    );
    assert_eq!(stored(&world.images, &image), [true]);
    assert_eq!(
        world.images.store().content().list().unwrap().len(),
        3,
        "no recipe is left"
    );
}
