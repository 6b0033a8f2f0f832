//! Monitors of other releases: a daemon comes to containers whose monitors speak an earlier or a later version of what
//! daemon and monitor say to each other.
//!
//! The monitors are real ones. Between them and the daemon stands an interpreter that takes away what the earlier version
//! did not say, or adds what a later one might, line by line; descriptors pass through.

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;

use serde_json::{Value, json};

use super::STATE;
use crate::support::{BERTH, Daemon, becomes, inspect, retry, text};

/// What an interpreter makes of a line of the monitor's.
type Interpret = fn(Value) -> Vec<Value>;

/// Version 1: no greeting, and runs were not measured at first.
fn earlier(line: Value) -> Vec<Value> {
    let mut line = match line.get("watching") {
        Some(_) => json!("done"),
        None => line,
    };
    if let Some(record) = line.get_mut("exited").and_then(Value::as_object_mut) {
        record.remove("ran_nanos");
    }
    vec![line]
}

/// A version that says more in everything, and tells of things that nobody here has heard of.
fn later(mut line: Value) -> Vec<Value> {
    for part in line
        .as_object_mut()
        .into_iter()
        .flat_map(|line| line.values_mut())
    {
        if let Some(fields) = part.as_object_mut() {
            fields.insert("of_a_later_release".to_owned(), json!([{"deep": true}]));
        }
    }
    match line.get_mut("watching") {
        Some(hello) => {
            hello["version"] = json!(99);
            hello["release"] = json!("99.0.0");
            vec![line, json!({"danced": {"on": "ice"}}), json!("slipped")]
        }
        None => vec![line],
    }
}

/// Takes the place of a container's monitor at its socket.
fn interpret(daemon: &Daemon, id: &str, interpret: Interpret) {
    let socket = daemon.dir.path().join(format!("run/{}.sock", &id[..12]));
    let real = daemon.dir.path().join(format!("{}.real", &id[..12]));
    std::fs::rename(&socket, &real).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            // A monitor that has left is gone for its interpreter's callers, too.
            let Ok(monitor) = UnixStream::connect(&real) else {
                return;
            };
            let (asks, answers) = (client.try_clone().unwrap(), monitor.try_clone().unwrap());
            std::thread::spawn(move || pass(&asks, &answers));
            std::thread::spawn(move || translate(monitor, client, interpret));
        }
    });
}

/// What the daemon says goes on as it is, with its descriptors.
fn pass(from: &UnixStream, to: &UnixStream) {
    let mut chunk = vec![0; 1 << 16];
    while let Ok((count @ 1.., fds)) = sys::fd::recv_fds(from, &mut chunk) {
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        if sys::fd::send_fds(to, &chunk[..count], &fds).is_err() {
            return;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

fn translate(mut from: UnixStream, mut to: UnixStream, interpret: Interpret) {
    let mut held = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        held.extend_from_slice(&chunk[..count]);
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = held.drain(..=end).collect();
            for said in interpret(serde_json::from_slice(&line).unwrap()) {
                if to.write_all(format!("{said}\n").as_bytes()).is_err() {
                    return;
                }
            }
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Everything that a daemon does with a container goes on when its monitors are of another release.
fn goes_on_with(other: Interpret, told: &str) {
    let mut daemon = Daemon::start();
    let run = |name: &str, script: &str| {
        let args = ["run", "-di", "--name", name, "box:1", "sh", "-c", script];
        daemon.ok(&args).trim().to_owned()
    };
    let ids = [
        run(
            "works",
            "echo said; while read line && [ $line != end ]; do echo got $line; done; exit 5",
        ),
        run("killed", "trap '' TERM; echo ready; while :; do sleep 0.1; done"),
        run("gap", "while ! [ -e /end ]; do sleep 0.05; done; exit 6"),
    ];
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    for id in &ids {
        interpret(&daemon, id, other);
    }
    let before = daemon.log().len();
    daemon.start_again();
    for name in ["works", "killed", "gap"] {
        assert_eq!(inspect(&daemon, name, STATE), "running 0", "{name}");
    }
    // An exec with input and output, one in the background, an exit code.
    let mut exec = std::process::Command::new(BERTH)
        .args(["exec", "-i", "works", "cat"])
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    exec.stdin.take().unwrap().write_all(b"through\n").unwrap();
    assert_eq!(text(&exec.wait_with_output().unwrap().stdout), "through\n");
    assert_eq!(daemon.fails(&["exec", "works", "sh", "-c", "exit 7"]).0, 7);
    daemon.ok(&["exec", "-d", "gap", "touch", "/end"]);
    becomes(&daemon, "gap", STATE, "exited 6");
    // Input by an attached client, and the end that it brings.
    let mut attach = std::process::Command::new(BERTH)
        .args(["attach", "works"])
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = attach.stdin.take().unwrap();
    stdin.write_all(b"a\n").unwrap();
    let logged = retry(|| (daemon.ok(&["logs", "works"]) == "said\ngot a\n").then_some(()));
    assert!(logged.is_some(), "{}", daemon.ok(&["logs", "works"]));
    daemon.ok(&["pause", "works"]);
    daemon.ok(&["unpause", "works"]);
    stdin.write_all(b"end\n").unwrap();
    drop(stdin);
    assert_eq!(text(&attach.wait_with_output().unwrap().stdout), "got a\n");
    becomes(&daemon, "works", STATE, "exited 5");
    // A stop that is not obeyed becomes a kill.
    daemon.ok(&["stop", "-t", "1", "killed"]);
    assert_eq!(inspect(&daemon, "killed", STATE), "exited 137");
    let log = daemon.log();
    let lines = log[before..].lines().filter(|line| line.contains(told)).count();
    assert_eq!(lines, ids.len(), "said once for each: {}", &log[before..]);
    // The next run has a monitor of this release.
    daemon.ok(&["rm", "-f", "works"]);
    daemon.ok(&["start", "killed", "gap"]);
    assert_eq!(daemon.ok(&["exec", "killed", "echo", "well"]), "well\n");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    let log = daemon.log();
    assert_eq!(
        log[before..].lines().filter(|line| line.contains(told)).count(),
        ids.len(),
        "{}",
        &log[before..]
    );
}

#[test]
fn monitors_of_an_earlier_release_are_gone_on_with() {
    guard!();
    goes_on_with(earlier, "goes on with a monitor of another release");
}

#[test]
fn monitors_of_a_later_release_are_gone_on_with() {
    guard!();
    goes_on_with(later, "is of a later release than this daemon");
}
