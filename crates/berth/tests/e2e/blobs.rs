//! Compressed layers that leave the disk by the policy (`image-blobs`), and everything that wants them afterwards.

use std::path::Path;
use std::process::Command;

use crate::private::Registry;
use crate::support::{Daemon, retry, signal, text};

/// Bytes of all blobs.
fn blobs(daemon: &Daemon) -> u64 {
    let dir = daemon.dir.path().join("root/content/blobs/sha256");
    let sizes = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len());
    sizes.sum()
}

fn write(file: &Path, policy: &str) {
    std::fs::write(file, format!(r#"{{"image-blobs": "{policy}"}}"#)).unwrap();
}

/// Says another policy to the daemon, which follows it at once; waits until blobs take less than before.
fn let_go(daemon: &Daemon, file: &Path, policy: &str) {
    let before = blobs(daemon);
    write(file, policy);
    signal(&daemon.child.id().to_string(), "-HUP");
    let less = retry(|| (blobs(daemon) < before / 2).then_some(()));
    assert!(
        less.is_some(),
        "{before} and now {}:\n{}",
        blobs(daemon),
        daemon.log()
    );
}

/// What the client counts is what the disk says, within a hundredth, as soon as the daemon's own files rest.
fn assert_space_is_told(daemon: &Daemon) {
    let mut last = (0, 0);
    let told = retry(|| {
        let answer = crate::http::request(daemon, "GET", "/v1.51/system/space", "", b"");
        let said: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let root = daemon.dir.path().join("root");
        let du = Command::new("du").args(["-s", "-B1"]).arg(root).output().unwrap();
        let du: u64 = text(&du.stdout)
            .split_whitespace()
            .next()
            .unwrap()
            .parse()
            .unwrap();
        last = (said["Total"].as_u64().unwrap(), du);
        (last.0.abs_diff(du) * 100 <= du).then_some(())
    });
    assert!(told.is_some(), "{} said, {} on disk", last.0, last.1);
}

fn saved(daemon: &Daemon, name: &str) -> Vec<u8> {
    let file = daemon.dir.path().join("saved.tar");
    daemon.ok(&["save", "-o", &file.display().to_string(), name]);
    std::fs::read(file).unwrap()
}

#[test]
fn layers_leave_the_disk_and_nobody_misses_them() {
    guard!();
    let (Some(first), Some(second)) = (Registry::start(""), Registry::start("")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon.json");
    write(&file, "keep");
    let mut daemon = Daemon::start_with(&["--config-file", &file.display().to_string()]);
    let context = daemon.dir.path().join("context");
    std::fs::create_dir_all(&context).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM box:1\nRUN echo kept > /data\nCMD cat /data\n",
    )
    .unwrap();
    daemon.ok(&["build", "-t", "app:1", &context.display().to_string()]);
    let name = format!("127.0.0.1:{}/team/app:1", first.port);
    daemon.ok(&["tag", "app:1", &name]);
    daemon.ok(&["push", &name]);
    let before = saved(&daemon, "app:1");
    let size = |daemon: &Daemon| -> u64 {
        daemon
            .ok(&["inspect", "-f", "{{.Size}}", "app:1"])
            .trim()
            .parse()
            .unwrap()
    };
    let whole = size(&daemon);

    let_go(&daemon, &file, "recipe");
    let told = "compressed layers that can be had again were removed";
    assert!(retry(|| daemon.log().contains(told).then_some(())).is_some());
    assert!(size(&daemon) < whole, "{} {whole}", size(&daemon));
    assert_space_is_told(&daemon);
    assert_eq!(daemon.ok(&["run", "--rm", "app:1"]).trim(), "kept");
    daemon.crash_and_restart();
    daemon.ok(&["system", "check"]);

    // To where it was, nothing goes; to where it was not, the same goes.
    let said = daemon.ok(&["push", &name]);
    assert!(
        said.contains("Layer already exists") && !said.contains("Pushed"),
        "{said}"
    );
    let copy = format!("127.0.0.1:{}/copy/app:1", second.port);
    daemon.ok(&["tag", "app:1", &copy]);
    match daemon.docker(&["push", &copy]) {
        Some(docker) => assert!(docker.status.success(), "{}", text(&docker.stderr)),
        None => drop(daemon.ok(&["push", &copy])),
    }
    let digest = |name: &str| {
        let digests = daemon.ok(&["inspect", "-f", "{{json .RepoDigests}}", name]);
        let digests: Vec<String> = serde_json::from_str(digests.trim()).unwrap();
        let of_it = digests
            .iter()
            .map(|digest| digest.rsplit('@').next().unwrap().to_owned());
        let mut unique: Vec<String> = of_it.collect();
        unique.dedup();
        unique
    };
    assert_eq!(digest(&copy).len(), 1, "one digest everywhere");
    daemon.ok(&["rmi", &copy, &name]);
    assert!(saved(&daemon, "app:1") == before);

    // Another engine takes what came out.
    let there = Daemon::start();
    let pulled = format!("127.0.0.1:{}/copy/app:1", second.port);
    there.ok(&["pull", &pulled]);
    assert_eq!(there.ok(&["run", "--rm", &pulled]).trim(), "kept");

    // With the image everything goes.
    daemon.ok(&["rmi", "-f", "app:1", "box:1"]);
    daemon.ok(&["system", "prune", "-a", "-f"]);
    let left = std::fs::read_dir(daemon.dir.path().join("root/content/blobs/sha256")).unwrap();
    assert_eq!(left.count(), 0);
    daemon.ok(&["system", "check"]);
}

#[test]
fn a_policy_that_is_none_is_refused() {
    guard!();
    let daemon = Daemon::start();
    let flag = |flag: &str, value: &str| {
        let root = daemon.dir.path().join("other").display().to_string();
        let (_, said) = daemon.fails(&["daemon", "--validate", "--data-root", &root, flag, value]);
        assert!(
            said.contains(flag) && said.contains(value) && said.contains("expected"),
            "{said}"
        );
    };
    flag("--image-blobs", "some");
    flag("--image-id", "name");
}
