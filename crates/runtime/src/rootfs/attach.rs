//! The child's half of the mounts: each is brought to its place beneath the root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use sys::mount::{Attributes, Filesystem, Propagation, Tree};

use super::prepare::{Prepared, Source};
use super::target::{self, Kind};
use super::{cgroups, copy_up};
use crate::error::{LaunchError, reason};

const PROC_MAGIC: u64 = 0x9fa0;

/// Files of /proc that a container may have replaced by others (fakes of what is not namespaced).
const REPLACEABLE: [&str; 11] = [
    "cpuinfo",
    "diskstats",
    "loadavg",
    "meminfo",
    "net/dev",
    "slabinfo",
    "stat",
    "swaps",
    "sys/crypto/fips_enabled",
    "sys/kernel/ns_last_pid",
    "uptime",
];

pub(crate) fn attach(
    root: BorrowedFd<'_>,
    mount: &Prepared,
    sysfs_by_bind: bool,
    label: Option<&str>,
) -> Result<(), LaunchError> {
    place(root, mount, sysfs_by_bind, label).map_err(|error| mount.error(reason(&error)))
}

fn place(root: BorrowedFd<'_>, mount: &Prepared, sysfs_by_bind: bool, label: Option<&str>) -> io::Result<()> {
    let kind = match &mount.source {
        Source::Tree { directory: false, .. } => Kind::File,
        _ => Kind::Directory,
    };
    if matches!(mount.filesystem(), Some("proc" | "sysfs")) {
        refuse_links(root, &mount.destination)?;
    }
    let target = target::open_or_make(root, &mount.destination, kind)?;
    refuse_over_proc(mount, target.as_fd())?;
    match &mount.source {
        Source::Tree { tree, .. } => tree.attach(target.as_fd()),
        Source::Cgroup(view) => {
            let read_only = if mount.options.read_only() {
                Attributes::READ_ONLY
            } else {
                0
            };
            let attributes = mount.options.mount_attributes() | read_only;
            cgroups::attach(view, target.as_fd(), attributes, mount.options.propagation)
        }
        Source::Filesystem { kind } => {
            let tree = if kind == "sysfs" && sysfs_by_bind {
                host_sysfs(mount)?
            } else {
                filesystem(kind, mount, target.as_fd())?
            };
            if kind == "mqueue"
                && let Some(label) = label
            {
                sys::selinux::label_directory(tree.as_fd(), label)?;
            }
            if mount.options.copy_up {
                copy_up::copy(target.as_fd(), tree.as_fd())?;
            }
            let set = if mount.options.read_only() {
                Attributes::READ_ONLY
            } else {
                0
            };
            let (propagation, whole) = match mount.options.propagation {
                Some((propagation, whole)) => (Some(propagation), whole),
                None => (None, false),
            };
            tree.attach(target.as_fd())?;
            tree.set(
                Attributes {
                    set,
                    propagation,
                    ..Attributes::default()
                },
                whole,
            )
        }
    }
}

fn filesystem(kind: &str, mount: &Prepared, target: BorrowedFd<'_>) -> io::Result<Tree> {
    let fs = Filesystem::new(kind)?;
    // What mount tables show; for a filesystem on a device, the device.
    fs.string("source", &mount.source_name)?;
    let mut has_mode = false;
    for option in &mount.options.data {
        has_mode |= option.starts_with("mode=");
        match option.strip_prefix("lowerdir=") {
            // More than one option holds goes layer by layer (Linux 6.7).
            Some(list) if kind == "overlay" && list.len() > 255 && !list.contains("::") => {
                for layer in super::mapped::layers(list) {
                    fs.path("lowerdir+", &layer)?;
                }
            }
            _ => fs.option(option)?,
        }
    }
    if kind == "tmpfs" && !has_mode {
        // As the directory that it covers.
        fs.string(
            "mode",
            &format!("{:o}", rustix::fs::fstat(target)?.st_mode & 0o7777),
        )?;
    }
    fs.mount(mount.options.mount_attributes())
}

/// A user namespace may mount sysfs only where it owns the network namespace; elsewhere the host's is shown.
fn host_sysfs(mount: &Prepared) -> io::Result<Tree> {
    let tree = Tree::open(CWD, Path::new("/sys"), true)?;
    let set = mount.options.mount_attributes() | Attributes::READ_ONLY;
    tree.set(
        Attributes {
            set,
            propagation: Some(Propagation::Private),
            ..Attributes::default()
        },
        true,
    )?;
    Ok(tree)
}

/// /proc and /sys must be where they say: a link could lead them into a volume that another container can
/// rearrange, and what is hidden or read-only in them would then be elsewhere (CVE-2019-19921).
fn refuse_links(root: BorrowedFd<'_>, destination: &Path) -> io::Result<()> {
    let path = destination.strip_prefix("/").unwrap_or(destination);
    let looked = sys::beneath::open_beneath_no_links(root, path, OFlags::PATH, Mode::empty());
    match looked {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the image has a symbolic link in this path",
            ))
        }
        _ => Ok(()),
    }
}

/// Nothing may cover the container's own view of its processes but the few files in the list, and another procfs.
fn refuse_over_proc(mount: &Prepared, target: BorrowedFd<'_>) -> io::Result<()> {
    if is_proc(target)? && mount.filesystem() != Some("proc") {
        let allowed = normal(&mount.destination)
            .strip_prefix("proc")
            .is_ok_and(|below| REPLACEABLE.iter().any(|file| below == Path::new(file)));
        let procfs = match &mount.source {
            Source::Tree { tree, .. } => is_proc(tree.as_fd())?,
            _ => false,
        };
        if !allowed && !procfs {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a mount inside /proc is not permitted",
            ));
        }
    }
    Ok(())
}

fn is_proc(file: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(file)?.f_type as u64 == PROC_MAGIC)
}

/// Without leading slash, `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}
