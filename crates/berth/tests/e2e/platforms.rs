//! Images for several platforms: saved, loaded and removed whole, in part, and not at all; drawn as a tree.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use spec::Digest;

use crate::docker;
use crate::http::request;
use crate::support::{BERTH, Daemon, left_out, text};
use crate::tarball::{INDEX, Image, MANIFEST, Tar, archive};
use crate::terminal::on_terminal;

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

/// A layer that both platforms have, one each of their own, an attestation about the arm64 one: the archive, and the blobs
/// by what they belong to.
struct Two {
    archive: Vec<u8>,
    index: Digest,
    amd64: Digest,
    arm64: Digest,
    attestation: Digest,
    /// Blobs that only arm64 needs.
    of_arm64: BTreeSet<String>,
    /// All others.
    others: BTreeSet<String>,
}

fn two(name: &str) -> Two {
    let shared = Tar::default().file("shared", b"of both").finish();
    let layers = |own: &str| {
        [
            shared.clone(),
            Tar::default().file("own", own.as_bytes()).finish(),
        ]
    };
    let amd64 = Image::for_platform(&layers("amd64"), "amd64");
    let arm64 = Image::for_platform(&layers("arm64"), "arm64");
    let attestation = Image::for_platform(&[Tar::default().file("said", b"attested").finish()], "unknown");
    let entry = |image: &Image, os: &str, architecture: &str| {
        json!({
            "mediaType": MANIFEST,
            "digest": image.digest().to_string(),
            "size": image.manifest.len(),
            "platform": {"os": os, "architecture": architecture},
        })
    };
    let mut said = entry(&attestation, "unknown", "unknown");
    said["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": arm64.digest().to_string(),
    });
    let manifests = [
        entry(&amd64, "linux", "amd64"),
        entry(&arm64, "linux", "arm64"),
        said,
    ];
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let index = serde_json::to_vec(&index).unwrap();
    let target = Digest::sha256(&index);
    let names = |blobs: Vec<(Digest, Vec<u8>)>| -> BTreeSet<String> {
        blobs.iter().map(|(digest, _)| digest.hex().to_owned()).collect()
    };
    let mut others = names(amd64.blobs());
    others.insert(target.hex().to_owned());
    let all = &names(arm64.blobs()) | &names(attestation.blobs());
    let mut blobs: Vec<_> = [&amd64, &arm64, &attestation].map(Image::blobs).concat();
    blobs.push((target.clone(), index.clone()));
    blobs.sort_by(|a, b| a.0.cmp(&b.0));
    blobs.dedup_by(|a, b| a.0 == b.0);
    Two {
        archive: archive(&[(target.clone(), index.len(), Some(name), INDEX)], &blobs),
        index: target,
        amd64: amd64.digest(),
        arm64: arm64.digest(),
        attestation: attestation.digest(),
        of_arm64: &all - &others,
        others,
    }
}

fn load(daemon: &Daemon, archive: &[u8]) {
    let path = daemon.dir.path().join("load.tar");
    std::fs::write(&path, archive).unwrap();
    daemon.ok(&["load", "-i", &path.display().to_string()]);
}

/// The blobs on disk.
fn blobs(daemon: &Daemon) -> BTreeSet<String> {
    let dir = daemon.dir.path().join("root/content/blobs/sha256");
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// How many layers are unpacked.
fn layers(daemon: &Daemon) -> usize {
    let entries = std::fs::read_dir(daemon.dir.path().join("root/snapshots")).unwrap();
    let numbered = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    entries
        .filter(|entry| numbered(entry.as_ref().unwrap().file_name().to_str().unwrap()))
        .count()
}

/// What the unpacked layers have under the name `own`.
fn unpacked(daemon: &Daemon) -> BTreeSet<String> {
    let entries = std::fs::read_dir(daemon.dir.path().join("root/snapshots")).unwrap();
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.unwrap().path().join("fs/own")).ok())
        .collect()
}

