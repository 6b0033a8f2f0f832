//! The daemon's `--cgroup-parent`: below which control group containers are.

use std::path::Path;

use crate::support::{Daemon, tag_of};

/// The control groups of a container's process, without the hierarchy.
fn groups(daemon: &Daemon, name: &str) -> Vec<String> {
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", name]);
    let text = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    text.lines()
        .filter(|line| !line.contains("name=") && !line.starts_with("0::/\n"))
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .map(str::to_owned)
        .collect()
}

fn is_there(group: &str) -> bool {
    let top = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(top).unwrap().flatten();
    let group = group.trim_start_matches('/');
    top.join(group).is_dir()
        || hierarchies
            .into_iter()
            .any(|entry| entry.path().join(group).is_dir())
}

fn remove(group: &str) {
    let top = Path::new("/sys/fs/cgroup");
    let group = group.trim_start_matches('/');
    // It is there in every hierarchy that was used, and empty by now.
    let _ = std::fs::remove_dir(top.join(group));
    for entry in std::fs::read_dir(top).unwrap().flatten() {
        let _ = std::fs::remove_dir(entry.path().join(group));
    }
}

#[test]
fn containers_are_below_the_daemons_group_unless_they_say_otherwise() {
    guard!();
    let parent = format!("/berth-e2e-parent-{}", std::process::id());
    let other = format!("/berth-e2e-other-{}", std::process::id());
    let mut daemon = Daemon::start_with(&["--cgroup-parent", &parent]);
    let own = format!("{parent}/berth-{}", tag_of(&daemon.dir.path().join("root")));
    for (name, flags) in [("one", &[][..]), ("two", &["--cgroup-parent", &other])] {
        let words = [
            &["run", "-d", "--name", name, "--memory", "64m"],
            flags,
            &["box:1", "sleep", "1000"],
        ];
        daemon.ok(&words.concat());
    }
    let id = |name: &str| daemon.ok(&["inspect", "-f", "{{.Id}}", name]).trim().to_owned();
    let expected = [format!("{own}/{}", id("one")), format!("{other}/{}", id("two"))];
    for (name, expected) in ["one", "two"].iter().zip(&expected) {
        let groups = groups(&daemon, name);
        assert!(
            groups.contains(expected),
            "{name}: {groups:?}, and not {expected}"
        );
    }
    // The next daemon finds them there, and removes nothing that is used.
    daemon.crash_and_restart();
    daemon.ok(&["pause", "one"]);
    daemon.ok(&["unpause", "one"]);
    assert!(
        daemon
            .ok(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"])
            .contains("64MiB")
    );
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    daemon.ok(&["rm", "-f", "one", "two"]);
    assert!(!is_there(&expected[0]) && !is_there(&expected[1]));
    drop(daemon);
    for group in [&own, &parent, &other] {
        remove(group);
    }
    assert!(!is_there(&parent));
}

#[test]
fn what_is_no_group_is_refused() {
    guard!();
    for (flags, complaint) in [
        (&["--cgroup-parent", "/a/../b"][..], "without \".\" and \"..\""),
        (
            &[
                "--exec-opt",
                "native.cgroupdriver=systemd",
                "--cgroup-parent",
                "/a",
            ],
            "should be a valid slice",
        ),
    ] {
        let output = std::process::Command::new(crate::support::BERTH)
            .args(["daemon", "--validate"])
            .args(flags)
            .output()
            .unwrap();
        let said = crate::support::text(&output.stderr);
        assert!(
            !output.status.success() && said.contains(complaint),
            "{flags:?}: {said}"
        );
    }
}
