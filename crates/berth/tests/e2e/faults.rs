//! What the kernel refuses to the daemon: descriptors, processes, writes. And clients that go or do not read.
//!
//! Each time there is one clear error, nothing is left, and the daemon works on once the reason is gone. A full disk is in
//! `input/disk.rs`, refused operations of the runtime are in that room's `faults.rs`.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::inventory::{self, Inventory};
use crate::support::{BERTH, Daemon, retry, text, wrapped};

fn system(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        text(&output.stderr)
    );
}

/// The numbers that a daemon's descriptors have.
fn descriptors(daemon: &Daemon) -> BTreeSet<usize> {
    let path = format!("/proc/{}/fd", daemon.child.id());
    let entries = std::fs::read_dir(path).unwrap().flatten();
    entries
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect()
}

/// The descriptors of a daemon that does nothing: nobody is connected, and nothing is prepared any more.
fn settled(daemon: &Daemon) -> BTreeSet<usize> {
    let path = daemon.dir.path().join("run/berth.sock");
    let path = path.to_str().unwrap();
    let connections = || -> Vec<String> {
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        let connected = |line: &&str| line.ends_with(path) && line.split_whitespace().nth(5) == Some("03");
        table.lines().filter(connected).map(str::to_owned).collect()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = descriptors(daemon);
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = descriptors(daemon);
        if now == last && connections().is_empty() {
            return now;
        }
        assert!(Instant::now() < deadline, "{:?}", connections());
        last = now;
    }
}

/// Lets a daemon have this many more descriptors than it has: what is limited is their number, not their count, and there
/// may be gaps.
fn leave_descriptors(daemon: &Daemon, free: usize) {
    let taken = settled(daemon);
    let highest = (0..).filter(|number| !taken.contains(number)).nth(free - 1);
    allow_descriptors(daemon, highest.unwrap() + 1);
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
    // A start as the others will be, so that what is made once is there.
    daemon.ok(&["run", "--rm", "-v", "/data", "box:1", "true"]);
    let before = Inventory::of(&daemon);
    // From enough for the connection alone to enough for everything, which is when nothing is refused any more.
    let mut refused = Vec::new();
    let mut started = 0;
    for more in 1.. {
        if started == 3 {
            break;
        }
        assert!(more < 200, "a start needs more than {more} descriptors");
        leave_descriptors(&daemon, more);
        let output = daemon.run(&[
            "run", "-d", "--name", "late", "-v", "/data", "box:1", "sleep", "1000",
        ]);
        let said = text(&output.stderr);
        allow_descriptors(&daemon, 1000);
        if output.status.success() {
            started += 1;
            daemon.ok(&["rm", "-f", "-v", "late"]);
        } else {
            started = 0;
            refused.push(more);
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
    // At the least the connection, and both ends of the socket over which the monitor gets its orders.
    assert!(refused.starts_with(&[1, 2]), "{refused:?}");
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    daemon.ok(&["exec", "there", "true"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn clients_that_take_every_descriptor_are_got_over() {
    guard!();
    let daemon = Daemon::start();
    start_sleeper(&daemon, "there");
    leave_descriptors(&daemon, 30);
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
    let root = root.display().to_string();
    let wrapper = ["unshare", "-m", "sh", "-c", script, "sh", &image, &root];
    let child = wrapped(&wrapper, dir.path()).spawn().unwrap();
    let daemon = Daemon::of(dir, Vec::new(), child);
    let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", daemon.child.id())).unwrap();
    let point = format!(" {root} ");
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
        &["rm", "late"],
        &["tag", "box:1", "box:2"],
        &["update", "--pids-limit", "30", "there"],
    ] {
        let (_, said) = daemon.fails(refused);
        let said = said.to_lowercase();
        assert!(
            said.contains("read-only file system") || said.contains("cannot be written"),
            "{refused:?}: {said}"
        );
    }
    before.assert_unchanged(&daemon, "a read-only root");
    // What does not write goes on, and what was not begun is not said to be.
    let status = daemon.ok(&["inspect", "-f", "{{.State.Status}}", "late"]);
    assert_eq!(status, "created\n");
    assert_eq!(daemon.ok(&["logs", "there"]), "said\n");
    assert_eq!(daemon.ok(&["exec", "there", "echo", "well"]), "well\n");
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "there"]);
    let limit = crate::usage::group(pid.trim(), "pids").join("pids.max");
    assert_eq!(std::fs::read_to_string(&limit).unwrap().trim(), "max");
    // What only the kernel has to know is done.
    for (command, state) in [("pause", "paused\n"), ("unpause", "running\n")] {
        daemon.ok(&[command, "there"]);
        assert_eq!(daemon.ok(&["inspect", "-f", "{{.State.Status}}", "there"]), state);
    }
    daemon.ok(&["kill", "there"]);
    let ended = retry(|| {
        let state = daemon.ok(&["inspect", "-f", "{{.State.Status}}", "there"]);
        (state == "exited\n").then_some(())
    });
    assert!(ended.is_some(), "{}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
    // It cannot record that the container's address is free, and takes everything off the host all the same.
    let mut daemon = daemon;
    crate::support::signal(&daemon.child.id().to_string(), "-TERM");
    daemon.child.wait().unwrap();
    assert_eq!(
        crate::refused::on_host(daemon.dir.path()),
        [""; 0],
        "{}",
        daemon.log()
    );
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

/// Kilobytes that the daemon has in memory and that are its own: the pages of the program's file, which come in with every
/// kind of request that is served for the first time, keep nothing for anybody.
fn resident(daemon: &Daemon) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
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
    let big = "/bin/busybox dd if=/dev/zero of=/big bs=1M count=64 2>/dev/null";
    daemon.ok(&["exec", "flood", "sh", "-c", big]);
    let before = inventory::descriptors(&daemon);
    let memory = resident(&daemon);
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
    // What they ask for is many times what may be kept for them.
    for number in 0..30 {
        let name = format!("vol{number}");
        daemon.ok(&["volume", "create", &name]);
        daemon.ok(&["exec", "flood", "true"]);
        daemon.ok(&["volume", "rm", &name]);
    }
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
    let each = 2 << 10;
    assert!(
        grown < deaf.len() as u64 * each,
        "{grown} KiB for {} clients that do not read",
        deaf.len()
    );
    daemon.ok(&["stop", "-t", "0", "flood"]);
    drop(deaf);
    inventory::assert_let_go(&daemon, &before);
}

#[test]
fn clients_that_vanish_leave_nothing() {
    guard!();
    let daemon = Daemon::start();
    start_sleeper(&daemon, "there");
    daemon.ok(&["exec", "there", "true"]);
    let before = inventory::descriptors(&daemon);
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
    inventory::assert_let_go(&daemon, &before);
    let tasks = daemon.ok(&["debug", "tasks"]);
    assert_eq!(tasks.lines().count(), 2, "only this request: {tasks}");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
