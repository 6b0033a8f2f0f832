//! Archives: what we save others read, what others save we load, and what is hostile is refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use image::{Image, ImageError, LoadOptions, Loaded, SaveOptions};
use support::servers::noise;
use support::{World, blocking, drain, is_root, log, statuses, tar_of};

async fn load(world: &World, bytes: Vec<u8>) -> Result<(Vec<Loaded>, Vec<String>), ImageError> {
    let images = world.images.clone();
    let (progress, events) = log();
    let loaded = blocking(move || images.load(bytes.as_slice(), LoadOptions::default(), progress)).await?;
    Ok((loaded, statuses(&drain(events))))
}

fn save(world: &World, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let mut bytes = Vec::new();
    world
        .images
        .save(&names, &mut bytes, SaveOptions::default())
        .unwrap();
    bytes
}

async fn sample(world: &World) -> Image {
    world
        .import(
            "team/app:1",
            tar_of(&[("etc/a", b"content"), ("noise", &noise(300_000, 1))]),
        )
        .await
}

fn have(program: &str) -> bool {
    let found = Path::new("/usr/bin").join(program).exists();
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test]
async fn what_was_saved_loads_as_the_same_image() {
    if !is_root() {
        return;
    }
    let here = World::new();
    let image = sample(&here).await;
    here.images
        .tag("team/app:1", &"second:2".parse().unwrap())
        .unwrap();
    let bytes = save(&here, &["team/app:1", "second:2"]);
    assert!(
        bytes == save(&here, &["team/app:1", "second:2"]),
        "the same images give the same archive"
    );
    let there = World::new();
    let (loaded, said) = load(&there, bytes).await.unwrap();
    assert_eq!(loaded.len(), 2);
    assert!(
        said.contains(&"Loaded image: team/app:1".to_owned())
            && said.contains(&"Loaded image: second:2".to_owned()),
        "{said:?}"
    );
    let back = there.images.resolve("second:2").unwrap();
    assert_eq!(back.id, image.id);
    assert_eq!(there.read(&back, "etc/a").as_deref(), Some("content"));
    // By its ID an image is saved without a name.
    let (loaded, said) = load(&World::new(), save(&here, &[image.id.as_str()]))
        .await
        .unwrap();
    assert_eq!(loaded[0].reference, None);
    assert_eq!(said.last().unwrap(), &format!("Loaded image ID: {}", image.id));
}

#[tokio::test]
async fn compressed_archives_load() {
    if !is_root() {
        return;
    }
    let here = World::new();
    sample(&here).await;
    let bytes = save(&here, &["team/app:1"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    let zstd = zstd::encode_all(bytes.as_slice(), 1).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&bytes).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&bytes).unwrap();
    for compressed in [
        gzip.finish().unwrap(),
        zstd,
        bzip2.finish().unwrap(),
        xz.finish().unwrap(),
    ] {
        let (loaded, _) = load(&World::new(), compressed).await.unwrap();
        assert_eq!(loaded[0].reference.as_ref().unwrap().familiar(), "team/app:1");
    }
}

#[tokio::test]
async fn other_tools_read_what_was_saved() {
    if !is_root() || !have("skopeo") {
        return;
    }
    let world = World::new();
    let image = sample(&world).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.tar");
    std::fs::write(&file, save(&world, &["team/app:1"])).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    run(
        "skopeo",
        &[
            "copy",
            &format!("docker-archive:{}:team/app:1", file.display()),
            &format!("oci:{}:1", at("docker")),
        ],
    );
    run(
        "skopeo",
        &[
            "copy",
            &format!("oci-archive:{}", file.display()),
            &format!("oci:{}:1", at("oci")),
        ],
    );
    // As an OCI layout nothing was converted.
    let digest = image.id.hex();
    assert!(dir.path().join("oci/blobs/sha256").join(digest).exists());
    if have("umoci") {
        run(
            "umoci",
            &["unpack", "--image", &format!("{}:1", at("docker")), &at("bundle")],
        );
        assert_eq!(
            std::fs::read(dir.path().join("bundle/rootfs/etc/a")).unwrap(),
            b"content"
        );
    }
}

