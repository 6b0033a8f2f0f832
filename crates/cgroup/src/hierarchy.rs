//! Where the control group file systems of this host are mounted and what they offer.
//!
//! Three layouts exist (cgroups(7)): v1 mounts each controller (or a few together) by itself; v2 has one tree for
//! all; hybrid is v1 plus a v2 tree that carries no controller but still offers `cgroup.kill` and `cgroup.freeze`.
//! The layout is read from the text of `/proc/self/mountinfo`, so that tests hand in their own, and a tree of plain
//! files can stand in for a mounted one ([`Hierarchy::v2_at`]).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{CgroupError, Result};
use crate::file;

/// Which layout the host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Controllers in trees of their own, no unified tree.
    V1,
    /// One unified tree.
    V2,
    /// Controllers as in v1, and a unified tree without controllers.
    Hybrid,
}

/// The trees of a host.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    version: Version,
    /// v1 controller (or `name=systemd`) to mount point. Controllers mounted together share one.
    controllers: BTreeMap<String, PathBuf>,
    /// The v2 tree, in v2 and hybrid.
    unified: Option<PathBuf>,
}

/// What the kernel of this host can limit; for `docker info` and for warnings before a container is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Support {
    pub memory: bool,
    pub swap: bool,
    pub oom_kill_disable: bool,
    pub memory_reservation: bool,
    pub kernel_memory: bool,
    pub cpu_shares: bool,
    pub cpu_quota: bool,
    pub cpu_realtime: bool,
    pub cpuset: bool,
    pub pids: bool,
    pub blkio_weight: bool,
    pub blkio_throttle: bool,
    pub devices: bool,
    pub freeze: bool,
}

impl Hierarchy {
    /// The trees of the running host, as this process sees them.
    pub fn host() -> Result<Self> {
        let path = Path::new("/proc/self/mountinfo");
        Self::from_mountinfo(&file::read(path)?)
    }

    /// The trees named in the text of a mountinfo file (proc_pid_mountinfo(5)).
    pub fn from_mountinfo(text: &str) -> Result<Self> {
        let mut controllers = BTreeMap::new();
        let mut unified: Option<PathBuf> = None;
        for line in text.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let mut right = right.split(' ');
            let fstype = right.next().unwrap_or_default();
            if fstype != "cgroup" && fstype != "cgroup2" {
                continue;
            }
            let Some(mount_point) = left.split(' ').nth(4).map(unescape) else {
                continue;
            };
            if fstype == "cgroup2" {
                // /sys/fs/cgroup is the rule; a second mount elsewhere must not displace it.
                if unified.is_none() || mount_point == Path::new("/sys/fs/cgroup") {
                    unified = Some(mount_point);
                }
                continue;
            }
            for option in right.nth(1).unwrap_or_default().split(',') {
                if is_controller(option) {
                    controllers
                        .entry(option.to_owned())
                        .or_insert_with(|| mount_point.clone());
                }
            }
        }
        let version = match (
            controllers.keys().any(|name| !name.starts_with("name=")),
            &unified,
        ) {
            (true, Some(_)) => Version::Hybrid,
            (true, None) => Version::V1,
            (false, Some(_)) => Version::V2,
            (false, None) => {
                return Err(CgroupError::NoHierarchy {
                    looked_at: "/proc/self/mountinfo".into(),
                });
            }
        };
        if version == Version::V2 {
            controllers.clear();
        }
        Ok(Self {
            version,
            controllers,
            unified,
        })
    }

    /// A unified tree at a directory of the caller's choice.
    pub fn v2_at(root: impl Into<PathBuf>) -> Self {
        Self {
            version: Version::V2,
            controllers: BTreeMap::new(),
            unified: Some(root.into()),
        }
    }

    /// v1 trees at `<root>/<controller>`.
    pub fn v1_at(root: &Path, controllers: &[&str]) -> Self {
        let controllers = controllers
            .iter()
            .map(|name| ((*name).to_owned(), root.join(name)))
            .collect();
        Self {
            version: Version::V1,
            controllers,
            unified: None,
        }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Mount point of the unified tree.
    pub fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Mount point of a v1 controller.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        self.controllers.get(name).map(PathBuf::as_path)
    }

    /// v1 controllers with their mount points.
    pub fn controllers(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.controllers
            .iter()
            .map(|(name, path)| (name.as_str(), path.as_path()))
    }

    /// Every tree once, with the controllers that are mounted there (none for the unified tree).
    pub(crate) fn trees(&self) -> Vec<(Vec<String>, PathBuf)> {
        let mut trees: Vec<(Vec<String>, PathBuf)> = Vec::new();
        for (name, path) in &self.controllers {
            match trees.iter_mut().find(|(_, known)| known == path) {
                Some((names, _)) => names.push(name.clone()),
                None => trees.push((vec![name.clone()], path.clone())),
            }
        }
        if let Some(unified) = &self.unified {
            trees.push((Vec::new(), unified.clone()));
        }
        trees
    }

    /// What can be limited here. Looks at the files that exist in the roots and, where the root of a tree does not
    /// show a limit, in any group below it.
    pub fn support(&self) -> Support {
        match self.version {
            Version::V2 => self.support_v2(),
            Version::V1 | Version::Hybrid => self.support_v1(),
        }
    }

    /// Whether a controller is there: mounted, or offered by the unified tree's root.
    pub(crate) fn has(&self, controller: &str) -> bool {
        match (self.version, &self.unified) {
            (Version::V2, Some(root)) => {
                let offered = file::read_optional(&root.join("cgroup.controllers"));
                let offered = offered.ok().flatten().unwrap_or_default();
                offered.split_whitespace().any(|name| name == controller)
            }
            _ => self.controllers.contains_key(controller),
        }
    }

    fn support_v1(&self) -> Support {
        let has = |controller: &str, file: &str| {
            self.controller(controller)
                .is_some_and(|mount| mount.join(file).exists())
        };
        Support {
            memory: has("memory", "memory.limit_in_bytes"),
            swap: has("memory", "memory.memsw.limit_in_bytes"),
            oom_kill_disable: has("memory", "memory.oom_control"),
            memory_reservation: has("memory", "memory.soft_limit_in_bytes"),
            kernel_memory: false,
            cpu_shares: has("cpu", "cpu.shares") || self.below("cpu", "cpu.shares"),
            cpu_quota: has("cpu", "cpu.cfs_quota_us") || self.below("cpu", "cpu.cfs_quota_us"),
            cpu_realtime: has("cpu", "cpu.rt_runtime_us"),
            cpuset: has("cpuset", "cpuset.cpus"),
            pids: self.controller("pids").is_some(),
            blkio_weight: has("blkio", "blkio.weight")
                || has("blkio", "blkio.bfq.weight")
                || self.below("blkio", "blkio.bfq.weight"),
            blkio_throttle: has("blkio", "blkio.throttle.read_bps_device"),
            devices: self.controller("devices").is_some(),
            freeze: self.controller("freezer").is_some() || self.unified.is_some(),
        }
    }

    fn below(&self, controller: &str, file: &str) -> bool {
        let Some(mount) = self.controller(controller) else {
            return false;
        };
        let Ok(entries) = fs::read_dir(mount) else {
            return false;
        };
        entries.flatten().any(|entry| entry.path().join(file).exists())
    }

    fn support_v2(&self) -> Support {
        let Some(root) = &self.unified else {
            return Support::default();
        };
        let offered = file::read_optional(&root.join("cgroup.controllers"))
            .ok()
            .flatten()
            .unwrap_or_default();
        let has = |name: &str| offered.split_whitespace().any(|offer| offer == name);
        Support {
            memory: has("memory"),
            swap: has("memory") && Path::new("/proc/swaps").exists(),
            oom_kill_disable: false,
            memory_reservation: has("memory"),
            kernel_memory: false,
            cpu_shares: has("cpu"),
            cpu_quota: has("cpu"),
            cpu_realtime: false,
            cpuset: has("cpuset"),
            pids: has("pids"),
            blkio_weight: has("io"),
            blkio_throttle: has("io"),
            devices: true,
            freeze: true,
        }
    }
}

