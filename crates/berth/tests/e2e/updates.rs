//! `update`: the kernel holds a running container to what it says, its next runs and daemons do, too; all of it or nothing.

use crate::support::{Daemon, inspect};
use crate::usage::group;

/// What the kernel holds the container to: memory, processor time, processes, processors.
fn held(daemon: &Daemon, name: &str) -> [String; 4] {
    let pid = inspect(daemon, name, "{{.State.Pid}}");
    let read = |controller: &str, files: &[&str]| {
        let group = group(&pid, controller);
        let found = files
            .iter()
            .find_map(|file| std::fs::read_to_string(group.join(file)).ok());
        found
            .unwrap_or_else(|| panic!("{files:?} in {}", group.display()))
            .trim()
            .to_owned()
    };
    let memory = read("memory", &["memory.limit_in_bytes", "memory.max"]);
    let quota = read("cpu", &["cpu.cfs_quota_us", "cpu.max"]);
    let quota = quota.split(' ').next().unwrap_or_default().to_owned();
    [
        // So version 1 spells that there is no limit.
        memory.replace("9223372036854771712", "max"),
        quota.replace("-1", "max"),
        read("pids", &["pids.max"]),
        read("cpuset", &["cpuset.cpus"]),
    ]
}

fn sleeper(daemon: &Daemon, name: &str, limits: &[&str]) {
    daemon.keep(name, limits, &["sleep", "1000"]);
}

#[test]
fn the_kernel_holds_a_container_to_its_update() {
    guard!();
    let mut daemon = Daemon::start();
    let limits = [
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "20",
    ];
    sleeper(&daemon, "web", &limits);
    assert_eq!(held(&daemon, "web")[..3], ["67108864", "50000", "20"]);
    daemon.ok(&["create", "--name", "later", "box:1", "sleep", "1000"]);
    let update = [
        "update",
        "-m",
        "96m",
        "--memory-swap",
        "96m",
        "--cpus",
        "0.25",
        "--pids-limit",
        "30",
        "--cpuset-cpus",
        "0",
    ];
    // Of several at once.
    assert_eq!(
        daemon.ok(&[&update[..], &["web", "later"]].concat()),
        "web\nlater\n"
    );
    let wanted = ["100663296", "25000", "30", "0"];
    assert_eq!(held(&daemon, "web"), wanted);
    daemon.ok(&["start", "later"]);
    assert_eq!(held(&daemon, "later"), wanted);
    daemon.crash_and_restart();
    daemon.ok(&["exec", "web", "true"]);
    assert_eq!(held(&daemon, "web"), wanted);
    daemon.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(held(&daemon, "web"), wanted);
    // What is lifted is lifted.
    daemon.ok(&["update", "--memory-swap", "-1", "--pids-limit", "-1", "web"]);
    assert_eq!(held(&daemon, "web")[..3], ["100663296", "25000", "max"]);
}

/// The kernel refuses the last of several limits.
#[test]
fn an_update_that_the_kernel_refuses_changes_nothing() {
    guard!();
    let daemon = Daemon::start();
    sleeper(&daemon, "bare", &[]);
    sleeper(
        &daemon,
        "limited",
        &["-m", "64m", "--memory-swap", "64m", "--cpus", "0.5"],
    );
    let settings = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.CpusetCpus}}";
    for name in ["bare", "limited"] {
        let (limits, recorded) = (held(&daemon, name), inspect(&daemon, name, settings));
        let (code, said) = daemon.fails(&[
            "update",
            "-m",
            "96m",
            "--memory-swap",
            "96m",
            "--cpus",
            "0.25",
            "--cpuset-cpus",
            "4095",
            name,
        ]);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("4095") || said.contains("cpuset"), "{said}");
        assert_eq!(held(&daemon, name), limits, "{name}");
        assert_eq!(inspect(&daemon, name, settings), recorded, "{name}");
    }
    assert_eq!(daemon.told(&["event=update"], "{{.Action}}"), "");
}
