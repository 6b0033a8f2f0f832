//! Containers that are restarted or killed when the daemon or the monitor is.

use super::scenarios::{NAME, Scenario, eventually, inspect, is_whole, running, state, words};
use crate::support::Daemon;

/// The process that is not to live on.
fn running_process(daemon: &Daemon) -> String {
    running(daemon);
    inspect(daemon, "{{.State.Pid}}")
}

/// It runs anew where the client was told so; otherwise it may have ended, or not.
fn restart_check(daemon: &Daemon, before: &str, told: bool) {
    let now = state(daemon);
    assert!(!told || now.as_deref() == Some("running"), "{now:?}");
    assert!(!told || inspect(daemon, "{{.State.Pid}}") != before);
    daemon.ok(&["restart", "-t", "0", NAME]);
    assert_ne!(inspect(daemon, "{{.State.Pid}}"), before);
    is_whole(daemon);
}

/// A signal was sent, or was not; how the container ended by it is known in any case.
fn kill_check(daemon: &Daemon, _: &str, told: bool) {
    let ended = || state(daemon).as_deref() == Some("exited");
    if !told && !ended() {
        // It may be ending.
        daemon.run(&["kill", NAME]);
    }
    eventually("the container's end", ended);
    assert_eq!(inspect(daemon, "{{.State.ExitCode}}"), "137");
    is_whole(daemon);
}

pub const RESTART: Scenario = Scenario::with_container(
    "restart",
    running_process,
    |_| words(&["restart", "-t", "0", NAME]),
    restart_check,
);
pub const KILL: Scenario = Scenario::with_container("kill", running, |_| words(&["kill", NAME]), kill_check);