#[tokio::test]
async fn what_other_tools_save_loads() {
    if !is_root() || !have("skopeo") {
        return;
    }
    let world = World::new();
    sample(&world).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("saved.tar");
    std::fs::write(&file, save(&world, &["team/app:1"])).unwrap();
    let from = format!("oci-archive:{}", file.display());
    for (transport, name) in [("docker-archive", "other/app:9"), ("oci-archive", "other/app:9")] {
        let made = dir.path().join(transport);
        run(
            "skopeo",
            &["copy", &from, &format!("{transport}:{}:{name}", made.display())],
        );
        let there = World::new();
        let (loaded, said) = load(&there, std::fs::read(&made).unwrap()).await.unwrap();
        assert_eq!(said.last().unwrap(), "Loaded image: other/app:9", "{transport}");
        let image = there.images.resolve("other/app:9").unwrap();
        assert_eq!(image.id, loaded[0].id);
        assert_eq!(there.read(&image, "etc/a").as_deref(), Some("content"));
        // And once more around.
        let (again, _) = load(&World::new(), save(&there, &["other/app:9"])).await.unwrap();
        assert_eq!(again[0].id, image.id);
    }
}

/// The archive `docker save` wrote before version 25: a directory per layer, later copies as links.
#[tokio::test]
async fn the_old_docker_archive_loads() {
    if !is_root() {
        return;
    }
    let layer = tar_of(&[("old", b"old")]);
    let diff = spec::Digest::sha256(&layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{diff}","{diff}"]}}}}"#
    );
    let manifest = r#"[{"Config":"c.json","RepoTags":["old:1"],"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, bytes).unwrap();
    };
    add("manifest.json", manifest.as_bytes());
    add("c.json", config.as_bytes());
    add("one/VERSION", b"1.0");
    add("one/layer.tar", &layer);
    add("repositories", b"{}");
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    archive
        .append_link(&mut header, "two/layer.tar", "../one/layer.tar")
        .unwrap();
    let world = World::new();
    load(&world, archive.into_inner().unwrap()).await.unwrap();
    let image = world.images.resolve("old:1").unwrap();
    assert_eq!(image.manifest.layers.len(), 2);
    assert_eq!(world.read(&image, "old").as_deref(), Some("old"));
}

#[tokio::test]
async fn what_is_not_an_archive_of_images_is_told() {
    if !is_root() {
        return;
    }
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", spec::Digest::sha256(bytes).hex());
    let absent = spec::Digest::sha256(b"absent");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{absent}","size":1}}]}}"#
    );
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (
            tar_of(&[("a", b"a")]),
            "neither index.json (OCI layout) nor manifest.json (docker save)",
        ),
        (b"this is not a tar".repeat(100), "invalid archive"),
        (Vec::new(), "neither index.json"),
        (tar_of(&[("manifest.json", b"{")]), "manifest.json"),
        (tar_of(&[("manifest.json", b"[]")]), "no images"),
        (
            tar_of(&[("manifest.json", br#"[{"Config":"../../etc/shadow","Layers":[]}]"#)]),
            "which is missing",
        ),
        (tar_of(&[("index.json", index.as_bytes())]), "which is missing"),
        (tar_of(&[(&blob(b"right"), b"wrong")]), "has the digest"),
    ];
    for (bytes, expected) in cases {
        let world = World::new();
        let error = load(&world, bytes).await.unwrap_err();
        assert!(
            error.to_string().contains(expected),
            "{error} instead of {expected}"
        );
        assert_eq!(error.class(), spec::ErrorClass::Invalid, "{error}");
        assert!(world.images.list().unwrap().is_empty());
        assert!(world.images.store().content().list().unwrap().is_empty());
        assert!(world.partial_downloads().is_empty());
    }
}

#[tokio::test]
async fn a_cut_archive_leaves_nothing() {
    if !is_root() {
        return;
    }
    let here = World::new();
    sample(&here).await;
    let mut bytes = save(&here, &["team/app:1"]);
    bytes.truncate(bytes.len() / 2);
    let there = World::new();
    assert!(load(&there, bytes).await.is_err());
    assert!(there.images.store().content().list().unwrap().is_empty());
    assert!(there.images.store().snapshots().list().unwrap().is_empty());
    assert!(there.partial_downloads().is_empty());
}

/// An image whose parts an archive may name: `c.json` and `l.tar`, and the same as blobs.
fn parts() -> (Vec<u8>, Vec<u8>) {
    let layer = tar_of(&[("etc/a", b"content")]);
    let config = serde_json::json!({
        "architecture": spec::Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [spec::Digest::sha256(&layer)]},
    });
    (serde_json::to_vec(&config).unwrap(), layer)
}

