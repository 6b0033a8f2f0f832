//! Signals: what a client hands on to its container, and when one that does not heed them is killed.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::docker;
use crate::support::{BERTH, Daemon, clients, retry, signal, text};

/// What never comes waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What both clients hand on, by number (signal(7)): of 37 and 64, real-time signals, the former asks systemd to halt.
const HANDED_ON: [i32; 19] = [
    1, 2, 3, 6, 10, 12, 14, 18, 20, 21, 22, 24, 25, 26, 28, 29, 31, 37, 64,
];
/// What a client keeps for itself.
const KEPT: [i32; 2] = [13, 23];

/// A client whose container's lines can be waited for.
struct Attached {
    child: Child,
    lines: Receiver<String>,
}

impl Attached {
    fn start(daemon: &Daemon, program: &str, args: &[&str]) -> Attached {
        let mut child = Command::new(program)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Attached { child, lines }
    }

    fn line(&self, of: &str) -> String {
        self.lines
            .recv_timeout(PATIENCE)
            .unwrap_or_else(|error| panic!("{of}: no line: {error}"))
    }

    fn send(&self, number: i32) {
        signal(&self.child.id().to_string(), &format!("-{number}"));
    }

    /// The lines to the end of the output, and the exit code.
    fn end(mut self) -> (Vec<String>, Option<i32>) {
        let lines = std::iter::from_fn(|| self.lines.recv_timeout(PATIENCE).ok()).collect();
        (lines, self.child.wait().unwrap().code())
    }
}

/// Prints the number of each signal it gets, and ends with 9 after SIGTERM.
fn tells_signals() -> String {
    let traps = HANDED_ON.iter().chain(&KEPT);
    let traps: String = traps
        .map(|number| format!("trap 'echo {number}' {number}; "))
        .collect();
    format!("{traps} trap 'echo 15; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
}

/// What a container prints may come before the answer to its start; a client attaches to none that does not run.
fn wait_for_running(daemon: &Daemon, name: &str) {
    let runs = || daemon.ok(&["inspect", "-f", "{{.State.Running}}", name]) == "true\n";
    assert!(retry(|| runs().then_some(())).is_some(), "{}", daemon.log());
}

#[test]
fn a_client_hands_on_what_it_is_sent_and_ends_as_its_container() {
    guard!();
    let daemon = Daemon::start();
    let script = tells_signals();
    for (name, program) in clients(docker::RECENT) {
        let run = ["run", "--name", name, "box:1", "sh", "-c", &script];
        let running = Attached::start(&daemon, &program, &run);
        assert_eq!(running.line(name), "ready");
        for number in HANDED_ON {
            running.send(number);
            assert_eq!(running.line(name), number.to_string(), "{name}");
        }
        for number in KEPT.into_iter().chain([15]) {
            running.send(number);
        }
        assert_eq!(running.end(), (vec!["15".to_owned()], Some(9)), "{name}");
        // One that attaches to what runs does the same, whether it has started it or not.
        let started = Attached::start(&daemon, &program, &["start", "-a", name]);
        assert_eq!(started.line(name), "ready");
        started.send(10);
        assert_eq!(started.line(name), "10", "{name}");
        wait_for_running(&daemon, name);
        let attached = Attached::start(&daemon, &program, &["attach", "--no-stdin", name]);
        // Nobody tells when the second one is attached; a signal that comes too early ends it.
        let both = retry(|| {
            let all = daemon.told(&["event=attach", &format!("container={name}")], "{{.Action}}");
            (all.lines().count() == 3).then_some(())
        });
        both.expect("the second one attaches");
        attached.send(12);
        for client in [&started, &attached] {
            let told = std::iter::from_fn(|| Some(client.line(name))).find(|line| line == "12");
            assert!(told.is_some(), "{name}");
        }
        daemon.ok(&["kill", "-s", "TERM", name]);
        for client in [started, attached] {
            assert_eq!(client.end(), (vec!["15".to_owned()], Some(9)), "{name}");
        }
    }
}

#[test]
fn a_client_that_hands_nothing_on_ends_alone() {
    guard!();
    let daemon = Daemon::start();
    let script = tells_signals();
    let run = [
        "run",
        "--sig-proxy=false",
        "--name",
        "one",
        "box:1",
        "sh",
        "-c",
        &script,
    ];
    let mut running = Attached::start(&daemon, BERTH, &run);
    assert_eq!(running.line("one"), "ready");
    running.send(15);
    assert_eq!(running.child.wait().unwrap().signal(), Some(15));
    wait_for_running(&daemon, "one");
    assert_eq!(daemon.ok(&["logs", "one"]), "ready\n");
}

/// Of two that heed no SIGTERM, the one that was given less time is killed first, although it was asked last. With any time
/// that both had it would be killed last.
#[test]
fn a_container_is_killed_after_its_own_stop_timeout() {
    guard!();
    let daemon = Daemon::start();
    let deaf = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done";
    let deaf = ["box:1", "sh", "-c", deaf];
    for (name, seconds) in [("patient", "600"), ("hasty", "1")] {
        let run = ["run", "-d", "--name", name, "--stop-timeout", seconds];
        daemon.ok(&[&run[..], &deaf].concat());
    }
    let says = |name: &str, words: &str| {
        let said = retry(|| daemon.ok(&["logs", name]).contains(words).then_some(()));
        assert!(said.is_some(), "{name} does not say {words:?}: {}", daemon.log());
    };
    says("patient", "ready");
    says("hasty", "ready");
    let patient = Command::new(BERTH)
        .args(["stop", "patient"])
        .env("DOCKER_HOST", daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    says("patient", "asked");
    daemon.ok(&["stop", "hasty"]);
    let state = |name: &str| daemon.ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name]);
    // 128 and the number of SIGKILL.
    assert_eq!(state("hasty"), "exited 137\n");
    assert_eq!(state("patient"), "running 0\n");
    assert_eq!(daemon.ok(&["logs", "hasty"]), "ready\nasked\n");
    daemon.ok(&["kill", "patient"]);
    let stopped = patient.wait_with_output().unwrap();
    assert!(stopped.status.success());
    assert_eq!(text(&stopped.stdout), "patient\n");
}
