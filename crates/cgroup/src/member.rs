//! Who is in a group: joining it, listing it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

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

/// Groups below a group, in which a process begins: one in every tree, or one for each controller that is named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Below {
    everywhere: PathBuf,
    by_controller: BTreeMap<String, PathBuf>,
}

impl Below {
    /// Each word is `PATH`, of which there is one then, or `CONTROLLER[,CONTROLLER]...:PATH`.
    pub fn parse(words: &[String]) -> Result<Below> {
        let invalid = |word: &str, why: &str| Err(CgroupError::Invalid(format!("cgroup {word:?}: {why}")));
        let mut below = Below::default();
        for word in words {
            let (controllers, path) = word.split_once(':').unwrap_or(("", word));
            let relative = Path::new(path.trim_start_matches('/'));
            if relative.components().any(|part| part == Component::ParentDir) {
                return invalid(word, "it is not below the container's");
            }
            if !word.contains(':') {
                if words.len() > 1 {
                    return invalid(word, "where there are several, each needs CONTROLLER: in front");
                }
                below.everywhere = relative.to_owned();
                continue;
            }
            for controller in controllers.split(',') {
                let known = below
                    .by_controller
                    .insert(controller.to_owned(), relative.to_owned());
                if controller.is_empty() || known.is_some() {
                    return invalid(word, "a controller is empty or named twice");
                }
            }
        }
        Ok(below)
    }

    /// In the tree of these controllers.
    fn path(&self, controllers: &[String]) -> &Path {
        let named = controllers.iter().find_map(|name| self.by_controller.get(name));
        named.unwrap_or(&self.everywhere)
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
        self.entry_below(&Below::default())
    }

    /// As [`Cgroup::entry`], of groups below this one, which must be there.
    pub fn entry_below(&self, below: &Below) -> Result<Entry> {
        if let Some(name) = below.by_controller.keys().find(|name| self.v1(name).is_none()) {
            return Err(CgroupError::Invalid(format!(
                "cgroup: there is no controller {name:?} of version 1 on this host"
            )));
        }
        let mut doors = Vec::new();
        for tree in self.paths() {
            if self.hierarchy.unified() == Some(tree.mount_point.as_path()) {
                continue;
            }
            let path = tree.directory.join(below.path(&tree.controllers)).join("tasks");
            let fd = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| CgroupError::io("open", &path, error))?;
            doors.push(fd);
        }
        Ok(Entry { doors })
    }

    /// As [`Cgroup::fd`], of a group below this one, which must be there. Beside version 1, whose trees are the ones that
    /// limit, this group itself serves as well.
    pub fn fd_below(&self, below: &Below) -> Result<Option<OwnedFd>> {
        let Some(own) = self.unified() else {
            return Ok(None);
        };
        let directory = own.join(&below.everywhere);
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match rustix::fs::open(&directory, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(directory)),
            Err(_) if self.version() == Version::Hybrid => Ok(self.fd()),
            Err(error) => Err(CgroupError::io("open", &directory, error)),
        }
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
