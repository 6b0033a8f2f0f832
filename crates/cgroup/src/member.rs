//! Who is in a group: joining it, listing it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::{Cgroup, subdirectories};
use crate::hierarchy::Version;

/// Open doors of a group's version 1 trees, for a process that enters by itself.
///
/// Made before a fork, used after it: [`Entry::enter`] allocates nothing and takes no lock. A single-threaded process
/// that moves itself through `tasks` spares the kernel its global thread group lock, whose taking waits for an RCU
/// grace period, some ten milliseconds (Linux kernel/cgroup/cgroup.c, `cgroup_procs_write_start`). The unified tree
/// has no such door, so there a process is born in its group: see [`Cgroup::fd`].
#[derive(Debug)]
pub struct Entry {
    doors: Vec<OwnedFd>,
}

impl Entry {
    /// Moves the calling thread into the group. Meant for a process that has only this thread.
    pub fn enter(&self) -> std::result::Result<(), Errno> {
        for door in &self.doors {
            rustix::io::write(door, b"0")?;
        }
        Ok(())
    }
}

impl Cgroup {
    /// Moves a process, all threads of it, into the group.
    pub fn add(&self, pid: i32) -> Result<()> {
        for directory in self.directories() {
            file::write(&directory.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Doors for a single-threaded process to enter the version 1 trees by itself; none where there are none.
    pub fn entry(&self) -> Result<Entry> {
        let mut doors = Vec::new();
        for (_, mount) in self.hierarchy.trees() {
            if self.hierarchy.unified() == Some(mount.as_path()) {
                continue;
            }
            let path = mount
                .join(self.path().strip_prefix("/").unwrap_or(Path::new("")))
                .join("tasks");
            let fd = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| CgroupError::io("open", &path, error))?;
            doors.push(fd);
        }
        Ok(Entry { doors })
    }

    /// Every process in the group and below, ascending.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let Some(directory) = self.member_directory() else {
            return Ok(Vec::new());
        };
        let mut pids = BTreeSet::new();
        collect(&directory, &mut pids)?;
        Ok(pids.into_iter().collect())
    }

    /// The tree whose membership is asked: unified where there is one, else any controller's.
    pub(crate) fn member_directory(&self) -> Option<PathBuf> {
        match self.version() {
            Version::V2 | Version::Hybrid => self.unified(),
            Version::V1 => ["pids", "freezer", "memory", "cpu", "devices"]
                .iter()
                .find_map(|name| self.v1(name))
                .or_else(|| self.directories().into_iter().next()),
        }
    }
}

fn collect(directory: &Path, into: &mut BTreeSet<i32>) -> Result<()> {
    let text = file::read_optional(&directory.join("cgroup.procs"))?.unwrap_or_default();
    // A process of another pid namespace reads as 0.
    into.extend(
        text.lines()
            .filter_map(|line| line.trim().parse::<i32>().ok())
            .filter(|pid| *pid > 0),
    );
    for child in subdirectories(directory) {
        collect(&child, into)?;
    }
    Ok(())
}
