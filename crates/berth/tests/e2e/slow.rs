//! Clients that take their container's output too slowly, or not at all.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{BERTH, Daemon, retry, signal, text};

/// More than a client, the sockets on the way and the monitor keep.
const MUCH: usize = 128 << 20;

#[test]
fn a_client_that_takes_nothing_holds_up_nobody_and_is_told_what_it_misses() {
    guard!();
    let daemon = Daemon::start();
    let script = format!("read go; yes 'word after word' | head -c {MUCH}; exit 3");
    for (program, name) in [(BERTH, "busy"), ("docker", "busier")] {
        let attach = |how: &[&str]| {
            Command::new(program)
                .arg("attach")
                .args(how)
                .arg(name)
                .env("DOCKER_HOST", daemon.socket())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        };
        let run = [
            "run",
            "-d",
            "-i",
            "--log-driver",
            "none",
            "--name",
            name,
            "box:1",
            "sh",
            "-c",
        ];
        daemon.ok(&[&run[..], &[&script]].concat());
        let Ok(stuck) = attach(&["--no-stdin", "--sig-proxy=false"]) else {
            println!("skipped: there is no docker client");
            return;
        };
        let is_attached = || {
            let past = [
                "events",
                "--since",
                "0",
                "--until",
                "0s",
                "--filter",
                "event=attach",
            ];
            let of_it = ["--filter", &format!("container={name}")];
            (!daemon.ok(&[&past[..], &of_it].concat()).is_empty()).then_some(())
        };
        retry(is_attached).expect("it is attached");
        signal(&stuck.id().to_string(), "-STOP");
        let mut eager = attach(&[]).unwrap();
        eager.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let eager = eager.wait_with_output().unwrap();
        assert_eq!(eager.stdout.len(), MUCH, "{program}: {}", text(&eager.stderr));
        assert_eq!(daemon.ok(&["wait", name]), "3\n", "{program}");
        signal(&stuck.id().to_string(), "-CONT");
        let stuck = stuck.wait_with_output().unwrap();
        let missing = MUCH - stuck.stdout.len();
        assert!(missing > 0, "{program} took everything");
        assert_eq!(
            text(&stuck.stderr).lines().next().unwrap_or_default(),
            format!("berth: {missing} bytes of output are missing here, since this client did not take them"),
            "{program}"
        );
    }
}

/// What is at the other end of a pipe may take its time: nothing is lost.
#[test]
fn a_slow_reader_of_run_and_of_exec_gets_everything() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "box", "box:1", "sleep", "1000"]);
    let script = format!("yes 'word after word' | head -c {MUCH}");
    for args in [
        &[
            "run",
            "--rm",
            "--log-driver",
            "none",
            "box:1",
            "sh",
            "-c",
            &script,
        ][..],
        &["exec", "box", "sh", "-c", &script],
    ] {
        let child = Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_secs(1));
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!((output.stdout.len(), text(&output.stderr)), (MUCH, String::new()));
    }
}
