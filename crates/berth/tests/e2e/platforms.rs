//! Images for several platforms: saved and loaded whole, in part, and not at all.

use serde_json::{Value, json};
use spec::Digest;

use crate::http::request;
use crate::support::Daemon;
use crate::tarball::{INDEX, Image, MANIFEST, Tar, archive};

/// An index of images for three architectures as an archive.
fn three() -> Vec<u8> {
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    for architecture in ["amd64", "arm64", "s390x"] {
        let layer = Tar::default().file("arch", architecture.as_bytes()).finish();
        let image = Image::for_platform(&[layer], architecture);
        manifests.push(json!({
            "mediaType": MANIFEST,
            "digest": image.digest().to_string(),
            "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": architecture},
        }));
        blobs.extend(image.blobs());
    }
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    let target = Digest::sha256(&index);
    let size = index.len();
    blobs.push((target.clone(), index));
    blobs.sort_by(|a, b| a.0.cmp(&b.0));
    blobs.dedup_by(|a, b| a.0 == b.0);
    archive(&[(target, size, Some("many:1"), INDEX)], &blobs)
}

/// The architectures of an image that are here, as the API tells them.
fn here(daemon: &Daemon) -> Vec<String> {
    let answer = request(daemon, "GET", "/images/json?manifests=1", "", b"");
    let images: Value = serde_json::from_str(&answer.body).unwrap();
    let many = images
        .as_array()
        .unwrap()
        .iter()
        .find(|image| image["RepoTags"][0] == "many:1");
    let Some(many) = many else { return Vec::new() };
    let manifests = many["Manifests"].as_array().unwrap().iter();
    let available = manifests.filter(|manifest| manifest["Available"] == true);
    let name = |manifest: &Value| {
        manifest["ImageData"]["Platform"]["architecture"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut names: Vec<String> = available.map(name).collect();
    names.sort();
    names
}

#[test]
fn platforms_are_loaded_and_saved_as_asked() {
    guard!();
    let daemon = Daemon::start();
    let whole = daemon.dir.path().join("three.tar");
    std::fs::write(&whole, three()).unwrap();
    let whole = whole.display().to_string();
    let file = |name: &str| daemon.dir.path().join(name).display().to_string();
    daemon.ok(&["load", "-i", &whole]);
    assert_eq!(here(&daemon), ["amd64", "arm64", "s390x"]);
    for (platforms, expected) in [
        (&[][..], &["amd64", "arm64", "s390x"][..]),
        (&["linux/arm64"], &["arm64"]),
        (&["linux/arm64", "linux/s390x"], &["arm64", "s390x"]),
    ] {
        let tar = file("saved.tar");
        let mut save = vec!["save", "-o", &tar];
        save.extend(platforms.iter().flat_map(|platform| ["--platform", *platform]));
        save.push("many:1");
        daemon.ok(&save);
        daemon.ok(&["rmi", "-f", "many:1"]);
        daemon.ok(&["load", "-i", &tar]);
        assert_eq!(here(&daemon), expected, "saved {platforms:?}");
        daemon.ok(&["rmi", "-f", "many:1"]);
        let mut load = vec!["load", "-i", &whole];
        load.extend(platforms.iter().flat_map(|platform| ["--platform", *platform]));
        daemon.ok(&load);
        assert_eq!(here(&daemon), expected, "loaded {platforms:?}");
        daemon.ok(&["rmi", "-f", "many:1"]);
        daemon.ok(&["load", "-i", &whole]);
    }
    // What is not there is named, before anything is written.
    for args in [
        &["save", "-o", "/dev/null", "--platform", "linux/riscv64", "many:1"][..],
        &[
            "save",
            "-o",
            "/dev/null",
            "--platform",
            "linux/amd64",
            "--platform",
            "linux/riscv64",
            "many:1",
        ],
        &["load", "-i", &whole, "--platform", "linux/riscv64"],
    ] {
        let (code, said) = daemon.fails(args);
        assert_eq!(code, 1, "{args:?}: {said}");
        assert!(said.contains("linux/riscv64"), "{args:?}: {said}");
    }
    // The file of a platform is that platform's.
    for (platform, expected) in [("linux/arm64", "arm64"), ("linux/amd64", "amd64")] {
        daemon.ok(&[
            "create",
            "--platform",
            platform,
            "--name",
            expected,
            "many:1",
            "/x",
        ]);
        let out = file(expected);
        daemon.ok(&["cp", &format!("{expected}:/arch"), &out]);
        assert_eq!(std::fs::read_to_string(&out).unwrap(), expected);
    }
}
