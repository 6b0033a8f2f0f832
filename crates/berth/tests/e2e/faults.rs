//! What the kernel refuses to the daemon: descriptors, processes, writes. And clients that go or do not read.
//!
//! Each time there is one clear error, nothing is left, and the daemon works on once the reason is gone. A full disk is in
//! `input/disk.rs`, refused operations of the runtime are in that room's `faults.rs`.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::inventory::Inventory;
use crate::support::{BERTH, Daemon, retry, text};

fn system(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        text(&output.stderr)
    );
}

fn open_descriptors(daemon: &Daemon) -> usize {
    let path = format!("/proc/{}/fd", daemon.child.id());
    std::fs::read_dir(path).unwrap().count()
}

fn allow_descriptors(daemon: &Daemon, limit: usize) {
    // The soft limit is what counts; the hard one stays.
    let limit = format!("--nofile={limit}:");
    system("prlimit", &["--pid", &daemon.child.id().to_string(), &limit]);
}

fn start_sleeper(daemon: &Daemon, name: &str) {
    daemon.ok(&["run", "-d", "--name", name, "box:1", "sleep", "1000"]);
}

#[test]
fn without_descriptors_a_request_says_so_and_nothing_is_left() {
    guard!();
    let daemon = Daemon::start();
    start_sleeper(&daemon, "there");
    let before = Inventory::of(&daemon);
    let mut refused = 0;
    let idle = open_descriptors(&daemon);
    // From not enough for the connection to nearly enough for everything.
    for more in 1..16 {
        allow_descriptors(&daemon, idle + more);
        let output = daemon.run(&[
            "run", "-d", "--name", "late", "-v", "/data", "box:1", "sleep", "1000",
        ]);
        let said = text(&output.stderr);
        allow_descriptors(&daemon, 1000);
        if output.status.success() {
            daemon.ok(&["rm", "-f", "-v", "late"]);
        } else {
            refused += 1;
            assert!(
                said.to_lowercase().contains("too many open files") || said.contains("(os error 24)"),
                "with {more} descriptors: {said}"
            );
            assert!(!said.contains("panicked"), "{said}");
            // Created, and then not started.
            daemon.run(&["rm", "-f", "-v", "late"]);
        }
        // What could not be deleted goes with the next that is.
        daemon.ok(&["run", "--rm", "box:1", "true"]);
        before.assert_unchanged(&daemon, &format!("a start with {more} descriptors"));
    }
    assert!(refused > 0, "nothing was refused");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.ok(&["exec", "there", "true"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn clients_that_take_every_descriptor_are_got_over() {
    guard!();
    let daemon = Daemon::start();
    start_sleeper(&daemon, "there");
    let idle = open_descriptors(&daemon);
    allow_descriptors(&daemon, idle + 30);
    let path = daemon.dir.path().join("run/berth.sock");
    // More than there is room for: the rest waits to be accepted.
    let crowd: Vec<UnixStream> = (0..60).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let full = retry(|| {
        daemon
            .log()
            .contains("could not accept a connection")
            .then_some(())
    });
    assert!(full.is_some(), "{}", daemon.log());
    drop(crowd);
    daemon.ok(&["exec", "there", "true"]);
    daemon.ok(&["rm", "-f", "there"]);
}

/// A control group that lets only so many tasks be.
struct TaskLimit(std::path::PathBuf);

impl TaskLimit {
    fn around(daemon: &Daemon) -> TaskLimit {
        let root = std::path::Path::new("/sys/fs/cgroup");
        let name = daemon.dir.path().file_name().unwrap();
        let tree = if root.join("pids").is_dir() {
            root.join("pids")
        } else {
            root.to_owned()
        };
        let group = tree.join(name);
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join("cgroup.procs"), daemon.child.id().to_string()).unwrap();
        TaskLimit(group)
    }

    fn none_more(&self) {
        let current = std::fs::read_to_string(self.0.join("pids.current")).unwrap();
        std::fs::write(self.0.join("pids.max"), current.trim()).unwrap();
    }

    fn lift(&self) {
        std::fs::write(self.0.join("pids.max"), "max").unwrap();
    }
}

impl Drop for TaskLimit {
    fn drop(&mut self) {
        let parent = self.0.parent().unwrap().join("cgroup.procs");
        let tasks = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for task in tasks.lines() {
            // One that has ended needs no moving.
            let _ = std::fs::write(&parent, task);
        }
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn without_processes_a_request_says_so_and_nothing_is_left() {
    guard!();
    let daemon = Daemon::start();
    start_sleeper(&daemon, "there");
    let limit = TaskLimit::around(&daemon);
    let before = Inventory::of(&daemon);
    daemon.ok(&[
        "create", "--name", "late", "-v", "/data", "box:1", "sleep", "1000",
    ]);
    limit.none_more();
    let (code, said) = daemon.fails(&["start", "late"]);
    limit.lift();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("Resource temporarily unavailable"), "{said}");
    daemon.ok(&["start", "late"]);
    daemon.ok(&["exec", "late", "true"]);
    daemon.ok(&["rm", "-f", "-v", "late"]);
    before.assert_unchanged(&daemon, "a start without processes");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn a_container_with_all_its_processes_refuses_more() {
    guard!();
    let daemon = Daemon::start();
    let fill = "sleep 1000 & sleep 1000 & wait";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "full",
        "--pids-limit",
        "3",
        "box:1",
        "sh",
        "-c",
        fill,
    ]);
    let full = retry(|| (daemon.ok(&["top", "full"]).lines().count() == 4).then_some(()));
    assert!(full.is_some(), "{}", daemon.ok(&["top", "full"]));
    let before = Inventory::of(&daemon);
    for _ in 0..3 {
        let output = daemon.run(&["exec", "full", "true"]);
        // As with Docker's client, it comes through the stream.
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_ne!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains("3 of the 3 processes that --pids-limit allows"),
            "{said}"
        );
    }
    before.assert_unchanged(&daemon, "an exec into a full container");
    daemon.ok(&["update", "--pids-limit", "10", "full"]);
    daemon.ok(&["exec", "full", "true"]);
    daemon.ok(&["stop", "-t", "0", "full"]);
}

/// A daemon whose data root is an ext4 of its own, in the daemon's mount namespace alone; with the loop device's name.
fn on_own_filesystem() -> (Daemon, String) {
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let image = dir.path().join("image").display().to_string();
    system("truncate", &["-s", "200M", &image]);
    system("mkfs.ext4", &["-q", &image]);
    let script = r#"mount -o loop,errors=remount-ro "$1" "$2" && shift 2 && exec "$@""#;
    let daemon = crate::support::command(dir.path(), &[]);
    let child = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh", &image])
        .arg(&root)
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .env(crate::support::OF_DAEMON, dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(crate::support::log_of(dir.path()))
        .spawn()
        .unwrap();
    let daemon = Daemon {
        dir,
        args: Vec::new(),
        environment: Vec::new(),
        child,
    };
    daemon.wait_until_ready();
    daemon.import_base();
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", daemon.child.id())).unwrap();
    let point = format!(" {} ", root.display());
    let line = mounts.lines().find(|line| line.contains(&point)).unwrap();
    let device = line
        .split(' ')
        .next()
        .unwrap()
        .trim_start_matches("/dev/")
        .to_owned();
    (daemon, device)
}

/// As a kernel does that has found the filesystem broken.
#[test]
fn a_root_that_became_read_only_can_be_looked_at() {
    guard!();
    if !std::path::Path::new("/dev/loop-control").exists() {
        println!("skipped: needs loop devices");
        return;
    }
    let (daemon, device) = on_own_filesystem();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "there",
        "box:1",
        "sh",
        "-c",
        "echo said; sleep 1000",
    ]);
    let logged = retry(|| (daemon.ok(&["logs", "there"]) == "said\n").then_some(()));
    assert!(logged.is_some());
    daemon.ok(&["create", "--name", "late", "box:1", "sleep", "1000"]);
    let before = Inventory::of(&daemon);
    std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").unwrap();
    for refused in [
        &["run", "-d", "--name", "new", "box:1", "sleep", "1000"][..],
        &["start", "late"],
        &["volume", "create", "vol"],
        &["network", "create", "net"],
        &["rename", "late", "later"],
        &["tag", "box:1", "box:2"],
    ] {
        let (_, said) = daemon.fails(refused);
        let said = said.to_lowercase();
        assert!(
            said.contains("read-only file system") || said.contains("cannot be written"),
            "{refused:?}: {said}"
        );
    }
    before.assert_unchanged(&daemon, "a read-only root");
    // What does not write goes on.
    assert!(daemon.ok(&["ps", "-a"]).contains("late"));
    assert_eq!(daemon.ok(&["logs", "there"]), "said\n");
    assert_eq!(daemon.ok(&["exec", "there", "echo", "well"]), "well\n");
    daemon.ok(&["kill", "there"]);
    let ended = retry(|| {
        let state = daemon.ok(&["inspect", "-f", "{{.State.Status}}", "there"]);
        (state == "exited\n").then_some(())
    });
    assert!(ended.is_some(), "{}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn a_daemon_does_not_start_on_a_read_only_root() {
    guard!();
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let script = r#"mount -t tmpfs -o ro tmpfs "$1" && shift && exec "$@""#;
    let daemon = crate::support::command(dir.path(), &[]);
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script, "sh"])
        .arg(&root)
        .arg(daemon.get_program())
        .args(daemon.get_args())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(said.contains(&root.display().to_string()), "{said}");
}

