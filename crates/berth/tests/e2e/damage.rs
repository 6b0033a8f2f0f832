//! Layers and blobs that are not what they were: what can be had again is, what was built is built again, what stays is told; and
//! whoever has all of it read can have that ended.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::dedup::lines;
use crate::support::{BERTH, Daemon, retry, signal, text};

fn root(daemon: &Daemon) -> PathBuf {
    daemon.dir.path().join("root")
}

/// The object with these bytes.
fn object(daemon: &Daemon, bytes: &str) -> PathBuf {
    std::fs::read_dir(root(daemon).join("objects/files"))
        .unwrap()
        .flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read(path).unwrap() == bytes.as_bytes())
        .unwrap()
}

/// What a check that reads everything finds of shared files.
fn objects_found(daemon: &Daemon, flags: &[&str]) -> Vec<Value> {
    let all = [&["system", "check", "--content", "--format", "json"][..], flags].concat();
    let output = daemon.run(&all);
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stderr), daemon.log()));
    let found = said["Findings"].as_array().unwrap().iter();
    found.filter(|one| one["Kind"] == "object").cloned().collect()
}

/// A context whose first stage is in no image: the second one only looks at it.
fn staged(daemon: &Daemon) -> String {
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(context.join("file"), lines("file")).unwrap();
    let dockerfile = "\
FROM scratch AS a
COPY file /only/here
FROM box:1
ARG TURN
RUN --mount=type=bind,from=a,target=/mnt echo $TURN && md5sum < /mnt/only/here > /sum
";
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    context.display().to_string()
}

fn sum(daemon: &Daemon, context: &str, turn: &str) -> String {
    let turn = format!("TURN={turn}");
    daemon.ok(&["build", "-q", "-t", "app:1", "--build-arg", &turn, context]);
    daemon.ok(&["run", "--rm", "app:1", "cat", "/sum"])
}

