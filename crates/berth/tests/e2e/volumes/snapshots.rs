//! What a volume held once, and going back to it.

use std::process::Command;

use crate::support::{BERTH, Daemon, retry};

fn run(daemon: &Daemon, script: &str) -> String {
    daemon.ok(&["run", "--rm", "-v", "data:/d", "box:1", "sh", "-c", script])
}

#[test]
fn a_volume_goes_back_to_what_it_was() {
    guard!();
    let daemon = Daemon::start();
    run(
        &daemon,
        "echo one > /d/note; busybox chown 7:8 /d/note; busybox chmod 4750 /d/note; busybox chmod 1770 /d",
    );
    assert_eq!(
        daemon.ok(&["volume", "snapshot", "create", "data", "first"]),
        "first\n"
    );
    run(&daemon, "echo two > /d/note; touch /d/more");
    let dated = daemon.ok(&["volume", "snapshot", "create", "data"]);
    let names = daemon.ok(&["volume", "snapshot", "ls", "-q", "data"]);
    assert_eq!(names, format!("{dated}first\n"));
    // As a new volume, and in place.
    let show = "cat /d/note; ls /d; busybox stat -c '%u:%g %a' /d/note /d";
    assert_eq!(
        daemon.ok(&["volume", "snapshot", "restore", "data", "first", "copy"]),
        "copy\n"
    );
    let copy = daemon.ok(&["run", "--rm", "-v", "copy:/d", "box:1", "sh", "-c", show]);
    assert_eq!(copy, "one\nnote\n7:8 4750\n0:0 1770\n");
    assert_eq!(run(&daemon, "cat /d/note; ls /d"), "two\nmore\nnote\n");
    assert_eq!(
        daemon.ok(&["volume", "snapshot", "restore", "data", "first"]),
        "data\n"
    );
    assert_eq!(run(&daemon, show), copy);
    daemon.ok(&["volume", "snapshot", "restore", "data", dated.trim()]);
    assert_eq!(run(&daemon, "cat /d/note; ls /d"), "two\nmore\nnote\n");
    // They go where the volume goes.
    daemon.ok(&["volume", "rename", "data", "moved"]);
    daemon.ok(&["volume", "rm", "moved"]);
    daemon.ok(&["volume", "trash", "restore", "moved", "data"]);
    assert_eq!(
        daemon.ok(&["volume", "snapshot", "rm", "data", dated.trim()]),
        dated
    );
    assert_eq!(daemon.ok(&["volume", "snapshot", "ls", "-q", "data"]), "first\n");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    daemon.ok(&["volume", "rm", "--purge", "data"]);
    assert!(!daemon.dir.path().join("root/volumes/data").exists());
}

#[test]
fn what_cannot_be_kept_or_brought_back_is_said() {
    guard!();
    let daemon = Daemon::start();
    run(&daemon, "touch /d/x");
    daemon.ok(&["volume", "snapshot", "create", "data", "one"]);
    super::in_memory(&daemon, "memory");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "user",
        "-v",
        "data:/d:ro",
        "box:1",
        "sleep",
        "100",
    ]);
    for (words, complaint) in [
        (&["create", "data", "one"][..], "has a snapshot \"one\" already"),
        (&["create", "data", "../x"], "invalid characters"),
        (&["create", "nosuch"], "no such volume"),
        (&["create", "memory"], "what its options mount"),
        (&["restore", "data", "two"], "no snapshot \"two\""),
        (&["restore", "data", "one"], "containers that run have the volume"),
        (&["restore", "data", "one", "memory"], "must be unique"),
        (&["rm", "data", "two"], "no snapshot \"two\""),
        (&["rm", "data", "../../x"], "no snapshot"),
        (&["ls", "nosuch"], "no such volume"),
    ] {
        let words = [&["volume", "snapshot"], words].concat();
        let (code, said) = daemon.fails(&words);
        assert!(code == 1 && said.contains(complaint), "{words:?}: {code} {said}");
    }
    let names = |dir: &str| std::fs::read_dir(daemon.dir.path().join(dir)).unwrap().count();
    assert_eq!(names("root/volumes/data"), 2);
    daemon.ok(&["rm", "-f", "user"]);
    daemon.ok(&["volume", "snapshot", "restore", "data", "one"]);
}

