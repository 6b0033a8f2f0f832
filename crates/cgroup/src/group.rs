//! A control group: made, opened, removed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use crate::error::{CgroupError, Result};
use crate::file::{self, EBUSY, ENOENT};
use crate::hierarchy::{Hierarchy, Version};

/// How long removal waits for processes that have been killed but not yet left.
const REMOVE_DEADLINE: Duration = Duration::from_secs(5);

/// One group, a directory in each tree.
#[derive(Debug, Clone)]
pub struct Cgroup {
    pub(crate) hierarchy: Hierarchy,
    /// `<parent>/<name>` without leading slash.
    relative: PathBuf,
}

/// Where a group stands in one tree, for the mount of /sys/fs/cgroup inside a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerPath {
    /// v1 controllers of this tree; empty for the unified tree.
    pub controllers: Vec<String>,
    /// Mount point of the tree on the host.
    pub mount_point: PathBuf,
    /// The group's directory on the host.
    pub directory: PathBuf,
}

impl Cgroup {
    /// Makes `<parent>/<name>` in every tree of the host. `parent` is a path from the trees' roots, as in
    /// `/berth`. A group that is left over from a crash is taken over when no process lives in it.
    pub fn create(parent: &str, name: &str) -> Result<Self> {
        Self::create_in(Hierarchy::host()?, parent, name)
    }

    /// As [`Cgroup::create`], in trees of the caller's choice.
    pub fn create_in(hierarchy: Hierarchy, parent: &str, name: &str) -> Result<Self> {
        let group = Self {
            relative: relative_path(parent, name)?,
            hierarchy,
        };
        match group.make() {
            Ok(()) => Ok(group),
            // What is there is somebody else's, down to his empty subgroups.
            Err(error @ CgroupError::Occupied { .. }) => Err(error),
            Err(error) => {
                // The first failure is the one to tell; empty directories that stay behind are harmless.
                let _ = group.remove_within(Duration::ZERO);
                Err(error)
            }
        }
    }

    /// The group that systemd has made, completed by its directories in the version 1 trees that systemd does not
    /// manage.
    pub(crate) fn adopt(hierarchy: Hierarchy, parent: &str, name: &str) -> Result<Self> {
        let group = Self {
            relative: relative_path(parent, name)?,
            hierarchy,
        };
        let known = group.unified().or_else(|| group.v1("name=systemd"));
        let known = known.ok_or(CgroupError::Missing {
            controller: "name=systemd",
            limit: "the systemd driver",
        })?;
        if !known.is_dir() {
            // Its root is another than ours.
            return Err(CgroupError::io(
                "find what systemd made at",
                &known,
                io::Error::from_raw_os_error(ENOENT),
            ));
        }
        if group.version() == Version::V2 {
            return Ok(group);
        }
        for (controllers, mount) in group.hierarchy.trees() {
            let directory = mount.join(&group.relative);
            fs::create_dir_all(&directory).map_err(|error| CgroupError::io("create", &directory, error))?;
            if controllers.iter().any(|name| name == "cpuset") {
                group.fill_cpuset(&mount)?;
            }
        }
        Ok(group)
    }

    /// The group `<parent>/<name>`, which must exist.
    pub fn open(parent: &str, name: &str) -> Result<Self> {
        Self::open_in(Hierarchy::host()?, parent, name)
    }

    /// As [`Cgroup::open`], in trees of the caller's choice.
    pub fn open_in(hierarchy: Hierarchy, parent: &str, name: &str) -> Result<Self> {
        let group = Self {
            relative: relative_path(parent, name)?,
            hierarchy,
        };
        if group.directories().iter().any(|directory| directory.is_dir()) {
            return Ok(group);
        }
        let path = group.directories().into_iter().next().unwrap_or_default();
        Err(CgroupError::io(
            "open",
            &path,
            io::Error::from_raw_os_error(ENOENT),
        ))
    }

    /// Names of the groups directly below `parent`, in any tree of the host.
    pub fn children(parent: &str) -> Result<BTreeSet<String>> {
        let last = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        let trees = Hierarchy::host()?.trees();
        let groups = trees
            .into_iter()
            .flat_map(|(_, root)| subdirectories(&root.join(parent.trim_matches('/'))));
        Ok(groups.filter_map(last).collect())
    }

