//! Daemon and monitor killed at the same moment: nobody of ours is left who could end the container, and still nothing of
//! it goes on.

use std::os::unix::process::ExitStatusExt as _;

use super::STATE;
use crate::inventory;
use crate::silent::monitor_of;
use crate::support::{Daemon, becomes, inspect, retry, signal};

/// Programs that run as somebody else, below a first process of ours, in a terminal, in an exec: each loses the kernel's
/// note about its parent in another way.
#[test]
fn no_container_goes_on_without_daemon_and_monitor() {
    guard!();
    let mut daemon = Daemon::start();
    let script = "sleep 1000 & wait";
    let containers: [(&str, &[&str]); 5] = [
        ("plain", &[]),
        ("user", &["--user", "33:33"]),
        (
            "confined",
            &["--user", "33:33", "--security-opt", "no-new-privileges"],
        ),
        ("init", &["--init", "--user", "33:33"]),
        ("terminal", &["-t"]),
    ];
    for (name, more) in containers {
        // A profile that begins with the program makes the kernel forget.
        let mut args = vec![
            "run",
            "-d",
            "--name",
            name,
            "--security-opt",
            "apparmor=unconfined",
        ];
        args.extend(more);
        args.extend(["box:1", "sh", "-c", script]);
        daemon.ok(&args);
    }
    // In the host's pid namespace no first process takes an exec along.
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "host",
        "--pid",
        "host",
        "--security-opt",
        "apparmor=unconfined",
        "box:1",
        "sleep",
        "1000",
    ]);
    daemon.ok(&["exec", "-d", "--user", "33:33", "host", "sleep", "1000"]);
    let names = || containers.iter().map(|(name, _)| *name).chain(["host"]);
    let monitors: Vec<String> = names().map(|name| monitor_of(&daemon, name)).collect();
    let pids: Vec<String> = names()
        .map(|name| inspect(&daemon, name, "{{.State.Pid}}"))
        .collect();
    daemon.child.kill().unwrap();
    for monitor in &monitors {
        signal(monitor, "-KILL");
    }
    assert_eq!(daemon.child.wait().unwrap().signal(), Some(9));
    let left = || -> Vec<String> {
        let groups = monitors.iter().chain(&pids);
        let alive = groups
            .filter(|pid| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty()));
        alive
            .cloned()
            .chain(inventory::processes(daemon.dir.path()))
            .chain(members(&daemon))
            .collect()
    };
    let gone = retry(|| left().is_empty().then_some(()));
    assert!(gone.is_some(), "{:?}", left());
    // The next daemon says so.
    daemon.start_again();
    for name in names() {
        becomes(&daemon, name, STATE, "exited 255");
    }
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

/// Processes in the control groups of the daemon's containers.
fn members(daemon: &Daemon) -> Vec<String> {
    let tag = format!(
        "/berth-{}/",
        crate::support::tag_of(&daemon.dir.path().join("root"))
    );
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    pids.filter(|entry| {
        std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|groups| groups.contains(&tag))
    })
    .map(|entry| entry.path().display().to_string())
    .collect()
}