fn is_controller(option: &str) -> bool {
    const KNOWN: &[&str] = &[
        "cpu",
        "cpuacct",
        "cpuset",
        "memory",
        "devices",
        "freezer",
        "blkio",
        "pids",
        "net_cls",
        "net_prio",
        "hugetlb",
        "perf_event",
        "rdma",
        "misc",
    ];
    KNOWN.contains(&option) || option.starts_with("name=")
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = (byte == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| {
                digits.iter().try_fold(0u16, |value, digit| {
                    (b'0'..=b'7')
                        .contains(digit)
                        .then(|| value * 8 + u16::from(digit - b'0'))
                })
            });
        match octal.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(
        bytes,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd,xattr
";

    #[test]
    fn v1_controllers_share_a_mount() {
        let found = Hierarchy::from_mountinfo(V1).unwrap();
        assert_eq!(found.version(), Version::V1);
        assert_eq!(found.controller("cpu"), found.controller("cpuacct"));
        assert_eq!(
            found.controller("name=systemd"),
            Some(Path::new("/sys/fs/cgroup/systemd"))
        );
        assert_eq!(found.trees().len(), 3);
        assert!(found.unified().is_none());
    }

    #[test]
    fn a_unified_tree_beside_v1_is_hybrid() {
        let text = format!("{V1}41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n");
        let found = Hierarchy::from_mountinfo(&text).unwrap();
        assert_eq!(found.version(), Version::Hybrid);
        assert_eq!(found.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn a_unified_tree_with_a_named_hierarchy_is_v2() {
        let text = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
                    40 31 0:37 / /mnt/a\\040b rw - cgroup none rw,name=elogind\n";
        let found = Hierarchy::from_mountinfo(text).unwrap();
        assert_eq!(found.version(), Version::V2);
        assert_eq!(found.unified(), Some(Path::new("/sys/fs/cgroup")));
        assert_eq!(found.controllers().count(), 0);
    }

    #[test]
    fn nothing_mounted_is_an_error() {
        let error = Hierarchy::from_mountinfo("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n").unwrap_err();
        assert!(error.to_string().contains("no cgroup file system"), "{error}");
    }

    #[test]
    fn octal_escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/a\\9\\777"), PathBuf::from("/a\\9\\777"));
    }
}
