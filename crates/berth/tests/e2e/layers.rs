//! What of a container is the image's, what is its own, and what is only there to mount on.

use std::process::Command;

use crate::http::request;
use crate::support::{Daemon, text};
use crate::tarball::{Image, Tar};

/// The names in an archive, directories with a slash.
fn listed(daemon: &Daemon, tar: &str) -> Vec<String> {
    let output = Command::new("tar")
        .arg("-tf")
        .arg(daemon.dir.path().join(tar))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
        .lines()
        .map(|line| line.trim_start_matches("./").to_owned())
        .collect()
}

#[test]
fn what_containers_are_mounted_on_is_no_change_of_theirs() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "--name",
        "idle",
        "box:1",
        "sh",
        "-c",
        "cat /etc/hosts > /dev/null",
    ]);
    assert_eq!(daemon.ok(&["diff", "idle"]).trim(), "");
    daemon.ok(&[
        "run",
        "--name",
        "busy",
        "box:1",
        "sh",
        "-c",
        "echo x > /srv/new; echo y > /etc/own",
    ]);
    assert_eq!(
        daemon.ok(&["diff", "busy"]).trim(),
        "C /etc\nA /etc/own\nC /srv\nA /srv/new"
    );
    // Inside they are there, and are told to be a container's.
    let inside = daemon.ok(&["run", "--rm", "box:1", "ls", "-a", "/", "/etc"]);
    for name in [
        ".dockerenv",
        "proc",
        "sys",
        "dev",
        "mtab",
        "hosts",
        "hostname",
        "resolv.conf",
    ] {
        assert!(
            inside.lines().any(|line| line == name),
            "{name} is missing:\n{inside}"
        );
    }

    daemon.ok(&["commit", "busy", "made:1"]);
    daemon.ok(&[
        "save",
        "-o",
        &daemon.dir.path().join("made.tar").display().to_string(),
        "made:1",
    ]);
    let layers: Vec<String> = daemon
        .ok(&[
            "inspect",
            "-f",
            "{{range .RootFS.Layers}}{{println .}}{{end}}",
            "made:1",
        ])
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(layers.len(), 2);
    let out = daemon.dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let unpacked = Command::new("tar")
        .arg("-xf")
        .arg(daemon.dir.path().join("made.tar"))
        .arg("-C")
        .arg(&out)
        .status();
    assert!(unpacked.unwrap().success());
    let manifest = std::fs::read(out.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let top = manifest[0]["Layers"][1].as_str().unwrap();
    let mut names = listed(&daemon, &format!("out/{top}"));
    names.sort();
    assert_eq!(names, ["etc/", "etc/own", "srv/", "srv/new"]);

    let export = daemon.dir.path().join("export.tar");
    daemon.ok(&["export", "-o", &export.display().to_string(), "busy"]);
    let names = listed(&daemon, "export.tar");
    for name in [
        "srv/new",
        "etc/own",
        ".dockerenv",
        "etc/hosts",
        "proc/",
        "dev/console",
    ] {
        assert!(
            names.iter().any(|known| known == name),
            "{name} is not exported: {names:?}"
        );
    }
    // An image of the image's own files only, again.
    assert_eq!(
        daemon.ok(&["run", "--rm", "made:1", "cat", "/srv/new"]).trim(),
        "x"
    );
}

#[test]
fn images_go_with_their_last_container_and_name() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["create", "--name", "only", "box:1", "true"]);
    daemon.ok(&["rm", "only"]);
    daemon.ok(&["rmi", "box:1"]);
    let left = std::fs::read_dir(daemon.dir.path().join("root/snapshots"))
        .unwrap()
        .flatten();
    let left: Vec<_> = left
        .map(|e| e.file_name())
        .filter(|name| name.to_string_lossy().parse::<u64>().is_ok())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_mounted_file_is_copied_onto() {
    guard!();
    let daemon = Daemon::start();
    let file = daemon.dir.path().join("hosts");
    std::fs::write(&file, "127.0.0.1 localhost\n192.0.2.7 copied\n").unwrap();
    let bound = daemon.dir.path().join("bound");
    std::fs::write(&bound, "before\n").unwrap();
    let mount = format!("{}:/srv/bound", bound.display());
    daemon.ok(&[
        "run", "-d", "--name", "box", "-v", &mount, "box:1", "sleep", "1000",
    ]);
    let source = file.display().to_string();
    daemon.ok(&["cp", &source, "box:/etc/hosts"]);
    assert!(
        daemon
            .ok(&["exec", "box", "cat", "/etc/hosts"])
            .contains("192.0.2.7 copied")
    );
    daemon.ok(&["cp", &source, "box:/srv/bound"]);
    assert!(std::fs::read_to_string(&bound).unwrap().contains("192.0.2.7"));
    let fixed = format!("{}:/srv/fixed:ro", bound.display());
    daemon.ok(&[
        "run", "-d", "--name", "fixed", "-v", &fixed, "box:1", "sleep", "1000",
    ]);
    let (code, said) = daemon.fails(&["cp", &source, "fixed:/srv/fixed"]);
    assert!(
        code == 1 && said.to_lowercase().contains("read-only"),
        "{code} {said}"
    );
}