    /// `/<parent>/<name>` as in `/proc/<pid>/cgroup`.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(&self.relative)
    }

    pub fn version(&self) -> Version {
        self.hierarchy.version()
    }

    pub fn hierarchy(&self) -> &Hierarchy {
        &self.hierarchy
    }

    /// The group's directory in each tree.
    pub fn paths(&self) -> Vec<ControllerPath> {
        self.hierarchy
            .trees()
            .into_iter()
            .map(|(controllers, mount_point)| ControllerPath {
                controllers,
                directory: mount_point.join(&self.relative),
                mount_point,
            })
            .collect()
    }

    /// A descriptor of the group for `clone3(CLONE_INTO_CGROUP)`, where there is a unified tree. On a hybrid host the
    /// process enters the version 1 trees by [`Cgroup::entry`] as well.
    pub fn fd(&self) -> Option<OwnedFd> {
        let directory = self.unified()?;
        rustix::fs::open(
            &directory,
            OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()
    }

    /// Removes the group with everything below it. Processes that were killed may need a moment to leave: EBUSY is
    /// retried for up to five seconds. A group that is gone already is a success.
    pub fn remove(&self) -> Result<()> {
        self.remove_within(REMOVE_DEADLINE)
    }

    /// As [`Cgroup::remove`] with another deadline; zero tries once.
    pub fn remove_within(&self, deadline: Duration) -> Result<()> {
        let started = Instant::now();
        let mut first_failure = None;
        for directory in self.directories() {
            if let Err(error) = remove_tree(&directory, started, deadline) {
                first_failure.get_or_insert(error);
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// Whether the group is there in any tree.
    pub fn exists(&self) -> bool {
        self.directories().iter().any(|directory| directory.is_dir())
    }

    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        self.hierarchy
            .trees()
            .into_iter()
            .map(|(_, mount)| mount.join(&self.relative))
            .collect()
    }

    /// Directory in the tree of a v1 controller.
    pub(crate) fn v1(&self, controller: &str) -> Option<PathBuf> {
        self.hierarchy
            .controller(controller)
            .map(|mount| mount.join(&self.relative))
    }

    /// Directory in the tree of a v1 controller that a limit needs.
    pub(crate) fn v1_for(&self, controller: &'static str, limit: &'static str) -> Result<PathBuf> {
        self.v1(controller)
            .ok_or(CgroupError::Missing { controller, limit })
    }

    /// Directory in the unified tree.
    pub(crate) fn unified(&self) -> Option<PathBuf> {
        self.hierarchy.unified().map(|mount| mount.join(&self.relative))
    }

    /// Directory in the unified tree, when the controller is switched on in it.
    pub(crate) fn v2_for(&self, controller: &'static str, limit: &'static str) -> Result<PathBuf> {
        let missing = CgroupError::Missing { controller, limit };
        let Some(directory) = self.unified() else {
            return Err(missing);
        };
        let offered = file::read_optional(&directory.join("cgroup.controllers"))?.unwrap_or_default();
        if offered.split_whitespace().any(|name| name == controller) {
            Ok(directory)
        } else {
            Err(missing)
        }
    }

    fn make(&self) -> Result<()> {
        if let (Version::V2, Some(root)) = (self.version(), self.hierarchy.unified()) {
            return self.make_unified(root);
        }
        for (controllers, mount) in self.hierarchy.trees() {
            let directory = mount.join(&self.relative);
            make_directory(&directory)?;
            if controllers.iter().any(|name| name == "cpuset") {
                self.fill_cpuset(&mount)?;
            }
        }
        Ok(())
    }

    /// In v2 a controller must be handed down level by level. A controller that the kernel will not hand down is
    /// left out here: it is an error only when a limit needs it, and then named.
    fn make_unified(&self, root: &Path) -> Result<()> {
        let mut directory = root.to_path_buf();
        for component in self.relative.components() {
            hand_down(&directory)?;
            directory.push(component);
            let last = directory == root.join(&self.relative);
            if last {
                make_directory(&directory)?;
            } else {
                make_parent(&directory)?;
            }
        }
        Ok(())
    }

    /// A new v1 cpuset is empty, and no process can enter an empty one. Each level takes its parent's values.
    fn fill_cpuset(&self, mount: &Path) -> Result<()> {
        let mut parent = mount.to_path_buf();
        for component in self.relative.components() {
            let child = parent.join(component);
            for name in ["cpuset.cpus", "cpuset.mems"] {
                let Some(current) = file::read_optional(&child.join(name))? else {
                    continue;
                };
                if current.trim().is_empty() {
                    let inherited = file::read(&parent.join(name))?;
                    file::write(&child.join(name), inherited.trim())?;
                }
            }
            parent = child;
        }
        Ok(())
    }
}

fn relative_path(parent: &str, name: &str) -> Result<PathBuf> {
    let mut relative = PathBuf::new();
    for component in Path::new(parent).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => relative.push(part),
            _ => {
                return Err(CgroupError::Invalid(format!(
                    "invalid cgroup parent {parent:?}: it leaves its root"
                )));
            }
        }
    }
    if name.is_empty() || name == "." || name == ".." || name.contains('/') || name.contains('\0') {
        return Err(CgroupError::Invalid(format!("invalid cgroup name {name:?}")));
    }
    relative.push(name);
    Ok(relative)
}

