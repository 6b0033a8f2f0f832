//! The daemon is killed, stopped and started again.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

use crate::support::{Daemon, control_group_roots, retry, tag_of, text};

#[test]
fn a_killed_daemon_loses_nothing() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "long",
        "box:1",
        "sh",
        "-c",
        "echo before; sleep 1000",
    ]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "short",
        "box:1",
        "sh",
        "-c",
        "echo gone; sleep 1; exit 7",
    ]);
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    // The short one ends while nobody looks.
    std::thread::sleep(Duration::from_millis(1500));
    daemon.start_again();
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.Running}}", "long"]).trim(),
        "true"
    );
    assert_eq!(daemon.ok(&["logs", "long"]).trim(), "before");
    assert_eq!(
        daemon.ok(&["exec", "long", "echo", "still here"]).trim(),
        "still here"
    );
    assert_eq!(
        daemon
            .ok(&["inspect", "-f", "{{.State.ExitCode}}", "short"])
            .trim(),
        "7"
    );
    assert_eq!(daemon.ok(&["logs", "short"]).trim(), "gone");
    daemon.crash_and_restart();
    daemon.ok(&["stop", "-t", "1", "long"]);
    assert_eq!(
        daemon.ok(&["inspect", "-f", "{{.State.Status}}", "long"]).trim(),
        "exited"
    );
}

#[test]
fn a_stopped_daemon_leaves_nothing_on_the_host() {
    guard!();
    let mut daemon = Daemon::start();
    let tag = format!("berth-{}", tag_of(&daemon.dir.path().join("root")));
    daemon.ok(&["network", "create", "app"]);
    daemon.ok(&[
        "run",
        "--rm",
        "--network",
        "app",
        "-p",
        "127.0.0.1::80",
        "box:1",
        "true",
    ]);
    let stop = |daemon: &mut Daemon| {
        assert!(
            Command::new("kill")
                .arg(daemon.child.id().to_string())
                .status()
                .unwrap()
                .success()
        );
        assert!(daemon.child.wait().unwrap().success());
    };
    let host = || {
        let links = Command::new("ip").args(["-d", "link"]).output().unwrap();
        let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
        let mut groups = control_group_roots().into_iter().map(|root| root.join(&tag));
        let group = groups.find(|group| group.exists());
        (
            text(&links.stdout).contains(&tag),
            text(&tables.stdout).contains(&tag),
            group,
        )
    };
    stop(&mut daemon);
    assert_eq!(host(), (false, false, None), "{}", daemon.log());
    // The next one makes it all again, and leaves it while a container needs it.
    daemon.start_again();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "needs-it",
        "--network",
        "app",
        "box:1",
        "sleep",
        "1000",
    ]);
    stop(&mut daemon);
    let (link, table, group) = host();
    assert!(
        link && table && group.is_some(),
        "a living container lost its network"
    );
    daemon.start_again();
    assert_eq!(daemon.ok(&["exec", "needs-it", "echo", "well"]).trim(), "well");
}

#[test]
fn what_work_took_is_given_back_when_there_is_none() {
    guard!();
    let daemon = Daemon::start();
    let resident = || -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:"));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    };
    daemon.ok(&["run", "-d", "--name", "idle", "box:1", "sleep", "1000"]);
    // A client that only listens does not keep the memory with the daemon.
    let socket = daemon.dir.path().join("run/berth.sock");
    let mut listening = std::os::unix::net::UnixStream::connect(socket).unwrap();
    listening
        .write_all(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        .unwrap();
    listening.read_exact(&mut [0]).unwrap();
    daemon.ok(&["exec", "idle", "true"]);
    let worked = resident();
    let rested = retry(|| Some(resident()).filter(|rested| *rested < worked / 2));
    assert!(
        rested.is_some(),
        "{worked} kB of files after work, {} kB at rest",
        resident()
    );
    assert_eq!(daemon.ok(&["exec", "idle", "echo", "awake"]).trim(), "awake");
}

/// The directory in /proc of a container's monitor.
fn monitor_of(id: &str) -> std::path::PathBuf {
    let short = id.get(..12).unwrap().as_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let path = entry.unwrap().path();
        // PROGRAM monitor ID
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        if line
            .split(|byte| *byte == 0)
            .skip(1)
            .take(2)
            .eq([b"monitor".as_slice(), short])
        {
            found.push(path);
        }
    }
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_monitor_holds_no_directory_of_the_daemons() {
    guard!();
    let daemon = Daemon::start();
    let id = daemon.ok(&["run", "-d", "box:1", "sleep", "1000"]);
    let cwd = std::fs::read_link(monitor_of(&id).join("cwd")).unwrap();
    assert_eq!(cwd, std::path::Path::new("/"));
}

/// What the first exec opened serves for all: each is in the container's group, and the monitor holds no more after many.
#[test]
fn every_exec_is_in_its_containers_group() {
    guard!();
    let daemon = Daemon::start();
    let id = daemon.ok(&["run", "-d", "--cgroupns", "host", "box:1", "sleep", "1000"]);
    let id = id.trim();
    let group = |which: &str| daemon.ok(&["exec", id, "cat", &format!("/proc/{which}/cgroup")]);
    let first = group("1");
    assert!(first.contains(id), "{first}");
    let held = || std::fs::read_dir(monitor_of(id).join("fd")).unwrap().count();
    let before = held();
    for _ in 0..5 {
        assert_eq!(group("self"), first);
    }
    let after = retry(|| Some(held()).filter(|held| *held <= before));
    assert!(after.is_some(), "{before} descriptors before, {} after", held());
}
