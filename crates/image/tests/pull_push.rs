//! Pulling and pushing against a real registry, over cut connections, and from registries that hold rubbish.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use image::{CommitLayers, Image, ImageError};
use spec::image::{ImageConfig, media_type};
use spec::{Digest, Platform};
use support::servers::memory::MemoryRegistry;
use support::servers::{Answer, Canned, CuttingProxy, DistributionRegistry, noise};
use support::{World, blocking, is_root, statuses, tar_of};

/// Adds a layer with one file to `parent`.
async fn derive(world: &World, parent: &Image, path: &'static str, content: Vec<u8>, name: &str) -> Image {
    let (images, parent, reference) = (world.images.clone(), parent.clone(), name.parse().unwrap());
    blocking(move || {
        let snapshots = images.store().snapshots();
        let top = images.snapshot(&parent).unwrap();
        let layer = snapshots.create(Some(top), "build:test").unwrap();
        std::fs::write(snapshots.fs(layer).join(path), content).unwrap();
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

#[tokio::test(flavor = "multi_thread")]
async fn an_image_survives_the_round_trip() {
    let (true, Some(server)) = (is_root(), DistributionRegistry::start(false)) else {
        return;
    };
    let (base_name, name) = (server.name("team/base:1"), server.name("team/app:1"));
    let here = World::new();
    let base = here
        .import(
            &base_name,
            tar_of(&[("etc/base", b"base"), ("big", &noise(2 << 20, 1))]),
        )
        .await;
    let app = derive(&here, &base, "app", b"app".to_vec(), &name).await;
    assert_eq!(app.config.rootfs.diff_ids.len(), 2);

    let said = statuses(&here.push(&base_name).await.unwrap());
    assert!(
        said.contains(&"Preparing".to_owned()) && said.contains(&"Pushed".to_owned()),
        "{said:?}"
    );
    assert!(
        said.contains(&format!("1: digest: {} size: {}", base.id, base.target.size)),
        "{said:?}"
    );
    // The lower layer is in the neighbour repository already.
    let said = statuses(&here.push(&name).await.unwrap());
    assert!(said.contains(&"Mounted from team/base".to_owned()), "{said:?}");
    let said = statuses(&here.push(&name).await.unwrap());
    assert_eq!(
        said.iter().filter(|s| *s == "Layer already exists").count(),
        2,
        "{said:?}"
    );

    let there = World::new();
    let (pulled, events) = there.pull(&name).await.unwrap();
    let said = statuses(&events);
    assert_eq!(pulled.id, app.id);
    assert_eq!(pulled.raw_config, app.raw_config);
    assert_eq!(there.read(&pulled, "app").as_deref(), Some("app"));
    assert_eq!(there.read(&pulled, "etc/base").as_deref(), Some("base"));
    assert_eq!(events[0].id.as_deref(), Some("1"));
    assert_eq!(said[0], "Pulling from team/app");
    for word in [
        "Pulling fs layer",
        "Verifying Checksum",
        "Download complete",
        "Pull complete",
    ] {
        assert_eq!(said.iter().filter(|s| *s == word).count(), 2, "{word}: {said:?}");
    }
    assert!(said.contains(&format!("Digest: {}", app.id)));
    assert_eq!(
        said.last().unwrap(),
        &format!("Status: Downloaded newer image for {name}")
    );
    assert_eq!(
        pulled.repo_digests,
        [format!("{}@{}", server.name("team/app"), app.id)]
    );

    let (_, events) = there.pull(&name).await.unwrap();
    let said = statuses(&events);
    assert_eq!(said.iter().filter(|s| *s == "Already exists").count(), 2);
    assert_eq!(
        said.last().unwrap(),
        &format!("Status: Image is up to date for {name}")
    );

    let by_digest = format!("{}@{}", server.name("team/base"), base.id);
    let (pulled, _) = there.pull(&by_digest).await.unwrap();
    assert_eq!(pulled.id, base.id);
    assert!(pulled.repo_tags().is_empty());
    assert_eq!(there.images.resolve(&by_digest).unwrap().id, base.id);
    assert!(there.partial_downloads().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tags_come_when_asked_for() {
    let (true, Some(server)) = (is_root(), DistributionRegistry::start(false)) else {
        return;
    };
    let here = World::new();
    for tag in ["a", "b"] {
        let name = server.name(&format!("app:{tag}"));
        here.import(&name, tar_of(&[("tag", tag.as_bytes())])).await;
        here.push(&name).await.unwrap();
    }
    let there = World::new();
    let options = image::PullOptions {
        all_tags: true,
        ..Default::default()
    };
    there
        .images
        .pull(&server.name("app").parse().unwrap(), options, support::log().0)
        .await
        .unwrap();
    assert_eq!(there.images.list().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_pull_ends_well() {
    let (true, Some(server)) = (is_root(), DistributionRegistry::start(false)) else {
        return;
    };
    let here = World::new();
    let name = server.name("app:1");
    let image = here
        .import(&name, tar_of(&[("noise", &noise(4 << 20, 5)), ("end", b"end")]))
        .await;
    here.push(&name).await.unwrap();
    let proxy = CuttingProxy::start(server.port, 3, 1 << 20, false);
    let there = World::new();
    let (pulled, _) = there
        .pull(&format!("127.0.0.1:{}/app:1", proxy.port))
        .await
        .unwrap();
    assert_eq!(pulled.id, image.id);
    assert_eq!(there.read(&pulled, "end").as_deref(), Some("end"));
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_given_up_is_resumed_by_the_next() {
    let (true, Some(server)) = (is_root(), DistributionRegistry::start(false)) else {
        return;
    };
    let here = World::new();
    let name = server.name("app:1");
    let image = here.import(&name, tar_of(&[("noise", &noise(8 << 20, 6))])).await;
    here.push(&name).await.unwrap();
    let there = World::with(registry::ClientConfig {
        attempts: 1,
        ..Default::default()
    });
    // Cuts whatever is longer than 2 MiB, again and again.
    let proxy = CuttingProxy::start(server.port, usize::MAX, 2 << 20, false);
    let through = format!("127.0.0.1:{}/app:1", proxy.port);
    let error = there.pull(&through).await.unwrap_err();
    assert!(matches!(error, ImageError::Shared(_)), "{error}");
    assert!(there.images.list().unwrap().is_empty());
    assert!(there.images.store().snapshots().list().unwrap().is_empty());
    assert_eq!(there.partial_downloads().len(), 1);
    let mut attempts = 1;
    let pulled = loop {
        match there.pull(&through).await {
            Ok((pulled, _)) => break pulled,
            Err(_) => attempts += 1,
        }
        assert!(attempts < 20, "no progress from attempt to attempt");
    };
    assert_eq!(pulled.id, image.id);
    assert!(attempts > 1);
}

/// The file in which the registry keeps a blob.
fn stored(server: &DistributionRegistry, digest: &Digest) -> PathBuf {
    let (hex, data) = (
        digest.hex(),
        server.storage.path().join("data/docker/registry/v2/blobs/sha256"),
    );
    data.join(&hex[..2]).join(hex).join("data")
}

async fn pull_of_rubbish(change: impl Fn(&Path)) -> (World, ImageError) {
    let server = DistributionRegistry::start(false).unwrap();
    let here = World::new();
    let name = server.name("app:1");
    let image = here.import(&name, tar_of(&[("noise", &noise(1 << 20, 7))])).await;
    here.push(&name).await.unwrap();
    change(&stored(&server, &image.manifest.layers[0].digest));
    let there = World::with(registry::ClientConfig {
        attempts: 2,
        ..Default::default()
    });
    let error = there.pull(&name).await.unwrap_err();
    (there, error)
}

fn nothing_is_left(world: &World) {
    assert!(world.images.list().unwrap().is_empty());
    assert!(world.images.store().snapshots().list().unwrap().is_empty());
    assert!(world.images.store().content().list().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupt_layer_is_refused() {
    if !is_root() || !Path::new("/usr/bin/docker-registry").exists() {
        return;
    }
    let (world, error) = pull_of_rubbish(|file| {
        let mut bytes = std::fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(file, bytes).unwrap();
    })
    .await;
    assert!(
        error
            .to_string()
            .starts_with("filesystem layer verification failed for digest sha256:"),
        "{error}"
    );
    assert!(world.partial_downloads().is_empty());
    nothing_is_left(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_layer_is_refused() {
    if !is_root() || !Path::new("/usr/bin/docker-registry").exists() {
        return;
    }
    let (world, error) = pull_of_rubbish(|file| {
        let bytes = std::fs::read(file).unwrap();
        std::fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    })
    .await;
    assert!(
        error.to_string().contains("unexpected EOF") || error.to_string().contains("416"),
        "{error}"
    );
    // Whole documents and layers wait for another attempt until the next collection.
    world.images.gc(|_| Ok(store::Roots::default())).unwrap();
    nothing_is_left(&world);
}

/// A registry of documents and blobs held in memory.
fn memory_registry(tag: Vec<u8>, media_type: &'static str, blobs: Vec<Vec<u8>>) -> Canned {
    Canned::start(move |request| {
        let last = request.target.rsplit('/').next().unwrap_or_default().to_owned();
        if last == "1" {
            return Answer::new(200, tag.clone()).with("content-type", media_type);
        }
        match blobs.iter().find(|b| Digest::sha256(b).to_string() == last) {
            Some(bytes) => Answer::new(200, bytes.clone()).with("content-type", media_type::OCI_MANIFEST),
            None => Answer::new(404, r#"{"errors":[{"code":"BLOB_UNKNOWN"}]}"#),
        }
    })
}

fn document(config: &[u8], layers: &[&[u8]]) -> Vec<u8> {
    let part = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()});
    let layers: Vec<_> = layers.iter().map(|l| part(media_type::OCI_LAYER, l)).collect();
    serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": part(media_type::OCI_CONFIG, config), "layers": layers,
    }))
    .unwrap()
}

fn config_for(platform: &str, layers: &[&[u8]]) -> Vec<u8> {
    let mut config = ImageConfig::new(&platform.parse().unwrap());
    config.rootfs.diff_ids = layers.iter().map(|l| Digest::sha256(l)).collect();
    serde_json::to_vec(&config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_is_not_what_the_configuration_says_is_refused() {
    if !is_root() {
        return;
    }
    let layer = tar_of(&[("a", b"a")]);
    let config = config_for("linux/amd64", &[b"another"]);
    let server = memory_registry(
        document(&config, &[&layer]),
        media_type::OCI_MANIFEST,
        vec![config, layer],
    );
    let world = World::new();
    let error = world.pull(&format!("{}/app:1", server.host())).await.unwrap_err();
    assert!(matches!(error, ImageError::DiffId { .. }), "{error}");
    nothing_is_left(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_leads_outside_is_refused() {
    if !is_root() {
        return;
    }
    let mut layer = tar_of(&[("xx/escaped-by-berth-test", b"x")]);
    // The tar crate refuses to write such a name; an attacker does not.
    layer[..2].copy_from_slice(b"..");
    let sum: u32 = layer[..512]
        .iter()
        .enumerate()
        .map(|(i, b)| {
            if (148..156).contains(&i) {
                32
            } else {
                u32::from(*b)
            }
        })
        .sum();
    layer[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let config = config_for("linux/amd64", &[&layer]);
    let server = memory_registry(
        document(&config, &[&layer]),
        media_type::OCI_MANIFEST,
        vec![config, layer],
    );
    let world = World::new();
    let error = world.pull(&format!("{}/app:1", server.host())).await.unwrap_err();
    assert!(error.to_string().contains("outside"), "{error}");
    nothing_is_left(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_index_the_platform_comes() {
    if !is_root() {
        return;
    }
    let layers: Vec<Vec<u8>> = ["amd64", "arm64"]
        .iter()
        .map(|a| tar_of(&[("arch", a.as_bytes())]))
        .collect();
    let configs = [
        config_for("linux/amd64", &[&layers[0]]),
        config_for("linux/arm64", &[&layers[1]]),
    ];
    let manifests = [
        document(&configs[0], &[&layers[0]]),
        document(&configs[1], &[&layers[1]]),
    ];
    let entry = |bytes: &[u8], arch: &str| {
        serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": Digest::sha256(bytes), "size": bytes.len(),
            "platform": {"os": "linux", "architecture": arch}})
    };
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [entry(&manifests[1], "arm64"), entry(&manifests[0], "amd64"), entry(b"attested", "unknown")]}))
    .unwrap();
    let id = Digest::sha256(&index);
    let blobs = layers
        .iter()
        .chain(&configs)
        .chain(&manifests)
        .cloned()
        .chain([index.clone()])
        .collect();
    let server = memory_registry(index, media_type::OCI_INDEX, blobs);
    let name = format!("{}/app:1", server.host());
    let world = World::new();
    let arm: Platform = "linux/arm64".parse().unwrap();
    let options = image::PullOptions {
        platform: Some(arm.clone()),
        ..Default::default()
    };
    let pulled = world
        .images
        .pull(&name.parse().unwrap(), options, support::log().0)
        .await
        .unwrap();
    assert_eq!((&pulled.id, &pulled.platform), (&id, &arm));
    assert_eq!(world.read(&pulled, "arch").as_deref(), Some("arm64"));
    // Only one platform is here: it stands for the image until the host's comes.
    assert_eq!(world.images.resolve(&name).unwrap().platform, arm);
    let amd: Platform = "linux/amd64".parse().unwrap();
    let error = world.images.resolve_platform(&name, Some(&amd)).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "image with reference {name} was found but does not provide the specified platform (linux/amd64)"
        )
    );
    let options = image::PullOptions {
        platform: Some(amd.clone()),
        ..Default::default()
    };
    world
        .images
        .pull(&name.parse().unwrap(), options, support::log().0)
        .await
        .unwrap();
    let both = world.images.resolve_platform(&name, Some(&amd)).unwrap();
    assert_eq!((both.id, both.platform), (id, amd));
    let listed = &world.images.list().unwrap()[0];
    assert_eq!(listed.size, world.images.resolve(&name).unwrap().size);
    let known = world.images.manifests(&listed.target).unwrap();
    assert_eq!(known.iter().filter(|m| m.available).count(), 2);
    let options = image::PullOptions {
        platform: Some("linux/s390x".parse().unwrap()),
        ..Default::default()
    };
    let error = world
        .images
        .pull(&name.parse().unwrap(), options, support::log().0)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "no matching manifest for linux/s390x in the manifest list entries"
    );

    // A push of the incomplete index sends the platform that is here.
    let Some(registry) = DistributionRegistry::start(false) else {
        return;
    };
    let target = registry.name("app:1");
    world.images.tag(&name, &target.parse().unwrap()).unwrap();
    let events = world.push(&target).await.unwrap();
    let note = events
        .iter()
        .find_map(|e| e.aux.as_ref()?.get("manifestPushedInsteadOfIndex"))
        .unwrap();
    assert_eq!(note, true);
    let (back, _) = World::new().pull(&target).await.unwrap();
    assert_eq!(back.id, Digest::sha256(&manifests[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_the_same_time_share_the_work() {
    if !is_root() {
        return;
    }
    let layer = tar_of(&[("noise", &noise(2 << 20, 11))]);
    let config = config_for("linux/amd64", &[&layer]);
    let digest = Digest::sha256(&layer).to_string();
    let server = memory_registry(
        document(&config, &[&layer]),
        media_type::OCI_MANIFEST,
        vec![config, layer],
    );
    let world = Arc::new(World::new());
    let name = format!("{}/app:1", server.host());
    let pulls: Vec<_> = (0..4)
        .map(|_| {
            let (world, name) = (world.clone(), name.clone());
            tokio::spawn(async move { world.pull(&name).await.map(|(image, _)| image.id) })
        })
        .collect();
    let mut ids = Vec::new();
    for pull in pulls {
        ids.push(pull.await.unwrap().unwrap());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    let fetched = server
        .seen()
        .iter()
        .filter(|r| r.target.ends_with(&digest))
        .count();
    assert_eq!(fetched, 1);
    assert_eq!(world.images.store().snapshots().list().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_here_is_not_pushed() {
    let world = World::new();
    let error = world.push("127.0.0.1:1/nosuch:1").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "An image does not exist locally with the tag: 127.0.0.1:1/nosuch"
    );
}

/// A small filesystem that is gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> SmallDisk {
        std::fs::create_dir_all(&at).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", &at, "tmpfs", flags, options.as_c_str()).unwrap();
        SmallDisk(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_given_back() {
    let (true, Some(server)) = (is_root(), DistributionRegistry::start(false)) else {
        return;
    };
    let here = World::new();
    let (large, small) = (server.name("large:1"), server.name("small:1"));
    here.import(&large, tar_of(&[("noise", &noise(12 << 20, 21))]))
        .await;
    here.import(&small, tar_of(&[("a", b"a")])).await;
    here.push(&large).await.unwrap();
    here.push(&small).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let disk = SmallDisk::mount(dir.path().join("disk"), "8m");
    let store = store::Store::open(&disk.0.join("root")).unwrap();
    let client = registry::Client::new(registry::ClientConfig::default()).unwrap();
    let there = image::Images::open(store, client).unwrap();
    let pull = async |name: &str| {
        there
            .pull(
                &name.parse().unwrap(),
                image::PullOptions::default(),
                support::log().0,
            )
            .await
    };
    let error = pull(&large).await.unwrap_err();
    assert!(
        error
            .to_string()
            .to_lowercase()
            .contains("no space left on device"),
        "{error}"
    );
    assert!(there.list().unwrap().is_empty());
    assert!(there.store().snapshots().list().unwrap().is_empty());
    // What it took is free again: the next one fits.
    pull(&small).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_was_given_up_is_resumed_by_the_next_daemon() {
    const LAYER: usize = 6 << 20;
    if !is_root() {
        return;
    }
    // Debian's registry forgets an upload whose connection broke; this one keeps what came, as the specification says.
    let registry = MemoryRegistry::start(|_, _| None);
    let name = registry.name("app:1");
    let world = World::new();
    let image = world.import(&name, tar_of(&[("noise", &noise(LAYER, 11))])).await;
    let options = image::PushOptions {
        limit_rate: Some(4 << 20),
        ..Default::default()
    };
    let (images, reference) = (world.images.clone(), name.parse().unwrap());
    let push =
        tokio::spawn(async move { images.push(&reference, options, support::log().0).await.map(drop) });
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(!push.is_finished(), "the push ended before it was given up");
    push.abort();
    assert!(push.await.is_err());
    // The registry counts what came when it notices that no more will.
    while registry.received() < LAYER / 8 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let given_up = registry.received();
    // The next daemon, on the same data.
    let World { images, dir } = world;
    drop(images);
    let root = dir.path().join("root");
    let store = loop {
        // The last of the old one's tasks may hold it for a moment more.
        match store::Store::open(&root) {
            Ok(store) => break store,
            Err(store::OpenError::Locked { .. }) => {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await
            }
            Err(error) => panic!("{error}"),
        }
    };
    let client = registry::Client::new(registry::ClientConfig::default()).unwrap();
    let next = World {
        images: image::Images::open(store, client).unwrap(),
        dir,
    };
    next.push(&name).await.unwrap();
    // The layer's rest and the small configuration: no byte of the layer twice.
    let again = registry.received() - given_up;
    let whole = (image.manifest.layers[0].size + image.manifest.config.size) as usize;
    assert_eq!(
        given_up + again,
        whole,
        "{again} bytes were sent after {given_up}"
    );
    assert_eq!(
        spec::Digest::sha256(&registry.manifest("app", "1").unwrap()),
        image.id
    );
    assert!(
        image
            .manifest
            .layers
            .iter()
            .all(|layer| registry.has_blob(&layer.digest))
    );
    // Done is done: nothing is remembered of it, and nothing is sent again.
    next.push(&name).await.unwrap();
    assert_eq!(registry.received(), given_up + again);
}
