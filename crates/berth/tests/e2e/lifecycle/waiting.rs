//! `wait` and its conditions, asked of the API: the answer begins at once and ends when the condition holds.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::support::{Daemon, becomes};

/// A request to wait, whose answer is read later.
struct Waiting(UnixStream);

impl Waiting {
    fn for_condition(daemon: &Daemon, name: &str, condition: &str) -> Waiting {
        let mut stream = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
        write!(
            stream,
            "POST /v1.51/containers/{name}/wait?condition={condition} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        )
        .unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.0 200") || head.starts_with(b"HTTP/1.1 200"),
            "{head:?}"
        );
        Waiting(stream)
    }

    /// The exit code, when it has come.
    fn end(self) -> i64 {
        self.answer()["StatusCode"].as_i64().unwrap()
    }

    fn answer(mut self) -> serde_json::Value {
        self.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut body = String::new();
        self.0.read_to_string(&mut body).unwrap();
        serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body:?}"))
    }

    /// Nothing has been said so far.
    fn is_silent(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let read = (&self.0).read(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

fn ends_with(daemon: &Daemon, name: &str, code: &str) {
    let script = format!("while ! [ -e /end ]; do sleep 0.05; done; rm /end; exit {code}");
    daemon.ok(&["create", "--name", name, "box:1", "sh", "-c", &script]);
}

fn end(daemon: &Daemon, name: &str) {
    daemon.ok(&["exec", name, "touch", "/end"]);
}

#[test]
fn not_running_is_so_at_once_for_what_does_not_run() {
    guard!();
    let daemon = Daemon::start();
    ends_with(&daemon, "one", "7");
    for condition in ["", "not-running"] {
        assert_eq!(Waiting::for_condition(&daemon, "one", condition).end(), 0);
    }
    daemon.ok(&["start", "one"]);
    let waiting = Waiting::for_condition(&daemon, "one", "not-running");
    end(&daemon, "one");
    assert_eq!(waiting.end(), 7);
    assert_eq!(Waiting::for_condition(&daemon, "one", "not-running").end(), 7);
}

#[test]
fn the_next_exit_is_not_the_last_one() {
    guard!();
    let daemon = Daemon::start();
    ends_with(&daemon, "one", "7");
    let before_the_start = Waiting::for_condition(&daemon, "one", "next-exit");
    daemon.ok(&["start", "one"]);
    assert!(before_the_start.is_silent());
    end(&daemon, "one");
    assert_eq!(before_the_start.end(), 7);
    let after_the_end = Waiting::for_condition(&daemon, "one", "next-exit");
    daemon.ok(&["start", "one"]);
    daemon.ok(&["exec", "one", "true"]);
    assert!(after_the_end.is_silent(), "the exit before is not the next");
    end(&daemon, "one");
    assert_eq!(after_the_end.end(), 7);
    // Every run of a policy ends, too.
    daemon.ok(&[
        "create",
        "--name",
        "again",
        "--restart",
        "on-failure:3",
        "box:1",
        "false",
    ]);
    let next = Waiting::for_condition(&daemon, "again", "next-exit");
    let all = Waiting::for_condition(&daemon, "again", "removed");
    daemon.ok(&["start", "again"]);
    assert_eq!(next.end(), 1);
    becomes(
        &daemon,
        "again",
        "{{.State.Status}} {{.RestartCount}}",
        "exited 3",
    );
    assert_eq!(Waiting::for_condition(&daemon, "again", "not-running").end(), 1);
    assert!(all.is_silent());
    daemon.ok(&["rm", "again"]);
    assert_eq!(all.end(), 1);
}

#[test]
fn removed_is_told_with_the_last_exit_code() {
    guard!();
    let daemon = Daemon::start();
    ends_with(&daemon, "one", "7");
    let waiting = Waiting::for_condition(&daemon, "one", "removed");
    daemon.ok(&["start", "one"]);
    end(&daemon, "one");
    daemon.ok(&["wait", "one"]);
    assert!(waiting.is_silent(), "it is still there");
    daemon.ok(&["rm", "one"]);
    assert_eq!(waiting.end(), 7);
    // One that removes itself.
    let script = "while ! [ -e /end ]; do sleep 0.05; done; exit 9";
    daemon.ok(&["run", "-d", "--rm", "--name", "two", "box:1", "sh", "-c", script]);
    let waiting = Waiting::for_condition(&daemon, "two", "removed");
    end(&daemon, "two");
    assert_eq!(waiting.end(), 9);
}

/// Something mounted among a container's files, which keeps them from being removed.
struct Busy(std::path::PathBuf);

impl Busy {
    fn among(daemon: &Daemon, name: &str) -> Busy {
        let id = daemon.ok(&["inspect", "-f", "{{.Id}}", name]);
        let files = daemon.dir.path().join("root/containers").join(id.trim());
        let place = files.join("busy");
        std::fs::create_dir(&place).unwrap();
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(&place)
            .status();
        assert!(mount.unwrap().success());
        Busy(place)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_removal_that_fails_says_so_and_is_tried_again() {
    guard!();
    let mut daemon = Daemon::start();
    let destroyed = |daemon: &Daemon| daemon.told(&["event=destroy"], "{{.Actor.Attributes.name}}");
    for name in ["one", "two"] {
        daemon.run(&["run", "--name", name, "box:1", "sh", "-c", "exit 7"]);
    }
    let busy = [Busy::among(&daemon, "one"), Busy::among(&daemon, "two")];
    for name in ["one", "two"] {
        let waiting = Waiting::for_condition(&daemon, name, "removed");
        let (code, said) = daemon.fails(&["rm", name]);
        assert!(code == 1 && said.contains("cannot remove"), "{code}: {said}");
        let told = waiting.answer();
        assert_eq!(told["StatusCode"], 7);
        let error = told["Error"]["Message"].as_str().unwrap();
        assert!(error.contains("cannot remove") && said.contains(error), "{told}");
        // What failed before is not waited for: the next one is.
        assert!(Waiting::for_condition(&daemon, name, "removed").is_silent());
    }
    let status = ["ps", "-a", "--format", "{{.Names}} {{.State}} {{.Status}}"];
    let shown = "two dead Dead\none dead Dead\n";
    assert_eq!(daemon.ok(&status), shown);
    let state = "{{.State.Dead}} {{.State.Running}} {{.State.ExitCode}}";
    assert_eq!(daemon.ok(&["inspect", "-f", state, "one"]), "true false 7\n");
    let (_, said) = daemon.fails(&["start", "one"]);
    assert!(said.contains("marked for removal"), "{said}");
    let (_, said) = daemon.fails(&["create", "--name", "one", "box:1", "true"]);
    assert!(said.contains("is already in use"), "{said}");
    // The next daemon tries it, too, and knows no better.
    daemon.crash_and_restart();
    assert_eq!(daemon.ok(&status), shown);
    assert_eq!(destroyed(&daemon), "");
    drop(busy);
    let waiting = Waiting::for_condition(&daemon, "one", "removed");
    assert_eq!(daemon.ok(&["rm", "one"]), "one\n");
    let told = waiting.answer();
    assert!(told["StatusCode"] == 7 && told["Error"].is_null(), "{told}");
    daemon.crash_and_restart();
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
    assert_eq!(destroyed(&daemon), "one\ntwo\n");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

/// The container's group in the hierarchy of version 1 that can freeze it, where there is one.
fn freezer(daemon: &Daemon, name: &str) -> Option<std::path::PathBuf> {
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let group = groups.lines().find_map(|line| line.split_once(":freezer:"))?.1;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind, options) = (words.next()?, words.next()?, words.next()?);
        (kind == "cgroup" && options.split(',').any(|option| option == "freezer")).then_some(place)
    })?;
    Some(std::path::Path::new(mount).join(group.trim_start_matches('/')))
}

#[test]
fn what_was_killed_and_does_not_end_is_not_said_to_be_gone() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "stuck", "box:1", "sleep", "1000"]);
    let Some(group) = freezer(&daemon, "stuck") else {
        println!("skipped: only control groups of version 1 keep what is frozen from being killed");
        return;
    };
    // As a process is that waits for a disk.
    std::fs::write(group.join("freezer.state"), "FROZEN").unwrap();
    let (code, said) = daemon.fails(&["rm", "-f", "stuck"]);
    assert!(code == 1 && said.contains("has not ended yet"), "{code}: {said}");
    let status = "{{.State.Status}} {{.State.ExitCode}}";
    assert_eq!(daemon.ok(&["inspect", "-f", status, "stuck"]), "running 0\n");
    let waiting = Waiting::for_condition(&daemon, "stuck", "removed");
    std::fs::write(group.join("freezer.state"), "THAWED").unwrap();
    becomes(&daemon, "stuck", status, "exited 137");
    assert!(waiting.is_silent());
    assert_eq!(daemon.ok(&["rm", "stuck"]), "stuck\n");
    assert_eq!(waiting.end(), 137);
}