#[test]
fn a_stage_whose_files_nothing_has_is_built_again() {
    guard!();
    let daemon = Daemon::start_with(&["--store-dedup"]);
    let context = staged(&daemon);
    let before = sum(&daemon, &context, "1");
    let object = object(&daemon, &lines("file"));
    crate::check::damage(&object);
    let found = objects_found(&daemon, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    let problem = found[0]["Problem"].as_str().unwrap();
    assert!(
        problem.contains("(of a build)") && !problem.contains("app:1"),
        "{problem}"
    );
    let found = objects_found(&daemon, &["--repair"]);
    assert_eq!(found[0]["Repaired"], true, "{found:?}");
    assert!(!object.exists(), "its layer went, and with it the file");
    assert!(objects_found(&daemon, &[]).is_empty());
    assert_eq!(sum(&daemon, &context, "2"), before);
}

#[test]
fn what_no_archive_has_says_who_has_it_and_comes_with_the_next_build() {
    guard!();
    let daemon = Daemon::start_with(&["--store-dedup", "--image-blobs", "keep"]);
    let context = staged(&daemon);
    let blobs = root(&daemon).join("content/blobs/sha256");
    let all = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&blobs).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let before = all();
    let tar = daemon.dir.path().join("tree.tar").display().to_string();
    let mut pack = Command::new("tar");
    pack.args(["-C", &context, "-cf", &tar, "file"]);
    assert!(pack.status().unwrap().success());
    daemon.ok(&["import", &tar, "data:1"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "reader",
        "--mount",
        "type=image,source=data:1,destination=/data",
        "box:1",
        "sleep",
        "1000",
    ]);
    let is_layer = |path: &PathBuf| !std::fs::read(path).unwrap().starts_with(b"{");
    let layer = all()
        .into_iter()
        .find(|path| !before.contains(path) && is_layer(path));
    std::fs::remove_file(layer.unwrap()).unwrap();
    crate::check::damage(&object(&daemon, &lines("file")));

    let found = objects_found(&daemon, &["--repair"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_ne!(found[0]["Repaired"], true, "{found:?}");
    let why = found[0]["Error"].as_str().unwrap();
    assert!(
        why.contains("it stays in layer") && why.contains("(data:1)"),
        "{why}"
    );
    let table = text(&daemon.run(&["system", "check", "--content", "--repair"]).stdout);
    assert!(table.contains("it stays in layer"), "{table}");
    assert_eq!(objects_found(&daemon, &[]).len(), 1);

    sum(&daemon, &context, "1");
    assert!(objects_found(&daemon, &[]).is_empty());
    assert_eq!(daemon.ok(&["exec", "reader", "cat", "/data/file"]), lines("file"));
}

/// Takes the directory of the stage's layer away.
fn lose_stage(daemon: &Daemon) {
    let snapshots = std::fs::read_dir(root(daemon).join("snapshots")).unwrap();
    let stage = snapshots
        .map(|entry| entry.unwrap().path())
        .find(|path| path.join("fs/only/here").exists());
    std::fs::remove_dir_all(stage.expect("the stage is unpacked")).unwrap();
}

#[test]
fn a_stage_whose_directory_is_lost_is_built_again() {
    guard!();
    let mut daemon = Daemon::start();
    let context = staged(&daemon);
    let before = sum(&daemon, &context, "1");
    lose_stage(&daemon);
    daemon.run(&["system", "check", "--repair"]);
    assert_eq!(sum(&daemon, &context, "2"), before);
    // The next daemon sees it at once.
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    lose_stage(&daemon);
    daemon.start_again();
    assert_eq!(sum(&daemon, &context, "3"), before);
}

/// A blob that nobody reads to its end in a lifetime, of no bytes on the disk.
fn endless(daemon: &Daemon) -> PathBuf {
    let path = root(daemon).join("content/blobs/sha256").join("f".repeat(64));
    File::create(&path).unwrap().set_len(8 << 40).unwrap();
    path
}

/// Whether the daemon is in the middle of a file.
fn reads(daemon: &Daemon, file: &Path) -> bool {
    let process = format!("/proc/{}", daemon.child.id());
    let Ok(descriptors) = std::fs::read_dir(format!("{process}/fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        let is_it = std::fs::read_link(descriptor.path()).is_ok_and(|path| path == file);
        let number = descriptor.file_name().display().to_string();
        let state = std::fs::read_to_string(format!("{process}/fdinfo/{number}")).unwrap_or_default();
        let position = state.lines().find_map(|line| line.strip_prefix("pos:"));
        is_it && position.is_some_and(|position| position.trim() != "0")
    })
}

/// A client that has all content read, in the middle of the endless blob.
fn checking(daemon: &Daemon, blob: &Path, flags: &[&str]) -> Child {
    let client = Command::new(BERTH)
        .args(["system", "check", "--content"])
        .args(flags)
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = retry(|| reads(daemon, blob).then_some(()));
    assert!(begun.is_some(), "it is not read\n{}", daemon.log());
    client
}

#[test]
fn a_check_ends_with_its_client() {
    guard!();
    let daemon = Daemon::start();
    let blob = endless(&daemon);
    for flags in [&[][..], &["--repair"]] {
        let mut client = checking(&daemon, &blob, flags);
        client.kill().unwrap();
        client.wait().unwrap();
        let ended = retry(|| (!reads(&daemon, &blob)).then_some(()));
        assert!(ended.is_some(), "{flags:?}: it is still read");
    }
    std::fs::remove_file(&blob).unwrap();
    assert_eq!(
        daemon.ok(&["system", "check", "--content"]),
        "Nothing is wrong.\n"
    );
}

#[test]
fn a_check_ends_with_its_daemon() {
    guard!();
    let mut daemon = Daemon::start();
    let blob = endless(&daemon);
    for flags in [&[][..], &["--repair"]] {
        let client = checking(&daemon, &blob, flags);
        signal(&daemon.child.id().to_string(), "-TERM");
        let ended = retry(|| daemon.child.try_wait().unwrap());
        if ended.is_none() {
            daemon.child.kill().unwrap();
            daemon.child.wait().unwrap();
        }
        let told = client.wait_with_output().unwrap();
        assert!(
            ended.is_some(),
            "{flags:?}: the daemon reads on\n{}",
            daemon.log()
        );
        // That it did not come to its end is not that nothing is wrong.
        assert_eq!(told.status.code(), Some(1));
        let (said, why) = (text(&told.stdout), text(&told.stderr));
        assert!(said.is_empty() && why.contains("given up"), "{said}{why}");
        assert!(
            !daemon.log().contains("requests were still running"),
            "{}",
            daemon.log()
        );
        daemon.start_again();
    }
}
