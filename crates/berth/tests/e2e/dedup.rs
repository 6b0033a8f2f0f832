//! Stores whose layers share their files (`--store-dedup`): everything that reads a layer, whoever it is, with real containers.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::storage::assert_space_is_told;
use crate::support::{Daemon, text};

/// Some lines that are nowhere else, more than fit into what stays in a layer.
pub fn lines(word: &str) -> String {
    (0..400).map(|number| format!("{word} {number}\n")).collect()
}

fn objects(daemon: &Daemon) -> usize {
    let Ok(first) = std::fs::read_dir(daemon.dir.path().join("root/objects/files")) else {
        return 0;
    };
    first
        .map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap().count())
        .sum()
}

fn found(daemon: &Daemon) -> serde_json::Value {
    let output = daemon.run(&["system", "check", "--format", "json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A context whose two stages have files in common with each other.
fn context(daemon: &Daemon) -> PathBuf {
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), lines("file")).unwrap();
    let dockerfile = "\
# syntax=docker/dockerfile:1
FROM box:1 AS one
COPY file /tree/file
COPY --chown=7:8 --chmod=751 file /tree/sub/other
RUN cp /tree/file /made && echo x >> /made && ln /made /twin
FROM box:1
COPY --from=one /tree /tree
COPY --link file /linked/file
COPY --link --from=one /made /linked/made
RUN --mount=type=bind,from=one,source=/tree,target=/mnt cat /mnt/file /mnt/sub/other | md5sum > /seen
RUN --mount=type=bind,from=one,source=/tree/sub/other,target=/one md5sum < /one >> /seen && stat -c '%u %a' /one >> /seen
RUN --mount=type=bind,from=one,source=/,target=/mnt,rw echo more >> /mnt/tree/file && md5sum < /mnt/tree/file >> /seen
RUN rm /tree/sub/other && chown 9 /tree/file
";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context
}

/// What the built image shows.
const LOOK: &str = "cat /seen; md5sum /tree/file /linked/file /linked/made; stat -c '%u %g %a %s' /tree/file /linked/made; \
                    ls /tree /tree/sub";

#[test]
fn containers_and_images_are_the_same_as_without() {
    guard!();
    let sharing = Daemon::start_with(&["--store-dedup"]);
    let plain = Daemon::start();
    let looks: Vec<[String; 3]> = [&sharing, &plain]
        .map(|daemon| {
            let path = context(daemon).display().to_string();
            daemon.ok(&["build", "-t", "app:1", &path]);
            let shown = daemon.ok(&["run", "--rm", "app:1", "sh", "-c", LOOK]);
            daemon.ok(&[
                "run",
                "--name",
                "one",
                "app:1",
                "sh",
                "-c",
                "echo more >> /linked/file; chown 3 /linked/made",
            ]);
            let changed = daemon.ok(&["diff", "one"]);
            daemon.ok(&["commit", "one", "made:1"]);
            let out = daemon.dir.path().join("out");
            daemon.ok(&["cp", "one:/linked/file", &out.display().to_string()]);
            daemon.ok(&["cp", "one:/tree/file", &out.display().to_string()]);
            let copied = std::fs::read_to_string(&out).unwrap();
            daemon.ok(&["rm", "one"]);
            [shown, changed, copied]
        })
        .into();
    assert_eq!(looks[0], looks[1]);
    assert_eq!(looks[0][2], lines("file"));
    assert!(objects(&sharing) >= 3, "{}", objects(&sharing));
    assert_eq!(objects(&plain), 0);

    // An archive of the one is the archive of the other, also when its blobs have to be made from the layers.
    let saved = |daemon: &Daemon, name: &str| {
        let path = daemon.dir.path().join("saved.tar").display().to_string();
        daemon.ok(&["save", "-o", &path, name]);
        path
    };
    let from_sharing = saved(&sharing, "made:1");
    let id = sharing.ok(&["inspect", "-f", "{{.Id}}", "made:1"]);
    plain.ok(&["load", "-i", &from_sharing]);
    assert_eq!(plain.ok(&["inspect", "-f", "{{.Id}}", "made:1"]), id);
    let look = [
        "run",
        "--rm",
        "made:1",
        "sh",
        "-c",
        "tail -n 1 /linked/file; stat -c %u /linked/made; md5sum /linked/made",
    ];
    assert_eq!(plain.ok(&look), sharing.ok(&look));
    let explored = |daemon: &Daemon| daemon.ok(&["image", "explore", "--format", "json", "made:1"]);
    let (one, other) = (explored(&sharing), explored(&plain));
    let layers = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["Layers"].clone();
    assert_eq!(layers(&one), layers(&other));
    let differs = sharing.ok(&["image", "diff", "--format", "json", "app:1", "made:1"]);
    let differs: serde_json::Value = serde_json::from_str(&differs).unwrap();
    let paths: Vec<&str> = differs["Entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["Path"].as_str().unwrap())
        .filter(|path| !path.ends_with("linked"))
        .collect();
    assert_eq!(paths, ["/linked/file", "/linked/made"], "{differs}");
    let exported = sharing.dir.path().join("root.tar").display().to_string();
    let container = sharing.ok(&["create", "made:1", "true"]);
    sharing.ok(&["export", "-o", &exported, container.trim()]);
    let listed = Command::new("tar")
        .args(["-xOf", &exported, "linked/file"])
        .output()
        .unwrap();
    assert_eq!(text(&listed.stdout), lines("file") + "more\n");
}

#[test]
fn running_containers_see_whole_files() {
    guard!();
    let mut daemon = Daemon::start_with(&["--store-dedup"]);
    let path = context(&daemon).display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    daemon.ok(&["run", "-d", "--name", "one", "app:1", "sleep", "600"]);
    let sum = daemon.ok(&["exec", "one", "busybox", "md5sum", "/linked/file"]);
    daemon.ok(&[
        "exec",
        "one",
        "sh",
        "-c",
        "echo more >> /linked/file && mv /tree /moved",
    ]);
    let written = daemon.ok(&["exec", "one", "busybox", "tail", "-n", "2", "/linked/file"]);
    assert_eq!(written, "file 399\nmore\n");
    assert!(
        daemon
            .ok(&["exec", "one", "cat", "/moved/file"])
            .ends_with("file 399\n")
    );
    // Killed at once, started again without sharing: nothing is lost and nothing looks different.
    daemon.crash_and_restart();
    assert_eq!(
        daemon.ok(&["exec", "one", "busybox", "tail", "-n", "1", "/linked/file"]),
        "more\n"
    );
    daemon.args.clear();
    daemon.crash_and_restart();
    daemon.ok(&["restart", "-t", "0", "one"]);
    assert_eq!(
        daemon.ok(&["exec", "one", "busybox", "tail", "-n", "1", "/linked/file"]),
        "more\n"
    );
    assert_eq!(
        daemon.ok(&["run", "--rm", "app:1", "busybox", "md5sum", "/linked/file"]),
        sum
    );
    // A read-only root, the image as a mount, and part of it.
    assert_eq!(
        daemon.ok(&[
            "run",
            "--rm",
            "--read-only",
            "app:1",
            "busybox",
            "md5sum",
            "/linked/file"
        ]),
        sum
    );
    let mount = "type=image,source=app:1,destination=/linked";
    let mounted = daemon.ok(&[
        "run",
        "--rm",
        "--mount",
        mount,
        "box:1",
        "busybox",
        "md5sum",
        "/linked/linked/file",
    ]);
    assert_eq!(mounted.split(' ').next(), sum.split(' ').next());
    daemon.ok(&["rm", "-f", "one"]);
    assert_eq!(found(&daemon)["Findings"], serde_json::json!([]));
}

#[test]
fn user_namespaces_share_them_too() {
    guard!();
    let ids = crate::userns::subordinate("containers:500000:65536\n");
    let dir = ids.path().display().to_string();
    let daemon = Daemon::start_with(&["--store-dedup", "--subid-dir", &dir]);
    let path = context(&daemon).display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    let script = "cat /linked/file | tail -n 1; stat -c %u /linked/file /tree/file; echo more >> /linked/file; \
                  tail -n 1 /linked/file; cat /proc/self/uid_map";
    let shown = daemon.ok(&[
        "run",
        "--name",
        "one",
        "--userns",
        "auto:size=1000",
        "app:1",
        "sh",
        "-c",
        script,
    ]);
    let mut shown = shown.lines();
    let first: Vec<&str> = shown.by_ref().take(4).collect();
    assert_eq!(first, ["file 399", "0", "9", "more"]);
    let map = shown.next().unwrap().split_whitespace().nth(1).unwrap();
    assert_eq!(map, "500000");
    assert_eq!(daemon.ok(&["diff", "one"]), "C /linked\nC /linked/file\n");
    let mount = "type=image,source=app:1,destination=/img";
    let mounted = daemon.ok(&[
        "run",
        "--rm",
        "--userns",
        "auto:size=1000",
        "--mount",
        mount,
        "box:1",
        "busybox",
        "tail",
        "-n",
        "1",
        "/img/linked/file",
    ]);
    assert_eq!(mounted, "file 399\n");
}

#[test]
fn space_is_what_the_disk_says_and_comes_back() {
    guard!();
    let daemon = Daemon::start_with(&["--store-dedup"]);
    let large = daemon.dir.path().join("tree");
    std::fs::create_dir_all(&large).unwrap();
    let mut number = 1u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        number.to_be_bytes()
    })
    .take(1 << 20)
    .flatten()
    .collect();
    std::fs::write(large.join("large"), &bytes).unwrap();
    let import = |daemon: &Daemon, name: &str, own: &str| {
        std::fs::write(large.join("own"), lines(own)).unwrap();
        let tar = daemon.dir.path().join("tree.tar").display().to_string();
        let tree = large.display().to_string();
        Command::new("tar")
            .args(["-C", &tree, "-cf", &tar, "."])
            .status()
            .unwrap();
        daemon.ok(&["import", &tar, name]);
    };
    import(&daemon, "first:1", "first");
    let objects_then = objects(&daemon);
    let after_first = space_of_images(&daemon);
    import(&daemon, "second:1", "second");
    assert_eq!(objects(&daemon), objects_then + 1);
    assert_space_is_told(&daemon);
    // Only the blob of the second one is new, which random bytes do not make smaller.
    let more = space_of_images(&daemon) - after_first;
    assert!(more < (8 << 20) + (1 << 20), "{more}");
    let usage = crate::http::request(&daemon, "GET", "/v1.51/system/df", "", b"");
    let usage: serde_json::Value = serde_json::from_str(&usage.body).unwrap();
    let image = |name: &str| {
        let images = usage["ImageUsage"]["Items"]
            .as_array()
            .or(usage["Images"].as_array())
            .unwrap();
        let found = images
            .iter()
            .find(|image| image["RepoTags"][0].as_str() == Some(name));
        found.unwrap().clone()
    };
    for name in ["first:1", "second:1"] {
        let image = image(name);
        let (size, shared) = (
            image["Size"].as_u64().unwrap(),
            image["SharedSize"].as_u64().unwrap(),
        );
        assert!(size > 16 << 20, "{image}");
        assert!(shared > 7 << 20 && shared < 9 << 20, "{image}");
    }
    daemon.ok(&["rmi", "first:1"]);
    assert_space_is_told(&daemon);
    assert_eq!(
        daemon
            .ok(&[
                "run",
                "--rm",
                "--mount",
                "type=image,source=second:1,destination=/i",
                "box:1",
                "sh",
                "-c",
                "wc -c < /i/large"
            ])
            .trim(),
        (8 << 20).to_string()
    );
    daemon.ok(&["rmi", "second:1"]);
    assert_space_is_told(&daemon);
    assert!(objects(&daemon) < objects_then);
    assert_eq!(found(&daemon)["Findings"], serde_json::json!([]));
}

