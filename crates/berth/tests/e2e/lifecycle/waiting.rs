//! `wait` and its conditions, asked of the API: the answer begins at once and ends when the condition holds.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::becomes;
use crate::support::Daemon;

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
    fn end(mut self) -> i64 {
        self.0.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut body = String::new();
        self.0.read_to_string(&mut body).unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{body:?}"));
        body["StatusCode"].as_i64().unwrap()
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
