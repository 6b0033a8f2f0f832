//! A host whose control groups are of version 1 only, as older systems have them: a daemon that does not see the tree of
//! version 2. A machine with version 2 only is another matter (`cargo xtask test --vm`).

use std::path::Path;
use std::process::Child;

use crate::inventory::Inventory;
use crate::support::{Daemon, wrapped};
use crate::usage::group;

/// Where hybrid hosts have the tree of version 2.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// A daemon in a mount namespace of its own, without that tree.
fn spawn(dir: &Path) -> Child {
    let script = format!("while umount -l {UNIFIED} 2>/dev/null; do :; done; exec \"$@\"");
    wrapped(&["unshare", "-m", "sh", "-c", &script, "sh"], dir)
        .spawn()
        .unwrap()
}

fn start() -> Daemon {
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let child = spawn(dir.path());
    Daemon::of(dir, Vec::new(), child)
}

/// A process's group in the tree of version 2, if there is one.
fn in_unified(pid: &str) -> Option<String> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    table
        .lines()
        .find_map(|line| Some(line.strip_prefix("0::")?.to_owned()))
}

#[test]
fn containers_live_on_a_host_of_version_1() {
    guard!();
    if !Path::new("/sys/fs/cgroup/memory/cgroup.procs").exists() {
        println!("skipped: this machine has no control groups of version 1");
        return;
    }
    let mut daemon = start();
    assert_eq!(daemon.ok(&["info", "-f", "{{.CgroupVersion}}"]), "1\n");
    // The first container makes what later ones share.
    daemon.ok(&["run", "--rm", "box:1", "true"]);
    let before = Inventory::of(&daemon);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "-m",
        "64m",
        "--pids-limit",
        "20",
        "--cpus",
        "0.5",
        "box:1",
        "sleep",
        "1000",
    ]);
    let pid = daemon
        .ok(&["inspect", "-f", "{{.State.Pid}}", "one"])
        .trim()
        .to_owned();
    let id = daemon.ok(&["inspect", "-f", "{{.Id}}", "one"]).trim().to_owned();
    let limit = |controller: &str, file: &str| {
        let group = group(&pid, controller);
        assert!(group.ends_with(&id), "{controller}: {}", group.display());
        std::fs::read_to_string(group.join(file))
            .unwrap()
            .trim()
            .to_owned()
    };
    assert_eq!(limit("memory", "memory.limit_in_bytes"), (64 << 20).to_string());
    assert_eq!(limit("pids", "pids.max"), "20");
    assert_eq!(limit("cpu", "cpu.cfs_quota_us"), "50000");
    assert!(limit("devices", "devices.list").contains("c 1:3 rwm"));
    // Nobody has touched the tree that is not there.
    assert_eq!(in_unified(&pid), in_unified("self"));
    let seen = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ls /sys/fs/cgroup";
    let seen = daemon.ok(&["exec", "one", "sh", "-c", seen]);
    assert!(
        seen.starts_with("67108864\n") && !seen.contains("unified"),
        "{seen}"
    );

    daemon.ok(&["pause", "one"]);
    assert_eq!(limit("freezer", "freezer.state"), "FROZEN");
    daemon.ok(&["unpause", "one"]);
    daemon.ok(&["update", "-m", "96m", "--memory-swap", "96m", "one"]);
    assert_eq!(limit("memory", "memory.limit_in_bytes"), (96 << 20).to_string());
    let usage = [
        "stats",
        "--no-stream",
        "--format",
        "{{.MemUsage}} {{.PIDs}}",
        "one",
    ];
    assert!(daemon.ok(&usage).ends_with(" / 96MiB 1\n"));
    assert!(daemon.ok(&["top", "one"]).contains("sleep 1000"));
    daemon.run_hungry("hungry");

    // The next daemon takes over what runs.
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    daemon.child = spawn(daemon.dir.path());
    daemon.wait_until_ready();
    assert_eq!(daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "one"]).trim(), pid);
    assert!(daemon.ok(&usage).ends_with(" / 96MiB 1\n"));
    daemon.ok(&["kill", "one"]);
    assert_eq!(daemon.ok(&["wait", "one"]), "137\n");
    daemon.ok(&["rm", "one", "hungry"]);
    before.assert_unchanged(&daemon, "a life on version 1");
}
