//! Blobs that are brought back while something else is under way, or fails on the first try.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use super::foreign::foreign_gzip;
use super::*;

/// Has the registry serve an image of these layers, each given as it travels and as its archive.
fn publish(registry: &MemoryRegistry, name: &str, layers: &[(Vec<u8>, Vec<u8>)]) {
    let diffs: Vec<Digest> = layers.iter().map(|(_, tar)| Digest::sha256(tar)).collect();
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diffs},
    }))
    .unwrap();
    let described = |(blob, _): &(Vec<u8>, Vec<u8>)| {
        serde_json::json!({
            "mediaType": media_type::OCI_LAYER_GZIP, "digest": registry.put_blob(blob), "size": blob.len(),
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": registry.put_blob(&config), "size": config.len()},
        "layers": layers.iter().map(described).collect::<Vec<_>>(),
    });
    let manifest = serde_json::to_vec(&manifest).unwrap();
    registry.put_manifest(name, "1", media_type::OCI_MANIFEST, manifest);
}

fn layer(seed: u64) -> (Vec<u8>, Vec<u8>) {
    let tar = tar_of(&[(&format!("file{seed}"), &text(200_000, seed))]);
    (foreign_gzip(&tar), tar)
}

/// A manifest can say that a layer's archive is its compressed form, and so have one digest for what is unpacked and what is
/// brought back for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_brought_back_while_its_digest_is_unpacked() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let world = World::new();
    let image = made(&world, &registry.name("good:1")).await;
    world.push(&registry.name("good:1")).await.unwrap();
    let blob = bytes(&world.images, &image.manifest.layers[0].digest)
        .await
        .unwrap();
    assert_eq!(reduce(&world.images, BlobPolicy::Recipe).await.blobs, 2);
    publish(&registry, "bad", &[(blob.clone(), blob)]);
    let refused = world.pull(&registry.name("bad:1")).await.unwrap_err().to_string();
    assert!(
        refused.contains(image.manifest.layers[0].digest.as_str()),
        "{refused}"
    );
    // And the image it is of is what it was.
    assert!(!save(&world.images, &registry.name("good:1")).await.is_empty());
}

/// A file of an image's top layer.
async fn shown(images: &Images, image: &Image) -> Vec<u8> {
    let (images, image) = (images.clone(), image.clone());
    blocking(move || {
        let top = images.snapshot(&image).unwrap();
        fs::read(images.store().snapshots().fs(top).join("file20")).unwrap()
    })
    .await
}

/// A layer that was let go, of another image with other layers below: whoever pulls has it, and fetches it.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_fetches_what_another_image_let_go() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let world = World::new();
    let shared = layer(20);
    let digest = Digest::sha256(&shared.0);
    publish(&registry, "one", &[layer(21), shared.clone()]);
    world.pull(&registry.name("one:1")).await.unwrap();
    assert_eq!(reduce(&world.images, BlobPolicy::Drop).await.blobs, 2);
    let layers: Vec<_> = (22..27).map(layer).chain([shared.clone()]).collect();
    publish(&registry, "two", &layers);
    let (image, _) = world.pull(&registry.name("two:1")).await.unwrap();
    assert_eq!(registry.sent(&digest), 2 * shared.0.len());
    assert_eq!(shown(&world.images, &image).await, text(200_000, 20));

    // Nothing of it is unpacked any more: what is needed for that comes by itself.
    assert_eq!(reduce(&world.images, BlobPolicy::Drop).await.blobs, 6);
    let World { images, dir } = world;
    let root = images.store().root().to_owned();
    drop(images);
    fs::remove_dir_all(root.join("snapshots")).unwrap();
    let store = reopened(&root);
    let images = Images::open(store, Client::new(ClientConfig::default()).unwrap()).unwrap();
    let world = World { images, dir };
    assert_eq!(shown(&world.images, &image).await, text(200_000, 20));
}

/// One registry of two does not answer, the other one has it no more: another day the first may.
#[tokio::test(flavor = "multi_thread")]
async fn one_registry_that_refuses_is_not_the_end() {
    if !is_root() {
        return;
    }
    let status = || Arc::new(AtomicU16::new(0));
    let start = |status: &Arc<AtomicU16>| {
        let status = status.clone();
        MemoryRegistry::start(move |_, _| match status.load(Ordering::Relaxed) {
            0 => None,
            code => Some(Fault::Status(code, None)),
        })
    };
    let mut registries = [status(), status()].map(|status| (start(&status), status));
    // In the order in which they are asked.
    registries.sort_by_key(|(registry, _)| registry.name("app:1"));
    let shared = layer(30);
    let digest = Digest::sha256(&shared.0);
    let world = World::with(ClientConfig {
        attempts: 1,
        ..ClientConfig::default()
    });
    for (registry, _) in &registries {
        publish(registry, "app", std::slice::from_ref(&shared));
        world.pull(&registry.name("app:1")).await.unwrap();
    }
    assert_eq!(reduce(&world.images, BlobPolicy::Drop).await.blobs, 1);
    registries[0].1.store(503, Ordering::Relaxed);
    registries[1].1.store(404, Ordering::Relaxed);
    for _ in 0..2 {
        let failed = bytes(&world.images, &digest).await.unwrap_err();
        assert!(failed.to_string().contains(digest.as_str()), "{failed}");
    }
    registries[0].1.store(0, Ordering::Relaxed);
    assert_eq!(bytes(&world.images, &digest).await.unwrap(), shared.0);
}

/// Content that a layer shares and that cannot be read now is no reason to forget how the layer is made.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_now_is_made_another_time() {
    if !is_root() {
        return;
    }
    let world = sharing();
    let image = made(&world, "local/app:1").await;
    let before = save(&world.images, "local/app:1").await;
    assert_eq!(reduce(&world.images, BlobPolicy::Recipe).await.blobs, 2);
    let objects = world.images.store().root().join("objects/files");
    let object = fs::read_dir(&objects)
        .unwrap()
        .flat_map(|dir| fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .max_by_key(|file| file.metadata().unwrap().len())
        .unwrap();
    let aside = world.dir.path().join("aside");
    fs::rename(&object, &aside).unwrap();
    let digest = &image.manifest.layers[0].digest;
    let failed = bytes(&world.images, digest).await.unwrap_err().to_string();
    assert!(failed.contains("bin/tool"), "{failed}");
    fs::rename(&aside, &object).unwrap();
    assert!(save(&world.images, "local/app:1").await == before);
}

/// Of a layer that is here twice, one copy is enough.
#[tokio::test(flavor = "multi_thread")]
async fn any_whole_copy_of_a_layer_will_do() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let world = World::new();
    let tar = tar_of(&[("file", &text(200_000, 40))]);
    let (shared, below) = ((tar.clone(), tar), layer(41));
    publish(&registry, "one", std::slice::from_ref(&shared));
    publish(&registry, "two", &[below, shared.clone()]);
    let (one, _) = world.pull(&registry.name("one:1")).await.unwrap();
    world.pull(&registry.name("two:1")).await.unwrap();
    drop(registry);
    let digest = Digest::sha256(&shared.0);
    assert!(reduce(&world.images, BlobPolicy::Recipe).await.blobs >= 1);
    let store = world.images.store();
    assert!(!store.content().is_stored(&digest));
    let first = store.snapshots().by_chain(&one.chains()[0]).unwrap();
    fs::write(store.snapshots().fs(first).join("file"), "changed").unwrap();
    assert_eq!(bytes(&world.images, &digest).await.unwrap(), shared.0);
}