/// Loads what `archive` makes of each input: taken or refused, and of what is refused nothing is there.
fn fuzz_archives(target: fuzz::Target, archive: impl Fn(&[u8]) -> Vec<u8>) {
    if !is_root() {
        return;
    }
    let words = [
        "../l.tar",
        "c.json",
        "l.tar",
        "\"Config\":",
        "\"Layers\":",
        "\"RepoTags\":",
        "\"digest\":",
        "\"size\":",
        "\"mediaType\":",
        "\"manifests\":",
        "sha256:",
        "a:b",
        "UPPER",
    ];
    let world = std::cell::RefCell::new(World::new());
    target.words(&fuzz::JSON).words(&words).run(|bytes| {
        let images = world.borrow().images.clone();
        let loaded = images.load(archive(bytes).as_slice(), LoadOptions::default(), log().0);
        match &loaded {
            Ok(loaded) => {
                assert!(!loaded.is_empty() && !images.list().unwrap().is_empty());
                drop(images);
                world.replace(World::new());
            }
            // One of several images may have been taken before the other was found wrong.
            Err(_) if !images.list().unwrap().is_empty() => {
                drop(images);
                world.replace(World::new());
            }
            Err(_) => {
                assert_eq!(images.store().content().list().unwrap(), []);
                assert_eq!(images.store().snapshots().list().unwrap(), []);
            }
        }
        fuzz::outcome(&loaded)
    });
}

/// The document of an archive as docker saves it.
#[test]
fn fuzz_manifest_json() {
    let (config, layer) = parts();
    fuzz_archives(fuzz::target!("tests/corpus/manifest-json"), |document| {
        tar_of(&[
            ("c.json", &config),
            ("l.tar", &layer),
            ("manifest.json", document),
        ])
    });
}

/// The document of an OCI layout.
#[test]
fn fuzz_index_json() {
    let (config, layer) = parts();
    let digest = |bytes: &[u8]| spec::Digest::sha256(bytes).to_string();
    let described = |media: &str, bytes: &[u8]| serde_json::json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()});
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": spec::image::media_type::OCI_MANIFEST,
        "config": described(spec::image::media_type::OCI_CONFIG, &config),
        "layers": [described(spec::image::media_type::OCI_LAYER, &layer)],
    }))
    .unwrap();
    let mut named = described(spec::image::media_type::OCI_MANIFEST, &manifest);
    named["annotations"] = serde_json::json!({
        "io.containerd.image.name": "docker.io/library/a:1", "org.opencontainers.image.ref.name": "1",
    });
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2, "manifests": [named]})).unwrap();
    let blobs: Vec<(String, &Vec<u8>)> = [&config, &layer, &manifest]
        .into_iter()
        .map(|bytes| {
            (
                format!("blobs/sha256/{}", spec::Digest::sha256(bytes).hex()),
                bytes,
            )
        })
        .collect();
    fuzz_archives(
        fuzz::target!("tests/corpus/index-json").seeds([index]),
        |document| {
            let mut files: Vec<(&str, &[u8])> = vec![("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)];
            files.extend(
                blobs
                    .iter()
                    .map(|(path, bytes)| (path.as_str(), bytes.as_slice())),
            );
            files.push(("index.json", document));
            tar_of(&files)
        },
    );
}