/// Kilobytes that the daemon has in memory.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn ask(daemon: &Daemon, method: &str, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

#[test]
fn clients_that_never_read_hold_up_nobody() {
    guard!();
    let daemon = Daemon::start();
    let flood =
        "while :; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "flood",
        "--log-opt",
        "max-size=1m",
        "box:1",
        "sh",
        "-c",
        flood,
    ]);
    let before = open_descriptors(&daemon);
    let deaf: Vec<UnixStream> = [
        ("GET", "/v1.51/events"),
        ("GET", "/v1.51/containers/flood/logs?stdout=1&follow=1"),
        ("POST", "/v1.51/containers/flood/attach?stdout=1&stream=1"),
        ("GET", "/v1.51/containers/flood/stats"),
        ("GET", "/v1.51/containers/flood/export"),
        ("GET", "/v1.51/images/box:1/get"),
    ]
    .into_iter()
    .cycle()
    .take(24)
    .map(|(method, path)| ask(&daemon, method, path))
    .collect();
    // Each of their buffers is full long before this is over.
    for number in 0..30 {
        let name = format!("vol{number}");
        daemon.ok(&["volume", "create", &name]);
        daemon.ok(&["exec", "flood", "true"]);
        daemon.ok(&["volume", "rm", &name]);
    }
    let memory = resident(&daemon);
    for number in 0..300 {
        let name = format!("more{number}");
        let done = Command::new(BERTH)
            .args(["volume", "create", &name])
            .env("DOCKER_HOST", daemon.socket())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
    }
    let grown = resident(&daemon).saturating_sub(memory);
    assert!(grown < 16 << 10, "{grown} KiB for clients that do not read");
    daemon.ok(&["stop", "-t", "0", "flood"]);
    drop(deaf);
    let let_go = retry(|| (open_descriptors(&daemon) <= before).then_some(()));
    assert!(let_go.is_some(), "{} > {before}", open_descriptors(&daemon));
}

