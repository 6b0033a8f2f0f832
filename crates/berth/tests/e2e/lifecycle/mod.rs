//! A container's life beyond its first run: restart policies, what may be waited for, a machine that went down, a new
//! program in place of the daemon's, state that an earlier release wrote.

mod alone;
mod monitors;
mod policies;
mod reboot;
mod releases;
mod waiting;

use crate::support::{Daemon, retry};

fn inspect(daemon: &Daemon, name: &str, format: &str) -> String {
    daemon.ok(&["inspect", "-f", format, name]).trim().to_owned()
}

/// Waits for a template to give a text.
fn becomes(daemon: &Daemon, name: &str, format: &str, wanted: &str) {
    let reached =
        (0..15).any(|_| retry(|| (inspect(daemon, name, format) == wanted).then_some(())).is_some());
    assert!(
        reached,
        "{name}: {}, not {wanted}\n{}",
        inspect(daemon, name, format),
        daemon.log()
    );
}

const STATE: &str = "{{.State.Status}} {{.State.ExitCode}}";
