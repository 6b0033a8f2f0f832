//! Clients that take their container's output too slowly, or not at all.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::silent::monitor_of;
use crate::support::{ANY_DOCKER, BERTH, Daemon, clients, retry, signal, text};

/// More than a client, the sockets on the way and the monitor keep.
const MUCH: usize = 128 << 20;
/// What a monitor keeps for a client in a file.
const KEPT: u64 = 64 << 20;

fn client(daemon: &Daemon, program: &str, args: &[&str]) -> std::process::Child {
    Command::new(program)
        .args(args)
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until the monitor keeps as much for somebody as it ever does.
fn wait_until_full(daemon: &Daemon, name: &str) {
    let full = || {
        let id = daemon.run(&["inspect", name]);
        let files = id.status.success().then(|| monitor_of(daemon, name))?;
        let files = std::fs::read_dir(format!("/proc/{files}/fd")).ok()?;
        let mut sizes = files.flatten().filter_map(|file| {
            let meta = std::fs::metadata(file.path()).ok()?;
            meta.is_file().then_some(meta.len())
        });
        sizes.any(|size| size >= KEPT).then_some(())
    };
    retry(full).expect("the monitor keeps what nobody takes");
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody_and_is_told_what_it_misses() {
    guard!();
    let daemon = Daemon::start();
    let script = format!("read go; yes 'word after word' | head -c {MUCH}; exit 3");
    for ((_, program), name) in clients(ANY_DOCKER).into_iter().zip(["busy", "busier"]) {
        let run = [
            "run",
            "-i",
            "--log-driver",
            "none",
            "--name",
            name,
            "box:1",
            "sh",
            "-c",
        ];
        let mut first = client(&daemon, BERTH, &[&run[..], &[&script]].concat());
        let running = || {
            let state = daemon.run(&["inspect", "-f", "{{.State.Running}}", name]);
            (text(&state.stdout) == "true\n").then_some(())
        };
        retry(running).expect("it runs");
        let stuck = client(
            &daemon,
            &program,
            &["attach", "--no-stdin", "--sig-proxy=false", name],
        );
        let attached = || {
            let lines = daemon.told(&["event=attach", &format!("container={name}")], "{{.Action}}");
            (lines.lines().count() == 2).then_some(())
        };
        retry(attached).expect("both are attached");
        signal(&stuck.id().to_string(), "-STOP");
        first.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let first = first.wait_with_output().unwrap();
        assert_eq!(first.stdout.len(), MUCH, "{program}: {}", text(&first.stderr));
        assert_eq!(first.status.code(), Some(3), "{program}");
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

/// What is at the other end of a pipe may take its time: the process waits, and nothing is lost.
#[test]
fn a_slow_reader_of_run_and_of_exec_gets_everything() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "box", "box:1", "sleep", "1000"]);
    let script = format!("yes 'word after word' | head -c {MUCH}");
    let run = [
        "run",
        "--rm",
        "--log-driver",
        "none",
        "--name",
        "own",
        "box:1",
        "sh",
        "-c",
        &script,
    ];
    for (args, of) in [(&run[..], "own"), (&["exec", "box", "sh", "-c", &script], "box")] {
        let child = client(&daemon, BERTH, args);
        wait_until_full(&daemon, of);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!((output.stdout.len(), text(&output.stderr)), (MUCH, String::new()));
    }
}
