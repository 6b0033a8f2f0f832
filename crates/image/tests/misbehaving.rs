//! Pulls from and pushes to a registry that misbehaves: what passes is sat out, resumed and counted; what does not ends in
//! one error and an unchanged store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::time::Duration;

use registry::ClientConfig;
use spec::Digest;
use spec::image::media_type;
use support::servers::memory::{Fault, MemoryRegistry};
use support::servers::{CuttingProxy, Request, noise};
use support::{World, is_root, tar_of};

const LAYER: usize = 600_000;

/// An image of one layer of noise, as `app:1`.
fn serve(registry: &MemoryRegistry) -> Digest {
    support::serve(registry, &[tar_of(&[("noise", &noise(LAYER, 3))])]).remove(0)
}

fn is_layer(request: &Request, method: &str) -> bool {
    // The configuration is small and asked for once; the layer is what ranges are about.
    request.method == method && request.target.contains("/blobs/")
}

/// A store whose client splits blobs, where `parts` says so, whatever the connection brings.
fn world(parts: bool) -> World {
    let mut config = ClientConfig {
        silence: Duration::from_secs(5),
        ..ClientConfig::default()
    };
    if parts {
        config.ranges = registry::Ranges {
            part: 50_000,
            at_once: 3,
            enough: u64::MAX,
        };
    }
    World::with(config)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_sits_out_what_passes() {
    if !is_root() {
        return;
    }
    // What, how often at most, and how many bytes beyond the blob's own it may cost.
    let cases: [(Fault, usize, usize); 9] = [
        (Fault::Cut(100_000), 3, 0),
        (Fault::Silent(100_000), 1, 0),
        (Fault::Cut(0), 3, 0),
        (Fault::Status(500, None), 2, 0),
        (Fault::Status(503, Some(0)), 2, 0),
        (Fault::Status(429, Some(1)), 1, 0),
        (Fault::Length(-1000), 2, 0),
        (Fault::Length(1000), 2, 0),
        // Everything is sent once more after a cut.
        (Fault::NoRange, usize::MAX, LAYER + 10_240),
    ];
    // Side by side, since most of the time is pauses.
    let mut pulls = tokio::task::JoinSet::new();
    for parts in [false, true] {
        for (fault, times, extra) in cases.clone() {
            pulls.spawn(sat_out(fault, times, extra, parts));
        }
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
}

/// One pull under a fault that happens so often; it may cost so many bytes beyond the blob's own.
async fn sat_out(fault: Fault, times: usize, extra: usize, parts: bool) {
    let what = format!("{fault:?}, in parts: {parts}");
    let injected = fault.clone();
    let registry = MemoryRegistry::start(move |request, before| {
        if injected == Fault::NoRange && before == 0 && is_layer(request, "GET") {
            return Some(Fault::Cut(100_000));
        }
        (is_layer(request, "GET") && before < times).then(|| injected.clone())
    });
    let layer = serve(&registry);
    let world = world(parts);
    let name = registry.name("app:1");
    let pulled = world.pull(&name).await;
    let (image, _) = pulled.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(image.manifest.layers[0].digest, layer, "{what}");
    let size = image.manifest.layers[0].size as usize;
    assert!(world.partial_downloads().is_empty(), "{what}");
    let slack = match (parts, fault) {
        (false, _) => extra,
        // The connections that asked for parts are closed as soon as their answers begin.
        (true, Fault::NoRange) => 5 * extra,
        // Parts that were under way when one failed are asked for again.
        (true, _) => 4 * 50_000 + 3 * 100_000,
    };
    let sent = registry.sent(&layer);
    assert!(
        (size..=size + slack).contains(&sent),
        "{what}: {sent} bytes for {size}"
    );
}

/// What says which layers there are comes in one piece or is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_pull_sits_out_documents_that_do_not_come_whole() {
    if !is_root() {
        return;
    }
    // Side by side, since most of the time is pauses.
    let mut pulls = tokio::task::JoinSet::new();
    for part in ["/manifests/", "/blobs/"] {
        for fault in [
            Fault::Cut(20),
            Fault::Silent(20),
            Fault::Length(20),
            Fault::Status(502, None),
        ] {
            pulls.spawn(async move {
                let what = format!("{fault:?} of {part}");
                let registry = MemoryRegistry::start(move |request, before| {
                    let is_document = request.method == "GET" && request.target.contains(part);
                    (is_document && before == 0).then(|| fault.clone())
                });
                let layer = serve(&registry);
                let world = world(false);
                let pulled = world.pull(&registry.name("app:1")).await;
                let (image, _) = pulled.unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(image.manifest.layers[0].digest, layer, "{what}");
            });
        }
    }
    while let Some(pull) = pulls.join_next().await {
        pull.unwrap();
    }
    // One that is never what it should be is not taken.
    let registry = MemoryRegistry::start(|request, _| {
        (request.method == "GET" && request.target.contains("/manifests/")).then_some(Fault::Corrupt)
    });
    serve(&registry);
    let world = world(false);
    let error = world.pull(&registry.name("app:1")).await.unwrap_err().to_string();
    assert!(error.contains("does not match its digest"), "{error}");
    assert!(world.images.list().unwrap().is_empty());
    assert_eq!(world.images.store().content().list().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_cannot_be_ends_with_an_error_and_nothing() {
    if !is_root() {
        return;
    }
    let cases = [
        (Fault::Corrupt, "verification failed"),
        (Fault::Status(403, None), "denied"),
        (Fault::Status(429, Some(86_400)), "again in 24 h 0 min"),
    ];
    for (fault, words) in cases {
        let injected = fault.clone();
        let registry = MemoryRegistry::start(move |request, _| {
            // Not the configuration, which comes before.
            (is_layer(request, "GET") && request.header("accept") != "x").then(|| injected.clone())
        });
        serve(&registry);
        let world = world(false);
        let error = world.pull(&registry.name("app:1")).await.unwrap_err();
        let text = error.to_string();
        let about_config = text.contains("digest");
        assert!(
            text.contains(words) || fault == Fault::Corrupt && about_config,
            "{fault:?}: {text}"
        );
        assert!(world.images.list().unwrap().is_empty(), "{fault:?}");
        assert!(
            world.images.store().snapshots().list().unwrap().is_empty(),
            "{fault:?}"
        );
    }
    // A range that is not what was asked for is never taken for it.
    let registry = MemoryRegistry::start(|request, before| match is_layer(request, "GET") {
        true if before == 0 => Some(Fault::Cut(1000)),
        true => Some(Fault::OtherRange),
        false => None,
    });
    let layer = serve(&registry);
    let error = world(false)
        .pull(&registry.name("app:1"))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("another range"), "{error}");
    assert!(registry.sent(&layer) < LAYER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_sits_out_what_passes() {
    if !is_root() {
        return;
    }
    for fault in [
        Fault::Status(500, None),
        Fault::Status(503, Some(0)),
        Fault::Status(429, Some(1)),
    ] {
        for at in ["POST", "PUT", "HEAD"] {
            let what = format!("{fault:?} at {at}");
            let injected = fault.clone();
            let registry = MemoryRegistry::start(move |request, before| {
                (request.method == at && before == 0).then(|| injected.clone())
            });
            let world = world(false);
            let name = registry.name("app:1");
            let image = world.import(&name, tar_of(&[("noise", &noise(LAYER, 4))])).await;
            world
                .push(&name)
                .await
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(
                image
                    .manifest
                    .layers
                    .iter()
                    .all(|layer| registry.has_blob(&layer.digest)),
                "{what}"
            );
            assert_eq!(
                Digest::sha256(&registry.manifest("app", "1").unwrap()),
                image.id,
                "{what}"
            );
            // Nothing that is there is sent again.
            let before = registry.received();
            world.push(&name).await.unwrap();
            assert_eq!(registry.received(), before, "{what}");
        }
    }
    let registry =
        MemoryRegistry::start(|request, _| (request.method == "PUT").then_some(Fault::Status(403, None)));
    let world = world(false);
    let name = registry.name("app:1");
    world.import(&name, tar_of(&[("noise", &noise(1000, 5))])).await;
    let error = world.push(&name).await.unwrap_err().to_string();
    assert!(error.contains("push access denied"), "{error}");
    assert!(
        registry.manifest("app", "1").is_none(),
        "a manifest without its blobs"
    );
}

/// The registry keeps what came before a break, and that is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_goes_on_where_its_connection_broke() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let proxy = CuttingProxy::start(registry.server.port, 3, 100_000, true);
    let world = world(false);
    let name = format!("127.0.0.1:{}/app:1", proxy.port);
    let image = world.import(&name, tar_of(&[("noise", &noise(LAYER, 6))])).await;
    world.push(&name).await.unwrap();
    assert_eq!(proxy.cuts.load(std::sync::atomic::Ordering::Relaxed), 3);
    let blobs = image.manifest.layers.iter().chain([&image.manifest.config]);
    let size: u64 = blobs.map(|blob| blob.size).sum();
    // One may be asked for its state before it has seen the break.
    let received = registry.received() as u64;
    assert!((size..size + 200_000).contains(&received), "{received} of {size}");
    assert_eq!(Digest::sha256(&registry.manifest("app", "1").unwrap()), image.id);
}

/// Some kilobytes that unpack to much more than is allowed: from a registry, in an archive, and as a tree.
#[tokio::test(flavor = "multi_thread")]
async fn what_unpacks_to_more_than_is_allowed_is_refused_and_leaves_nothing() {
    use std::io::Write as _;
    if !is_root() {
        return;
    }
    let tar = tar_of(&[("zeros", &vec![0; 8 << 20])]);
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    bomb.write_all(&tar).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 20_000);
    let registry = MemoryRegistry::start(|_, _| None);
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": spec::Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&tar)]},
    }))
    .unwrap();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": registry.put_blob(&config), "size": config.len()},
        "layers": [{"mediaType": media_type::OCI_LAYER_GZIP, "digest": registry.put_blob(&bomb), "size": bomb.len()}],
    });
    registry.put_manifest(
        "app",
        "1",
        media_type::OCI_MANIFEST,
        serde_json::to_vec(&manifest).unwrap(),
    );
    let name = registry.name("app:1");
    let archive = tar_of(&[
        ("c.json", &config),
        ("l.tar.gz", &bomb),
        (
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["bomb:1"],"Layers":["l.tar.gz"]}]"#,
        ),
    ]);
    let world = World::new();
    world.images.set_max_layer(1 << 20);
    let mut refusals = vec![world.pull(&name).await.unwrap_err()];
    let (images, loaded) = (world.images.clone(), archive.clone());
    refusals.push(
        support::blocking(move || {
            images
                .load(loaded.as_slice(), image::LoadOptions::default(), support::log().0)
                .unwrap_err()
        })
        .await,
    );
    let (images, tree) = (world.images.clone(), bomb.clone());
    refusals.push(
        support::blocking(move || {
            images
                .import(tree.as_slice(), image::ImportOptions::default(), support::log().0)
                .unwrap_err()
        })
        .await,
    );
    for refused in refusals {
        let said = refused.to_string();
        assert!(
            said.contains("more than 1048576 bytes") && said.contains("max-layer-size"),
            "{said}"
        );
        assert_eq!(refused.class(), spec::ErrorClass::Invalid, "{said}");
    }
    world.images.gc(|_| Ok(store::Roots::default())).unwrap();
    assert_eq!(world.images.store().content().list().unwrap(), []);
    assert_eq!(world.images.store().snapshots().list().unwrap(), []);
    assert!(world.partial_downloads().is_empty());
    // What is allowed goes through.
    world.images.set_max_layer(16 << 20);
    world.pull(&name).await.unwrap();
}