fn space_of_images(daemon: &Daemon) -> u64 {
    let answer = crate::http::request(daemon, "GET", "/v1.51/system/space", "", b"");
    let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    said["Images"].as_u64().unwrap()
}

#[test]
fn content_that_somebody_deleted_is_found_and_put_back() {
    guard!();
    let daemon = Daemon::start_with(&["--store-dedup"]);
    let path = context(&daemon).display().to_string();
    daemon.ok(&["build", "-t", "app:1", &path]);
    let files = daemon.dir.path().join("root/objects/files");
    let object = std::fs::read_dir(&files)
        .unwrap()
        .flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).unwrap() == lines("file").as_bytes())
        .unwrap();
    assert_eq!(std::fs::metadata(&object).unwrap().uid(), 0);
    std::fs::remove_file(&object).unwrap();
    let said = found(&daemon);
    assert!(said["Findings"][0]["Kind"].as_str() == Some("object"), "{said}");
    daemon.run(&["system", "check", "--repair"]);
    assert_eq!(found(&daemon)["Findings"], serde_json::json!([]));
    assert!(
        daemon
            .ok(&["run", "--rm", "app:1", "cat", "/linked/file"])
            .ends_with("file 399\n")
    );
}

#[test]
fn shared_content_that_was_changed_is_found_when_all_is_read_and_had_again() {
    guard!();
    let daemon = Daemon::start_with(&["--store-dedup", "--image-blobs", "keep"]);
    let tree = daemon.dir.path().join("tree");
    std::fs::create_dir_all(&tree).unwrap();
    std::fs::write(tree.join("file"), lines("file")).unwrap();
    let tar = daemon.dir.path().join("tree.tar").display().to_string();
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(&tree).args(["-cf", &tar, "."]);
    assert!(pack.status().unwrap().success());
    daemon.ok(&["import", &tar, "data:1"]);
    let files = daemon.dir.path().join("root/objects/files");
    let object = std::fs::read_dir(&files)
        .unwrap()
        .flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).unwrap() == lines("file").as_bytes())
        .unwrap();
    let deep = |flags: &[&str]| -> serde_json::Value {
        let all = [&["system", "check", "--content", "--format", "json"][..], flags].concat();
        serde_json::from_slice(&daemon.run(&all).stdout).unwrap()
    };
    assert_eq!(deep(&[])["Findings"], serde_json::json!([]));

    crate::check::damage(&object);
    assert_eq!(
        found(&daemon)["Findings"],
        serde_json::json!([]),
        "nobody reads it"
    );
    let said = deep(&[]);
    assert_eq!(said["Findings"][0]["Kind"], "object", "{said}");
    let said = deep(&["--repair"]);
    assert_eq!(said["Findings"][0]["Repaired"], true, "{said}");
    let mount = "type=image,source=data:1,destination=/data";
    let shown = daemon.ok(&["run", "--rm", "--mount", mount, "box:1", "cat", "/data/file"]);
    assert_eq!(shown, lines("file"));
    assert_eq!(deep(&[])["Findings"], serde_json::json!([]));

    // What a stage of a build shares with an image is right again with that.
    std::fs::write(
        tree.join("Dockerfile"),
        "FROM scratch AS a\nCOPY file /\nFROM box:1\nCOPY --from=a /file /copy\n",
    )
    .unwrap();
    daemon.ok(&["build", "-q", "-t", "staged:1", &tree.display().to_string()]);
    crate::check::damage(&object);
    let said = deep(&["--repair"]);
    assert_eq!(said["Findings"][0]["Kind"], "object", "{said}");
    let problem = said["Findings"][0]["Problem"].as_str().unwrap();
    for holder in ["(data:1)", "(staged:1)", "(of a build)"] {
        assert!(problem.contains(holder), "{said}");
    }
    assert_eq!(said["Findings"][0]["Repaired"], true, "{said}");
    let shown = daemon.ok(&["run", "--rm", "--mount", mount, "staged:1", "cat", "/data/file"]);
    assert_eq!(shown, lines("file"));
    assert_eq!(
        daemon.ok(&["run", "--rm", "staged:1", "cat", "/copy"]),
        lines("file")
    );
    assert_eq!(deep(&[])["Findings"], serde_json::json!([]));
}

