//! Ending everything in a group.
//!
//! `cgroup.kill` (v2 and hybrid, Linux 5.14) kills the whole tree at once, forks in flight included. Where there is
//! no unified tree the group is frozen first, so that nothing forks away between listing and killing.

use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;

/// Rounds of list-and-kill before a group that keeps forking is given up (v1 without a freezer).
const ROUNDS: usize = 50;

impl Cgroup {
    /// Sends SIGKILL to every process in the group and below. Returns as soon as the signals are sent; a frozen
    /// group is killed as well. A group that is gone or empty is a success.
    pub fn kill_all(&self) -> Result<()> {
        if let Some(directory) = self.unified() {
            let kill = directory.join("cgroup.kill");
            if kill.exists() {
                return match file::write(&kill, "1") {
                    Err(_) if !directory.exists() => Ok(()),
                    other => other,
                };
            }
        }
        self.kill_each()
    }

    /// Waits until no process is left, or says how long it waited in vain.
    pub fn wait_empty(&self, deadline: Duration) -> Result<()> {
        let started = Instant::now();
        let mut pause = Duration::from_micros(100);
        while !self.pids()?.is_empty() {
            if started.elapsed() >= deadline {
                let waited_ms = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                return Err(CgroupError::Busy {
                    path: self.path(),
                    waited_ms,
                });
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        Ok(())
    }

    fn kill_each(&self) -> Result<()> {
        // Best effort: without a freezer the rounds below do it.
        let frozen = self.freeze().is_ok();
        let mut outcome = Ok(());
        for _ in 0..ROUNDS {
            let pids = self.pids()?;
            if pids.is_empty() {
                break;
            }
            for pid in pids {
                let Some(pid) = Pid::from_raw(pid) else { continue };
                if let Err(error) = kill_process(pid, Signal::KILL)
                    && error != rustix::io::Errno::SRCH
                {
                    outcome = Err(CgroupError::io("kill the processes of", &self.path(), error));
                }
            }
            if frozen {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if frozen {
            self.thaw()?;
        }
        outcome
    }
}
