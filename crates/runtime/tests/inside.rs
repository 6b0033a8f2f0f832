//! What a process inside a container sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use support::{Bundle, possible};

#[test]
fn a_program_runs_and_its_output_and_code_come_back() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let (text, exit) = bundle.shell("echo hello; echo pid $$; exit 7").run().unwrap();
    assert_eq!(text, "hello\npid 1\n");
    assert_eq!(exit, sys::process::Exit::Code(7));
}

#[test]
fn every_namespace_is_its_own() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let inside = bundle.shell_output("for n in mnt net uts pid ipc cgroup time; do readlink /proc/self/ns/$n; done");
    for line in inside.lines() {
        let name = line.split(':').next().unwrap();
        let host = std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(host.to_str().unwrap(), line);
    }
    assert_eq!(inside.lines().count(), 7);
}
