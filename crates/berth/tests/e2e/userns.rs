//! User namespaces: all containers of a daemon in one map, containers with ids of their own, and what keeps them apart.

mod auto;
mod keep_id;
mod remap;

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Daemon, text};

/// A directory with the files subuid and subgid, both with these lines.
pub fn subordinate(lines: &str) -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("berth-subid-").tempdir().unwrap();
    for name in ["subuid", "subgid"] {
        std::fs::write(dir.path().join(name), lines).unwrap();
    }
    dir
}

/// A daemon that reads its subordinate ids there.
fn daemon(ids: &tempfile::TempDir, args: &[&str]) -> Daemon {
    let dir = ids.path().display().to_string();
    Daemon::start_with(&[&["--subid-dir", &dir], args].concat())
}

/// What a script prints in a container made with these flags, which must end well.
fn run(daemon: &Daemon, flags: &[&str], script: &str) -> String {
    daemon.ok(&[&["run", "--rm"], flags, &["box:1", "sh", "-c", script]].concat())
}

fn pid_of(daemon: &Daemon, container: &str) -> String {
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", container]);
    pid.trim().to_owned()
}

/// The user a process is on the host.
fn host_user(pid: &str) -> u32 {
    std::fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

/// The host's id of a container's user 0, and how many ids follow.
fn first_range(daemon: &Daemon, container: &str) -> (u32, u32) {
    let map = daemon.ok(&["exec", container, "cat", "/proc/self/uid_map"]);
    let mut numbers = map.split_whitespace().map(|number| number.parse().unwrap());
    assert_eq!(numbers.next(), Some(0), "{map}");
    (numbers.next().unwrap(), numbers.next().unwrap())
}

fn words(output: &str) -> Vec<&str> {
    output.split_whitespace().collect()
}

/// What a command says that must fail.
fn refusal(daemon: &Daemon, args: &[&str]) -> String {
    let output = daemon.run(args);
    assert!(
        !output.status.success(),
        "{args:?} succeeded: {}",
        text(&output.stdout)
    );
    text(&output.stderr)
}
