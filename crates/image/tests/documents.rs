//! Manifests, indexes and configurations that are more than they look: small ones that lead to very many, and large ones. Each is
//! taken in a moment, or refused with one error and an unchanged store.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use image::{ImageError, LoadOptions, Loaded};
use serde_json::{Value, json};
use spec::image::media_type;
use spec::{Digest, ErrorClass, Platform};
use support::servers::memory::MemoryRegistry;
use support::{World, blocking, is_root, log, tar_of};

/// Entries of an index that is as large as one may be.
const ENTRIES: usize = 2000;

/// Documents and blobs of an image on their way into an archive or a registry.
#[derive(Default)]
struct Parts {
    files: Vec<(String, Vec<u8>)>,
    /// Type and digest of the last document.
    last: Option<(&'static str, Digest, usize)>,
}

impl Parts {
    fn blob(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::sha256(&bytes);
        self.files.push((format!("blobs/sha256/{}", digest.hex()), bytes));
        digest
    }

    fn document(&mut self, kind: &'static str, document: &Value) -> Digest {
        let bytes = serde_json::to_vec(document).unwrap();
        let size = bytes.len();
        let digest = self.blob(bytes);
        self.last = Some((kind, digest.clone(), size));
        digest
    }

    /// An image of so many layers, all of them one; `more` is in its manifest and makes it as large.
    fn image(layers: usize, more: &str) -> Parts {
        let mut parts = Parts::default();
        let tar = tar_of(&[("file", b"content")]);
        let diffs = vec![Digest::sha256(&tar); layers];
        let config = json!({
            "architecture": Platform::host().architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = serde_json::to_vec(&config).unwrap();
        let (config_size, size) = (config.len(), tar.len());
        let (config, layer) = (parts.blob(config), parts.blob(tar));
        let layer = json!({"mediaType": media_type::OCI_LAYER, "digest": layer, "size": size});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": config, "size": config_size},
            "layers": vec![layer; layers], "annotations": {"more": more},
        });
        parts.document(media_type::OCI_MANIFEST, &manifest);
        parts
    }

    /// An index on top that names the last document so many times.
    fn named(mut self, times: usize) -> Parts {
        let (kind, digest, size) = self.last.clone().unwrap();
        let platform = Platform::host();
        let entry = json!({"mediaType": kind, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": platform.architecture}});
        let index = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": vec![entry; times],
        });
        self.document(media_type::OCI_INDEX, &index);
        self
    }

    fn archive(&self) -> Vec<u8> {
        let (kind, digest, size) = self.last.clone().unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": kind, "digest": digest, "size": size,
            "annotations": {"io.containerd.image.name": "docker.io/library/bomb:1"}}]});
        let index = serde_json::to_vec(&index).unwrap();
        let mut files: Vec<(&str, &[u8])> = self
            .files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
            .collect();
        files.push(("index.json", &index));
        tar_of(&files)
    }

    /// Has the registry serve it as `app:1`.
    fn serve(&self, registry: &MemoryRegistry) {
        let last = &self.last.as_ref().unwrap().1;
        for (_, bytes) in &self.files {
            let digest = registry.put_blob(bytes);
            let kind = serde_json::from_slice::<Value>(bytes).ok();
            let kind = kind.and_then(|document| document["mediaType"].as_str().map(str::to_owned));
            if let Some(kind) = kind {
                let tag = if digest == *last { "1" } else { "other" };
                registry.put_manifest("app", tag, &kind, bytes.clone());
            }
        }
    }
}

async fn load(world: &World, bytes: Vec<u8>) -> Result<Vec<Loaded>, ImageError> {
    let images = world.images.clone();
    blocking(move || images.load(bytes.as_slice(), LoadOptions::default(), log().0)).await
}

fn assert_empty(world: &World) {
    let store = world.images.store();
    assert!(world.images.list().unwrap().is_empty());
    assert!(store.content().list().unwrap().is_empty());
    assert!(store.snapshots().list().unwrap().is_empty());
    assert!(world.partial_downloads().is_empty());
}