fn in_order(daemon: &Daemon) {
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn one_platform_is_removed_and_nothing_else() {
    guard!();
    let daemon = Daemon::start();
    let empty = blobs(&daemon);
    let before = layers(&daemon);
    let two = two("two:1");
    load(&daemon, &two.archive);
    let all = &two.of_arm64 | &two.others;
    // The archive's own documents are gone already.
    assert_eq!(&blobs(&daemon) - &empty, all);
    daemon.ok(&[
        "create",
        "--platform",
        "linux/arm64",
        "--name",
        "user",
        "two:1",
        "/x",
    ]);
    daemon.ok(&[
        "create",
        "--platform",
        "linux/amd64",
        "--name",
        "other",
        "two:1",
        "/x",
    ]);
    // What a container was made of is kept unless it is forced, what is not there is named.
    let (code, said) = daemon.fails(&["rmi", "--platform", "linux/arm64", "two:1"]);
    assert_eq!(code, 1);
    assert!(
        said.contains("unable to delete two:1 (must be forced) - container"),
        "{said}"
    );
    let (code, said) = daemon.fails(&["rmi", "--platform", "linux/s390x", "two:1"]);
    assert_eq!(code, 1);
    assert!(said.contains("linux/s390x"), "{said}");
    let (_, said) = daemon.fails(&[
        "rmi",
        "--platform",
        "linux/arm64",
        "--platform",
        "linux/arm/v7",
        "two:1",
    ]);
    assert!(said.contains("linux/arm/v7"), "{said}");
    assert_eq!(&blobs(&daemon) - &empty, all);
    daemon.ok(&["rm", "user"]);
    assert_eq!(unpacked(&daemon), ["amd64", "arm64"].map(str::to_owned).into());
    assert_eq!(
        daemon.ok(&["rmi", "--platform", "linux/arm64", "two:1"]),
        format!("Deleted: {}\nDeleted: {}\n", two.arm64, two.attestation)
    );
    assert_eq!(&blobs(&daemon) - &empty, two.others);
    assert_eq!(unpacked(&daemon), ["amd64".to_owned()].into());
    in_order(&daemon);
    let digest = daemon.ok(&["inspect", "--format", "{{.Id}}", "two:1"]);
    assert_eq!(digest.trim(), two.index.to_string());
    let (_, said) = daemon.fails(&[
        "create",
        "--pull",
        "never",
        "--platform",
        "linux/arm64",
        "two:1",
        "/x",
    ]);
    assert!(said.contains("linux/arm64"), "{said}");
    // It can come back.
    load(&daemon, &two.archive);
    assert_eq!(&blobs(&daemon) - &empty, all);
    // The last platform takes the image along.
    daemon.ok(&["rm", "other"]);
    let both = [
        "rmi",
        "--platform",
        "linux/arm64",
        "--platform",
        "linux/amd64",
        "two:1",
    ];
    assert_eq!(
        daemon.ok(&both),
        format!(
            "Deleted: {}\nDeleted: {}\nDeleted: {}\nUntagged: two:1\nDeleted: {}\n",
            two.arm64, two.amd64, two.attestation, two.index
        )
    );
    assert_eq!(blobs(&daemon), empty);
    assert_eq!(layers(&daemon), before);
    in_order(&daemon);
}

/// Docker deletes the content under every image that has it; here another image keeps what is its own.
#[test]
fn a_platform_that_another_image_has_as_well_stays_with_that_one() {
    guard!();
    let daemon = Daemon::start();
    let two = two("two:1");
    load(&daemon, &two.archive);
    let tar = daemon.dir.path().join("arm.tar").display().to_string();
    daemon.ok(&["save", "-o", &tar, "--platform", "linux/arm64", "two:1"]);
    daemon.ok(&["rmi", "two:1"]);
    daemon.ok(&["load", "-i", &tar]);
    daemon.ok(&["tag", "two:1", "arm:1"]);
    load(&daemon, &two.archive);
    daemon.ok(&["rmi", "--platform", "linux/arm64", "two:1"]);
    daemon.ok(&[
        "create",
        "--platform",
        "linux/arm64",
        "--name",
        "made",
        "arm:1",
        "/x",
    ]);
    let out = daemon.dir.path().join("own").display().to_string();
    daemon.ok(&["cp", "made:/own", &out]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "arm64");
    in_order(&daemon);
}

#[test]
fn the_tree_is_dockers() {
    guard!();
    let daemon = Daemon::start();
    load(&daemon, &two("two:1").archive);
    daemon.ok(&["tag", "two:1", "registry.invalid/a/long/name/of/two:latest"]);
    daemon.ok(&["create", "--platform", "linux/arm64", "two:1", "/x"]);
    let tree = daemon.ok(&["images", "--tree"]);
    let row = |start: &str| {
        let line = tree.lines().find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("no {start} in\n{tree}"))
    };
    assert!(row("├─ linux/amd64").ends_with("        "), "{tree}");
    assert!(row("└─ linux/arm64").ends_with("   U    "), "{tree}");
    assert!(row("two:1").ends_with("   U    "), "{tree}");
    for flag in [
        &["--quiet"][..],
        &["--no-trunc"],
        &["--digests"],
        &["--format", "json"],
    ] {
        let (code, said) = daemon.fails(&[&["images", "--tree"], flag].concat());
        assert_eq!(code, 1);
        assert!(
            said.contains(&format!("{} is not yet supported with --tree", flag[0])),
            "{said}"
        );
    }
    let docker = match docker::client(docker::RECENT) {
        Ok(docker) => docker.display().to_string(),
        Err(why) => return left_out(&why),
    };
    // The same table from Docker's client, which begins with a warning and colours the heading even where nobody sees it.
    for args in [
        &["images", "--tree"][..],
        &["image", "ls", "--tree", "-a"],
        &["images", "--tree", "two"],
    ] {
        let theirs = Command::new(&docker)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .output()
            .unwrap();
        let theirs = text(&theirs.stdout);
        let theirs: String = theirs.split_inclusive('\n').skip(1).collect();
        let theirs = theirs
            .replace("\x1b[39m", "")
            .replace("\x1b[1m", "")
            .replace("\x1b[0m", "");
        assert_eq!(daemon.ok(args), theirs, "{args:?}");
    }
    // And in terminals of several widths, colours aside.
    for columns in [132, 80, 61, 44, 30, 10] {
        let seen = |program: &str| {
            let said = plain(&on_terminal(&daemon, columns, program, &["images", "--tree"]));
            // The legend of Docker's has a sign more.
            let table = said.lines().skip_while(|line| !line.starts_with("IMAGE"));
            table.map(str::to_owned).collect::<Vec<String>>()
        };
        let ours = seen(BERTH);
        assert!(ours.len() > 5, "{ours:?}");
        assert_eq!(ours, seen(&docker), "{columns}");
    }
}

/// Without the colours and carriage returns of a terminal.
fn plain(seen: &str) -> String {
    let mut plain = String::new();
    let mut rest = seen;
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').unwrap_or_default().1;
    }
    (plain + rest).replace('\r', "")
}
