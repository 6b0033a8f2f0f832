//! Containers that were killed and do not end.
//!
//! A process that waits in the kernel where that cannot be interrupted (on a disk that does not answer, on a server with data
//! for it, in a control group that somebody has frozen) ends when the wait does, and nobody can make it end before. Whoever waits for the container's end is told so, with
//! the process, instead of waiting with it; the container is taken down when it ends.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use spec::ErrorClass;

use super::mounts::MountKind;
use super::owner::Owner;
use super::{Container, PlannedMount};
use crate::engine::{Inner, blocking};
use crate::error::{Error, Result};

/// How long a container that was killed may take before it is looked at: most of them take a moment.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

impl Owner {
    /// Why a container that was killed has not ended, if it is for something that may never come.
    pub(super) async fn why_it_is_stuck(&self) -> Option<Error> {
        let (engine, container) = (Arc::clone(&self.engine), self.container.clone());
        let found = blocking(move || why(&engine, &container)).await;
        // One whose group is gone is about to end.
        found.ok().flatten()
    }
}

fn why(engine: &Inner, container: &Container) -> Result<Option<Error>> {
    let pids = engine.cgroup_of(container)?.pids()?;
    let Some((pid, program)) = pids.into_iter().find_map(waiting) else {
        return Ok(None);
    };
    let mut text = format!(
        "container {} was killed and has not ended yet: its process {pid} ({program}) waits in the kernel and cannot be \
         interrupted",
        container.name
    );
    for server in servers(engine, container) {
        text.push_str(&server);
    }
    text.push_str("; it ends when what it waits for comes or fails, or when it is no longer frozen");
    Ok(Some(Error::new(ErrorClass::Unavailable, text)))
}

/// A process with a thread that waits so, and what that thread is called.
fn waiting(pid: i32) -> Option<(i32, String)> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).ok()?;
        Some((pid, uninterruptible(&stat)?))
    })
}

/// The name in a line of `/proc/PID/stat`, where its state is D.
fn uninterruptible(stat: &str) -> Option<String> {
    let (before, after) = stat.rsplit_once(") ")?;
    let (_, name) = before.split_once('(')?;
    after.starts_with("D ").then(|| name.to_owned())
}

/// The servers that its volumes are on.
fn servers(engine: &Inner, container: &Container) -> Vec<String> {
    let server = |mount: &PlannedMount| {
        let MountKind::Volume { name, .. } = &mount.kind else {
            return None;
        };
        let volume = engine.volumes.get(name).ok()?;
        Some(format!(
            "; its volume {name} is on the server {}",
            volume.server()?
        ))
    };
    container.plan.iter().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_by_the_state() {
        let line = |name: &str, state: &str| format!("4711 ({name}) {state} 1 4711 4711 0 -1 4194560");
        assert_eq!(uninterruptible(&line("dd", "D")).as_deref(), Some("dd"));
        // A name may look like the end of one.
        assert_eq!(uninterruptible(&line("a) D (b", "D")).as_deref(), Some("a) D (b"));
        for state in ["S", "R", "Z", "X"] {
            assert_eq!(uninterruptible(&line("a) D 1 (b", state)), None, "{state}");
        }
    }
}