fn make_parent(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::io("create", directory, error))
        }
        _ => Ok(()),
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    match fs::create_dir(directory) {
        Ok(()) => return Ok(()),
        Err(error) if error.raw_os_error() == Some(ENOENT) => {
            let parent = directory.parent().unwrap_or(directory);
            // Another start may make, or the last stop may remove, the parent at this very moment.
            fs::create_dir_all(parent).map_err(|error| CgroupError::io("create", parent, error))?;
            match fs::create_dir(directory) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(CgroupError::io("create", directory, error)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(CgroupError::io("create", directory, error)),
    }
    let inside = file::read_optional(&directory.join("cgroup.procs"))?.unwrap_or_default();
    match inside.lines().count() {
        0 => Ok(()),
        count => Err(CgroupError::Occupied {
            path: directory.to_path_buf(),
            count,
        }),
    }
}

fn hand_down(directory: &Path) -> Result<()> {
    let Some(offered) = file::read_optional(&directory.join("cgroup.controllers"))? else {
        return Ok(());
    };
    let control = directory.join("cgroup.subtree_control");
    let enabled = file::read_optional(&control)?.unwrap_or_default();
    let missing: Vec<String> = offered
        .split_whitespace()
        .filter(|name| !enabled.split_whitespace().any(|known| known == *name))
        .map(|name| format!("+{name}"))
        .collect();
    if missing.is_empty() || file::raw_write(&control, &missing.join(" ")).is_ok() {
        return Ok(());
    }
    // All or nothing failed: take what can be had one by one.
    for one in &missing {
        if let Err(error) = file::raw_write(&control, one) {
            tracing::debug!(path = %control.display(), controller = one, %error, "controller not handed down");
        }
    }
    Ok(())
}

fn remove_tree(directory: &Path, started: Instant, deadline: Duration) -> Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(ENOENT) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(EBUSY) => {}
            // A tree of plain files says ENOTEMPTY; the kernel's never does.
            Err(error) => return Err(CgroupError::io("remove", directory, error)),
        }
        // Groups that the container made for itself stand in the way as well.
        for child in subdirectories(directory) {
            remove_tree(&child, started, deadline)?;
        }
        if started.elapsed() >= deadline {
            // Children may just have gone: one last try decides.
            if fs::remove_dir(directory).is_ok() || !directory.exists() {
                return Ok(());
            }
            let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            return Err(CgroupError::Busy {
                path: directory.to_path_buf(),
                waited_ms,
            });
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Groups directly below a directory.
pub(crate) fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_cannot_leave_the_root() {
        assert_eq!(relative_path("/berth", "a").unwrap(), PathBuf::from("berth/a"));
        assert_eq!(relative_path("", "a").unwrap(), PathBuf::from("a"));
        assert_eq!(relative_path("/x//./y/", "a").unwrap(), PathBuf::from("x/y/a"));
        for (parent, name) in [("/../x", "a"), ("/x", ".."), ("/x", ""), ("/x", "a/b")] {
            assert!(relative_path(parent, name).is_err(), "{parent} {name}");
        }
    }
}
