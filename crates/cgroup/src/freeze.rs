//! Stopping a group in its tracks and letting it go on.
//!
//! The unified tree's freezer is used wherever there is one, hybrid included: a frozen process there can still be
//! killed, while the v1 freezer holds it in an uninterruptible sleep until it is thawed.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;

/// A process in a long uninterruptible wait (NFS) freezes late; after this the attempt is given up and undone.
const DEADLINE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Freezes every process in the group and waits until all have stopped.
    pub fn freeze(&self) -> Result<()> {
        let outcome = self.freeze_within(DEADLINE);
        if outcome.is_err() {
            let _ = self.thaw();
        }
        outcome
    }

    fn freeze_within(&self, deadline: Duration) -> Result<()> {
        if let Some(directory) = self.unified_freezer() {
            file::write(&directory.join("cgroup.freeze"), "1")?;
            return wait(&directory, "frozen", deadline, || {
                let events = file::read_optional(&directory.join("cgroup.events"))?.unwrap_or_default();
                Ok(file::keyed(&events, "frozen") == Some(1))
            });
        }
        let directory = self.v1_for("freezer", "pause")?;
        let state = directory.join("freezer.state");
        wait(&directory, "frozen", deadline, || {
            // A process that forks while it is frozen leaves the group FREEZING; asking again moves it on.
            file::write(&state, "FROZEN")?;
            Ok(file::read(&state)?.trim() == "FROZEN")
        })
    }

    /// Lets every process go on.
    pub fn thaw(&self) -> Result<()> {
        if let Some(directory) = self.unified_freezer() {
            return file::write(&directory.join("cgroup.freeze"), "0");
        }
        let directory = self.v1_for("freezer", "unpause")?;
        let state = directory.join("freezer.state");
        wait(&directory, "thawed", DEADLINE, || {
            file::write(&state, "THAWED")?;
            Ok(file::read(&state)?.trim() == "THAWED")
        })
    }

    /// Whether the group was asked to freeze (all of it need not have stopped yet).
    pub fn is_frozen(&self) -> Result<bool> {
        if let Some(directory) = self.unified_freezer() {
            return Ok(file::number(&directory.join("cgroup.freeze"))? == Some(1));
        }
        match self.v1("freezer") {
            Some(directory) => {
                let state = file::read_optional(&directory.join("freezer.state"))?.unwrap_or_default();
                Ok(matches!(state.trim(), "FROZEN" | "FREEZING"))
            }
            None => Ok(false),
        }
    }

    fn unified_freezer(&self) -> Option<std::path::PathBuf> {
        self.unified()
            .filter(|directory| directory.join("cgroup.freeze").exists())
    }
}

fn wait(
    directory: &Path,
    wanted: &'static str,
    deadline: Duration,
    mut reached: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let started = Instant::now();
    let mut pause = Duration::from_micros(100);
    while !reached()? {
        if started.elapsed() >= deadline {
            let waited_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
            return Err(CgroupError::Stuck {
                path: directory.to_path_buf(),
                wanted,
                waited_ms,
            });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}
