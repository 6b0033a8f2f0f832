//! What our own client lends no more of than it has to, and what it leaves behind: nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ours::{Place, json, until};
use crate::support::text;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn empty(place: &Place, name: &str) -> PathBuf {
    let dir = place.daemon.dir.path().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    guard!();
    let place = Place::start();
    let temporary = empty(&place, "temporary");
    let containers = place.daemon.dir.path().join("root/containers");
    let runs = || std::fs::read_dir(&containers).is_ok_and(|mut entries| entries.next().is_some());
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut build = place
            .command(&["-"])
            .env("TMPDIR", &temporary)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = build.stdin.take().unwrap();
        stdin.write_all(b"FROM box:1\nRUN sleep 600\n").unwrap();
        drop(stdin);
        until("the step runs", &runs);
        assert_eq!(names(&temporary).len(), 1, "the Dockerfile lies there");
        let sent = Command::new("kill")
            .args(["-s", signal, &build.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let output = build.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains("the build was interrupted"), "{said}");
        assert_eq!(names(&temporary), Vec::<String>::new());
        until("the step has ended", &|| !runs());
    }
    place.daemon.ok(&["system", "check"]);
}

#[test]
fn a_dockerfile_outside_of_the_context_is_lent_alone() {
    guard!();
    let place = Place::start();
    let temporary = empty(&place, "temporary");
    let aside = empty(&place, "aside");
    std::fs::write(aside.join("D"), "FROM box:1\nCOPY . /all\nRUN echo said\n").unwrap();
    std::fs::write(aside.join("D.dockerignore"), "left-*\n").unwrap();
    place.write("kept", "x");
    place.write("left-out", "x");
    let file = aside.join("D").display().to_string();
    let mut build = place.command(&["-t", "aside:1", "-f", &file, "."]);
    let output = build.env("TMPDIR", &temporary).output().unwrap();
    let shown = text(&output.stderr);
    assert!(output.status.success(), "{shown}");
    // It has its own name all the same.
    assert!(shown.contains("load build definition from D\n"), "{shown}");
    assert_eq!(place.said("aside:1", "ls /all"), "kept\n");
    assert_eq!(names(&temporary), Vec::<String>::new());
    // Both cannot be the Dockerfile.
    let mut build = place
        .command(&["-f", &file, "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = build.stdin.take().unwrap();
    stdin.write_all(b"FROM box:1\n").unwrap();
    drop(stdin);
    let output = build.wait_with_output().unwrap();
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && said.contains("-f names another one"),
        "{said}"
    );
}

#[test]
fn several_caches_are_written_and_each_can_be_read() {
    guard!();
    let place = Place::start();
    place.write(
        "Dockerfile",
        "FROM box:1 AS first\nRUN echo first > /first\nFROM box:1\nCOPY --from=first /first /\n",
    );
    let dirs = ["min", "max"].map(|mode| (mode, place.daemon.dir.path().join(mode)));
    let targets = dirs
        .each_ref()
        .map(|(mode, dir)| format!("type=local,dest={},mode={mode}", dir.display()));
    place.ok(&["--cache-to", &targets[0], "--cache-to", &targets[1], "."]);
    let tops = dirs.each_ref().map(|(_, dir)| {
        let index = json(&dir.join("index.json"));
        let digest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
        let hex = digest.strip_prefix("sha256:").unwrap();
        assert!(dir.join("blobs/sha256").join(hex).exists(), "{index}");
        digest
    });
    assert_ne!(tops[0], tops[1]);
    for (_, dir) in &dirs {
        place.daemon.ok(&["builder", "prune", "-af"]);
        let (_, shown) = place.ok(&["--cache-from", &format!("type=local,src={}", dir.display()), "."]);
        assert!(shown.contains(" CACHED"), "{shown}");
    }
    // Of two layouts, one would be lost.
    let layout = |name: &str| format!("type=oci,tar=false,dest={name}");
    let (_, said) = place.fails(&["-o", &layout("one"), "-o", &layout("two"), "."]);
    assert!(said.contains("one and two are two"), "{said}");
}