/// A file of an image, mounted: one that has its content elsewhere, one that is whole, and a directory.
#[test]
fn parts_of_images_are_mounted() {
    guard!();
    let daemon = Daemon::start_with(&["--store-dedup"]);
    let tar = daemon.dir.path().join("parts.tar");
    let tree = daemon.dir.path().join("parts");
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/large"), lines("large")).unwrap();
    std::fs::write(tree.join("etc/small"), "small").unwrap();
    std::os::unix::fs::symlink("large", tree.join("etc/link")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o751);
    std::fs::set_permissions(tree.join("etc/large"), mode).unwrap();
    std::os::unix::fs::chown(tree.join("etc/large"), Some(7), Some(8)).unwrap();
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(&tree).arg("-cf").arg(&tar).arg(".");
    assert!(pack.status().unwrap().success());
    daemon.ok(&["import", &tar.display().to_string(), "parts:1"]);
    // The same with a layer on top that hides none of it.
    let copy = "parts:2";
    daemon.ok(&["create", "--name", "more", "parts:1", "true"]);
    let new = daemon.dir.path().join("new");
    std::fs::write(&new, "new").unwrap();
    daemon.ok(&["cp", &new.display().to_string(), "more:/etc/new"]);
    daemon.ok(&["commit", "more", copy]);
    for image in ["parts:1", copy] {
        let shown = |part: &str, script: &str| {
            let mount = format!("type=image,src={image},dst=/mnt,image-subpath={part}");
            daemon.ok(&["run", "--rm", "--mount", &mount, "box:1", "sh", "-c", script])
        };
        for part in ["etc/large", "etc/link"] {
            assert_eq!(shown(part, "cat /mnt"), lines("large"), "{part} of {image}");
            assert_eq!(
                shown(part, "stat -c '%u %g %a' /mnt"),
                "7 8 751\n",
                "{part} of {image}"
            );
        }
        assert_eq!(shown("etc/small", "cat /mnt"), "small");
        assert_eq!(shown("etc", "cat /mnt/large"), lines("large"));
    }
}

#[test]
fn what_cannot_share_refuses_by_name() {
    guard!();
    let dir = tempfile::tempdir().unwrap();
    let args = ["--storage-driver", "vfs", "--store-dedup"].map(str::to_owned);
    let refused = crate::support::command(dir.path(), &args).output().unwrap();
    let said = text(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    assert!(said.contains("store-dedup") && said.contains("vfs"), "{said}");
}