/// Files are put into containers before they start: into their volumes, too.
#[test]
fn copies_reach_the_volumes_of_a_container_that_does_not_run() {
    guard!();
    let daemon = Daemon::start();
    let file = daemon.dir.path().join("file");
    std::fs::write(&file, "early\n").unwrap();
    let source = file.display().to_string();
    let bound = daemon.dir.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    let bind = format!("{}:/srv/bound", bound.display());
    let mounts = ["-v", "data:/srv/data", "-v", &bind, "-v", "fresh:/new/place"];
    let line: Vec<&str> = ["create", "--name", "early"]
        .into_iter()
        .chain(mounts)
        .chain([
            "box:1",
            "cat",
            "/srv/data/file",
            "/srv/bound/file",
            "/new/place/file",
        ])
        .collect();
    daemon.ok(&line);
    for place in ["/srv/data", "/srv/bound", "/new/place"] {
        daemon.ok(&["cp", &source, &format!("early:{place}")]);
    }
    assert_eq!(std::fs::read_to_string(bound.join("file")).unwrap(), "early\n");
    assert_eq!(daemon.ok(&["start", "-a", "early"]), "early\nearly\nearly\n");
    let back = daemon.dir.path().join("back");
    daemon.ok(&["cp", "early:/srv/data/file", &back.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&back).unwrap(), "early\n");
    // What is read-only is so from here as well, and nothing of it stays mounted on the host.
    daemon.ok(&[
        "create",
        "--name",
        "fixed",
        "-v",
        "data:/srv/data:ro",
        "box:1",
        "true",
    ]);
    daemon.fails(&["cp", &source, "fixed:/srv/data/other"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !mounts.contains(&daemon.dir.path().display().to_string()),
        "{mounts}"
    );
}

/// An archive that puts a file in the place of a directory takes that directory's content away, but nothing that is
/// mounted in it: that is somebody else's.
#[test]
fn an_archive_takes_nothing_away_from_volumes() {
    guard!();
    let daemon = Daemon::start();
    let bound = daemon.dir.path().join("bound");
    std::fs::create_dir(&bound).unwrap();
    std::fs::write(bound.join("precious"), "kept").unwrap();
    let bind = format!("{}:/data/deep/bound", bound.display());
    daemon.ok(&[
        "run", "-d", "--name", "running", "-v", &bind, "box:1", "sleep", "1000",
    ]);
    daemon.ok(&["create", "--name", "created", "-v", &bind, "box:1", "true"]);
    for name in ["running", "created"] {
        for tar in [
            Tar::default().file("data", b"instead"),
            Tar::default().symlink("data", "/elsewhere"),
            Tar::default().directory("data").file("data/deep", b"instead"),
        ] {
            let path = format!("/containers/{name}/archive?path=/");
            let answer = request(&daemon, "PUT", &path, "application/x-tar", &tar.finish());
            assert_eq!(answer.status, 409, "{name}: {}", answer.body);
            assert_eq!(
                std::fs::read_to_string(bound.join("precious")).unwrap(),
                "kept",
                "{name}"
            );
        }
    }
    assert_eq!(
        daemon.ok(&["exec", "running", "cat", "/data/deep/bound/precious"]),
        "kept"
    );
}

/// Layers are stacked by descriptor: neither the 4096 bytes of a mount's options nor their number of old stand in the way.
#[test]
fn an_image_of_five_hundred_layers_runs() {
    guard!();
    let daemon = Daemon::start();
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let mut layers = vec![Tar::default().program("bin/busybox", &busybox).finish()];
    for number in 1..500 {
        let text = number.to_string();
        let mine = Tar::default().file(&format!("layers/{number}"), text.as_bytes());
        layers.push(mine.file("newest", text.as_bytes()).finish());
    }
    let archive = daemon.dir.path().join("tall.tar");
    std::fs::write(&archive, Image::of(&layers).archive("tall:1")).unwrap();
    daemon.ok(&["load", "-q", "-i", &archive.display().to_string()]);
    let script = "busybox ls /layers | busybox wc -l; busybox cat /newest /layers/1 /layers/250; busybox rm /layers/7; \
                  echo; busybox ls /layers | busybox wc -l";
    let run = [
        "run",
        "--name",
        "tall",
        "-e",
        "PATH=/bin",
        "tall:1",
        "busybox",
        "sh",
        "-c",
        script,
    ];
    assert_eq!(daemon.ok(&run), "499\n4991250\n498\n");
    let copied = daemon.dir.path().join("copied");
    daemon.ok(&["cp", "tall:/layers/499", &copied.display().to_string()]);
    assert_eq!(std::fs::read_to_string(&copied).unwrap(), "499");
    assert!(daemon.ok(&["diff", "tall"]).contains("D /layers/7"));
    daemon.ok(&["commit", "tall", "taller:1"]);
    let report = daemon.ok(&["image", "explore", "--format", "json", "tall:1"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["Wasted"].as_array().unwrap().len(), 498);
}