/// Two thousand times two thousand times two thousand ways lead to one image. Whoever follows each does not come back.
#[tokio::test(flavor = "multi_thread")]
async fn however_often_a_document_is_named_it_is_visited_once() {
    if !is_root() {
        return;
    }
    let parts = Parts::image(1, "").named(ENTRIES).named(ENTRIES).named(ENTRIES);
    let world = World::new();
    assert_eq!(load(&world, parts.archive()).await.unwrap().len(), 1);
    assert_eq!(world.images.list().unwrap().len(), 1);
    let image = world.images.resolve("bomb:1").unwrap();
    assert_eq!(world.read(&image, "file").as_deref(), Some("content"));
    world.images.disk_usage().unwrap();
    let registry = MemoryRegistry::start(|_, _| None);
    parts.serve(&registry);
    let world = World::new();
    let (image, _) = world.pull(&registry.name("app:1")).await.unwrap();
    assert_eq!(world.read(&image, "file").as_deref(), Some("content"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_documents_than_anybody_has_are_refused() {
    if !is_root() {
        return;
    }
    let wide = Parts::image(1, "").named(2 * ENTRIES);
    let deep = (0..6).fold(Parts::image(1, ""), |parts, _| parts.named(1));
    let many_layers = Parts::image(600, "");
    let mut heavy = Parts::default();
    let mut entries = Vec::new();
    for number in 0..17 {
        let image = Parts::image(1, &format!("{number:02}").repeat(2_000_000));
        let (kind, digest, size) = image.last.clone().unwrap();
        let platform = json!({"os": "linux", "architecture": "amd64", "variant": format!("v{number}")});
        entries.push(json!({"mediaType": kind, "digest": digest, "size": size, "platform": platform}));
        heavy.files.extend(image.files);
    }
    heavy.files.sort();
    heavy.files.dedup();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries});
    heavy.document(media_type::OCI_INDEX, &index);
    for (parts, words) in [
        (&wide, "4000 entries, at most 2048"),
        (&deep, "nested too deeply"),
        (&many_layers, "600 layers, at most 512"),
        (&heavy, "more than 64 MiB together"),
    ] {
        let world = World::new();
        let refused = load(&world, parts.archive()).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(refused.class(), ErrorClass::Invalid);
        assert_empty(&world);
    }
    for (parts, words) in [
        (&wide, "4000 entries, at most 2048"),
        (&deep, "nested too deeply"),
        (&many_layers, "600 layers, at most 512"),
    ] {
        let registry = MemoryRegistry::start(|_, _| None);
        parts.serve(&registry);
        let world = World::new();
        let refused = world.pull(&registry.name("app:1")).await.unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
        assert_empty(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_another_shape_are_refused() {
    if !is_root() {
        return;
    }
    let nested = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let inside = |key: &str, value: &str| format!(r#"{{"schemaVersion":2,"{key}":{value}}}"#).into_bytes();
    let of_type = |kind: &str, key: &str| {
        let text = format!(r#"{{"schemaVersion":2,"mediaType":"{kind}","{key}":[]}}"#);
        text.into_bytes()
    };
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            media_type::OCI_MANIFEST,
            nested.clone().into_bytes(),
            "not valid JSON",
        ),
        (
            media_type::OCI_MANIFEST,
            inside("config", &nested),
            "not valid JSON",
        ),
        (media_type::OCI_INDEX, inside("x", &nested), "recursion limit"),
        // What it says of itself and what it is are two things.
        (
            media_type::OCI_MANIFEST,
            of_type(media_type::OCI_MANIFEST, "manifests"),
            "media type",
        ),
        (
            media_type::OCI_INDEX,
            of_type(media_type::OCI_INDEX, "config"),
            "media type",
        ),
        (
            media_type::OCI_MANIFEST,
            of_type("text/html", "layers"),
            "media type",
        ),
        (
            media_type::OCI_MANIFEST,
            of_type(media_type::DOCKER_SCHEMA1, "fsLayers"),
            "schema 1",
        ),
        (media_type::OCI_MANIFEST, b"{}".to_vec(), "missing field"),
        (media_type::OCI_MANIFEST, vec![0xff; 100], "not valid JSON"),
        (media_type::OCI_MANIFEST, vec![b' '; 5 << 20], "4194304"),
    ];
    for (kind, bytes, words) in cases {
        let registry = MemoryRegistry::start(|_, _| None);
        registry.put_manifest("app", "1", kind, bytes.clone());
        let world = World::new();
        let refused = world.pull(&registry.name("app:1")).await.unwrap_err();
        assert!(
            refused.to_string().contains(words),
            "{refused} instead of {words}"
        );
        assert_empty(&world);
        let mut parts = Parts::default();
        let size = bytes.len();
        let digest = parts.blob(bytes);
        let declared = if kind == media_type::OCI_INDEX {
            media_type::OCI_INDEX
        } else {
            media_type::OCI_MANIFEST
        };
        parts.last = Some((declared, digest, size));
        let refused = load(&world, parts.archive()).await.unwrap_err();
        assert!(
            refused.to_string().contains(words),
            "{refused} instead of {words}"
        );
        assert_eq!(refused.class(), ErrorClass::Invalid, "{refused}");
        assert_empty(&world);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn configurations_of_another_shape_are_refused() {
    if !is_root() {
        return;
    }
    let history = format!(r#"{{"history":[{}]}}"#, vec!["{}"; 1_000_000].join(","));
    let nested = format!(
        r#"{{"config":{{"x":{}{}}}}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    let large = format!(r#"{{"author":"{}"}}"#, "a".repeat(9 << 20));
    for (config, words) in [
        (history, "more than 10000 steps"),
        (nested, "recursion limit"),
        (large, "8388608"),
        ("[]".to_owned(), "configuration"),
    ] {
        let mut parts = Parts::default();
        let size = config.len();
        let digest = parts.blob(config.into_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [],
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest, "size": size}});
        parts.document(media_type::OCI_MANIFEST, &manifest);
        let registry = MemoryRegistry::start(|_, _| None);
        parts.serve(&registry);
        let world = World::new();
        let refused = world.pull(&registry.name("app:1")).await.unwrap_err();
        assert!(
            refused.to_string().contains(words),
            "{refused} instead of {words}"
        );
        assert_empty(&world);
        let refused = load(&world, parts.archive()).await.unwrap_err();
        assert!(
            refused.to_string().contains(words),
            "{refused} instead of {words}"
        );
        assert_empty(&world);
    }
}

/// What names something that nobody has ends there, whoever brings it.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_lead_to_nothing_are_refused() {
    if !is_root() {
        return;
    }
    let whole = || Parts::image(1, "").named(1);
    // The configuration, the layer and the manifest, in the order in which they were made.
    let made = whole();
    for (name, bytes) in &made.files[..3] {
        let missing = Digest::sha256(bytes);
        let mut parts = whole();
        parts.files.retain(|(kept, _)| kept != name);
        let registry = MemoryRegistry::start(|_, _| None);
        parts.serve(&registry);
        let world = World::new();
        let refused = world.pull(&registry.name("app:1")).await.unwrap_err();
        assert!(refused.to_string().contains(missing.as_str()), "{refused}");
        world.images.gc(|_| Ok(store::Roots::default())).unwrap();
        assert!(world.images.list().unwrap().is_empty());
        assert!(world.images.store().snapshots().list().unwrap().is_empty());
        assert!(world.images.store().content().list().unwrap().is_empty());
        let world = World::new();
        let refused = load(&world, parts.archive()).await.unwrap_err();
        let class = refused.class();
        assert!(
            matches!(class, ErrorClass::Invalid | ErrorClass::NotFound),
            "{refused}"
        );
        assert_empty(&world);
    }
}

/// A layer is what its bytes are: the type that its manifest gives it is no reason to take it for something else.
#[tokio::test(flavor = "multi_thread")]
async fn layers_whose_types_lie_are_read_as_what_they_are() {
    use std::io::Write as _;
    if !is_root() {
        return;
    }
    let tar = tar_of(&[("file", b"content")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
    for (declared, bytes) in [
        (media_type::OCI_LAYER, &gzip),
        (media_type::OCI_LAYER_GZIP, &tar),
        (media_type::OCI_LAYER_GZIP, &zstd),
        (media_type::OCI_LAYER_ZSTD, &gzip),
        ("text/html", &zstd),
    ] {
        let mut parts = Parts::default();
        let config = json!({"architecture": Platform::host().architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&tar)]}});
        let config = serde_json::to_vec(&config).unwrap();
        let (config_size, size) = (config.len(), bytes.len());
        let (config, layer) = (parts.blob(config), parts.blob(bytes.clone()));
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": {"mediaType": media_type::OCI_CONFIG, "digest": config, "size": config_size},
            "layers": [{"mediaType": declared, "digest": layer, "size": size}],
        });
        parts.document(media_type::OCI_MANIFEST, &manifest);
        let registry = MemoryRegistry::start(|_, _| None);
        parts.serve(&registry);
        let world = World::new();
        let (image, _) = world.pull(&registry.name("app:1")).await.unwrap();
        assert_eq!(
            world.read(&image, "file").as_deref(),
            Some("content"),
            "{declared}"
        );
        let world = World::new();
        load(&world, parts.archive()).await.unwrap();
        let image = world.images.resolve("bomb:1").unwrap();
        assert_eq!(
            world.read(&image, "file").as_deref(),
            Some("content"),
            "{declared}"
        );
    }
}

/// A layer that says it has as much as no disk has is not begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_layer_larger_than_is_allowed_is_refused_before_it_comes() {
    if !is_root() {
        return;
    }
    let registry = MemoryRegistry::start(|_, _| None);
    let tar = tar_of(&[("file", b"content")]);
    let layer = registry.put_blob(&tar);
    let config = json!({"architecture": Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [&layer]}});
    let config = serde_json::to_vec(&config).unwrap();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": registry.put_blob(&config), "size": config.len()},
        "layers": [{"mediaType": media_type::OCI_LAYER, "digest": layer, "size": 1u64 << 60}],
    });
    registry.put_manifest(
        "app",
        "1",
        media_type::OCI_MANIFEST,
        serde_json::to_vec(&manifest).unwrap(),
    );
    let world = World::new();
    let refused = world.pull(&registry.name("app:1")).await.unwrap_err();
    let said = refused.to_string();
    assert!(
        said.contains("max-layer-size") && said.contains(layer.as_str()),
        "{said}"
    );
    assert_eq!(refused.class(), ErrorClass::Invalid);
    assert_eq!(registry.sent(&layer), 0);
    assert_empty(&world);
}