/// A writer that counts in two files, one after the other: seen while it stands still, the second is never ahead and never
/// more than one behind.
#[test]
fn writers_stand_still_and_go_on_even_after_a_kill() {
    guard!();
    let mut daemon = Daemon::start();
    let count = "i=0; while :; do i=$((i+1)); echo $i > /d/a; echo $i > /d/b; done";
    daemon.ok(&[
        "run", "-d", "--name", "writer", "-v", "data:/d", "box:1", "sh", "-c", count,
    ]);
    let paused = |daemon: &Daemon| daemon.ok(&["inspect", "-f", "{{.State.Paused}}", "writer"]) == "true\n";
    for name in ["s1", "s2", "s3"] {
        daemon.ok(&["volume", "snapshot", "create", "data", name]);
        assert!(!paused(&daemon));
    }
    let events = daemon.ok(&["events", "--since", "1h", "--until", "0s"]);
    assert_eq!(events.matches(" container pause ").count(), 3, "{events}");
    assert_eq!(events.matches(" container unpause ").count(), 3, "{events}");
    daemon.ok(&["volume", "snapshot", "create", "--pause=false", "data", "s4"]);
    let events = daemon.ok(&["events", "--since", "1h", "--until", "0s"]);
    assert_eq!(events.matches(" container pause ").count(), 3, "{events}");
    // Something that takes a while to copy, and a daemon that is killed in the middle of it.
    let big = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i > /d/file$i; done";
    run(&daemon, big);
    let mut client = Command::new(BERTH)
        .args(["volume", "snapshot", "create", "data", "cut"])
        .env("DOCKER_HOST", daemon.socket())
        .spawn()
        .unwrap();
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "writer"]);
    let mark = daemon
        .dir
        .path()
        .join("root/containers")
        .join(id.trim())
        .join("frozen");
    let seen = retry(|| mark.exists().then_some(()));
    daemon.crash_and_restart();
    client.wait().unwrap();
    assert!(seen.is_some(), "{}", daemon.log());
    assert!(!paused(&daemon) && !mark.exists());
    let home = daemon.dir.path().join("root/volumes");
    let copies = || {
        let names = std::fs::read_dir(&home).unwrap().flatten();
        names
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".removed"))
            .count()
    };
    assert_eq!(copies(), 0);
    daemon.ok(&["rm", "-f", "writer"]);
    // One that its user has paused stays so.
    daemon.ok(&[
        "run", "-d", "--name", "writer", "-v", "data:/d", "box:1", "sleep", "1000",
    ]);
    daemon.ok(&["pause", "writer"]);
    daemon.ok(&["volume", "snapshot", "create", "data", "quiet"]);
    assert!(paused(&daemon));
}

/// The first of several copies that is done does not let the container go on under the others.
#[test]
fn copies_at_once_are_each_of_one_moment() {
    guard!();
    let daemon = Daemon::start();
    let count = "i=0; while :; do i=$((i+1)); echo $i >> /d/a; echo $i >> /d/b; done";
    run(
        &daemon,
        "i=0; while [ $i -lt 1000 ]; do i=$((i+1)); echo $i > /d/file$i; done",
    );
    daemon.ok(&[
        "run", "-d", "--name", "writer", "-v", "data:/d", "box:1", "sh", "-c", count,
    ]);
    let names = ["one", "two", "three", "four"];
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(|| daemon.ok(&["volume", "snapshot", "create", "data", name]));
        }
    });
    let paused = daemon.ok(&["inspect", "-f", "{{.State.Paused}}", "writer"]);
    assert_eq!(paused, "false\n");
    for name in names {
        daemon.ok(&["volume", "snapshot", "restore", "data", name, name]);
        let mount = format!("{name}:/d");
        let numbers = daemon.ok(&[
            "run",
            "--rm",
            "-v",
            &mount,
            "box:1",
            "sh",
            "-c",
            "wc -l < /d/a; wc -l < /d/b",
        ]);
        let numbers: Vec<i64> = numbers.lines().map(|line| line.parse().unwrap()).collect();
        assert!(
            (0..=1).contains(&(numbers[0] - numbers[1])),
            "{name}: {numbers:?}"
        );
    }
}
