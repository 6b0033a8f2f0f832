//! Monitors that do not answer, as ones are that were stopped, swapped out, or wait for a disk: their containers are shown
//! as such and can be ended, and nobody else notices.

use crate::inventory::{self, Inventory};
use crate::support::{Daemon, inspect, retry, signal, text};

/// The process of a container's monitor.
pub fn monitor_of(daemon: &Daemon, name: &str) -> String {
    let id = daemon.ok(&["inspect", "-f", "{{slice .Id 0 12}}", name]);
    let words = format!(" monitor {}", id.trim());
    let all = inventory::processes(daemon.dir.path());
    let mut pids = all
        .iter()
        .filter(|line| line.contains(&words))
        .filter_map(|line| line.split(' ').next());
    // Children that are about to become something else look like it for a moment; the first is the eldest.
    let pid = pids
        .next()
        .unwrap_or_else(|| panic!("{name} has no monitor: {all:?}"));
    pid.to_owned()
}

fn sleeper(daemon: &Daemon, name: &str) {
    daemon.ok(&["run", "-d", "--name", name, "box:1", "sleep", "1000"]);
}

fn becomes(daemon: &Daemon, name: &str, what: &str, holds: impl Fn(&str) -> bool) {
    let error = || inspect(daemon, name, "{{.State.Error}}");
    let reached = retry(|| holds(&error()).then_some(())).is_some();
    assert!(reached, "{name} is not {what}: {:?}\n{}", error(), daemon.log());
}

fn is_shown_as_silent(daemon: &Daemon, name: &str) {
    becomes(daemon, name, "silent", |error| {
        error.contains(&format!("the monitor of container {name} has not answered since"))
    });
    let filter = format!("name=^{name}$");
    let status = daemon.ok(&["ps", "--filter", &filter, "--format", "{{.Status}}"]);
    assert!(status.trim().ends_with("(not answering)"), "{status}");
}

#[test]
fn a_daemon_starts_beside_a_monitor_that_does_not_answer() {
    guard!();
    let mut daemon = Daemon::start();
    for name in ["before", "stuck", "after"] {
        sleeper(&daemon, name);
    }
    let stuck = monitor_of(&daemon, "stuck");
    signal(&stuck, "-STOP");
    daemon.crash_and_restart();
    // All of this while nothing has come from the monitor.
    assert_eq!(
        daemon.ok(&["ps", "--format", "{{.Names}} {{.State}}"]),
        "after running\nstuck running\nbefore running\n"
    );
    for name in ["before", "after"] {
        assert_eq!(daemon.ok(&["exec", name, "echo", "well"]), "well\n");
    }
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    is_shown_as_silent(&daemon, "stuck");
    // As with Docker's client, it comes through the stream.
    let exec = daemon.run(&["exec", "stuck", "true"]);
    let said = text(&[exec.stdout, exec.stderr].concat());
    assert!(
        !exec.status.success() && said.contains("has not answered since"),
        "{said}"
    );
    assert_eq!(inspect(&daemon, "stuck", "{{.State.Status}}"), "running");
    let check = daemon.run(&["system", "check"]);
    let said = text(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{said}");
    assert!(
        said.contains("stuck") && said.contains("does not answer"),
        "{said}"
    );
    signal(&stuck, "-CONT");
    becomes(&daemon, "stuck", "well", str::is_empty);
    assert_eq!(daemon.ok(&["exec", "stuck", "echo", "well"]), "well\n");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    daemon.ok(&["stop", "-t", "0", "stuck"]);
    assert_eq!(
        inspect(&daemon, "stuck", "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
}

#[test]
fn a_container_whose_monitor_does_not_answer_can_be_ended() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let before = Inventory::of(&daemon);
    for (name, end) in [
        ("killed", &["kill", "killed"][..]),
        ("stopped", &["stop", "-t", "1", "stopped"]),
        ("removed", &["rm", "-f", "removed"]),
    ] {
        sleeper(&daemon, name);
        signal(&monitor_of(&daemon, name), "-STOP");
        // Looks, and so notices.
        daemon.fails(&["system", "check"]);
        is_shown_as_silent(&daemon, name);
        daemon.ok(end);
        if name == "removed" {
            continue;
        }
        daemon.ok(&["wait", name]);
        assert_eq!(
            inspect(
                &daemon,
                name,
                "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"
            ),
            "exited 137",
            "{name}"
        );
        daemon.ok(&["start", name]);
        daemon.ok(&["exec", name, "true"]);
        daemon.ok(&["rm", "-f", name]);
    }
    before.assert_unchanged(&daemon, "an end without a monitor");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