#[test]
fn clients_that_vanish_leave_nothing() {
    guard!();
    let daemon = Daemon::start();
    start_sleeper(&daemon, "there");
    daemon.ok(&["exec", "there", "true"]);
    let descriptors = open_descriptors(&daemon);
    for args in [
        &["exec", "there", "sleep", "1000"][..],
        &["exec", "-i", "there", "cat"],
        &["attach", "there"],
        &["logs", "-f", "there"],
        &["events"],
        &["stats", "there"],
        &["wait", "there"],
        &["stop", "-t", "3", "there"],
    ] {
        let mut client = Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Beside the one that asks.
        let requests = || {
            let tasks = daemon.ok(&["debug", "tasks"]);
            tasks.lines().filter(|line| line.starts_with("request")).count()
        };
        assert!(retry(|| (requests() > 1).then_some(())).is_some(), "{args:?}");
        client.kill().unwrap();
        client.wait().unwrap();
    }
    // The stop goes on without its client.
    let deadline = Instant::now() + Duration::from_secs(15);
    while daemon.ok(&["inspect", "-f", "{{.State.Status}}", "there"]) != "exited\n" {
        assert!(Instant::now() < deadline, "it is not stopped");
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.ok(&["start", "there"]);
    let let_go = retry(|| (open_descriptors(&daemon) <= descriptors).then_some(()));
    assert!(let_go.is_some(), "{} > {descriptors}", open_descriptors(&daemon));
    let tasks = daemon.ok(&["debug", "tasks"]);
    assert_eq!(tasks.lines().count(), 2, "only this request: {tasks}");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