/// Names are kept in mind until the archive ends.
#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_an_archive_are_bounded_together() {
    if !is_root() {
        return;
    }
    let names: Vec<String> = (0..20)
        .map(|number| format!("{number}{}", "n".repeat(1_000_000)))
        .collect();
    let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let world = World::new();
    let refused = load(&world, tar_of(&files)).await.unwrap_err();
    assert!(refused.to_string().contains("take more than 16 MiB"), "{refused}");
    assert_eq!(refused.class(), ErrorClass::Invalid);
    assert_empty(&world);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_of_more_images_than_anybody_has_is_refused() {
    if !is_root() {
        return;
    }
    let entries = vec![json!({"Config": "c.json", "RepoTags": null, "Layers": []}); 5000];
    let manifest = serde_json::to_vec(&entries).unwrap();
    let world = World::new();
    let archive = tar_of(&[("c.json", b"{}"), ("manifest.json", &manifest)]);
    let refused = load(&world, archive).await.unwrap_err();
    assert!(
        refused.to_string().contains("5000 images, at most 4096"),
        "{refused}"
    );
    assert_empty(&world);
    let (kind, digest) = (media_type::OCI_MANIFEST, Digest::sha256(b"{}"));
    let entry = json!({"mediaType": kind, "digest": digest, "size": 2});
    let index = json!({"schemaVersion": 2, "manifests": vec![entry; 5000]});
    let index = serde_json::to_vec(&index).unwrap();
    let refused = load(&world, tar_of(&[("index.json", &index)])).await.unwrap_err();
    assert!(
        refused.to_string().contains("5000 manifests, at most 4096"),
        "{refused}"
    );
    assert_empty(&world);
}
