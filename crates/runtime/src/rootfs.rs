//! The container's view of files: its root, what is mounted in it, its devices, and what is hidden.
//!
//! `prepare` runs in the caller and opens everything that lies on the host; `build` runs in the child, in its
//! own mount namespace, and puts it together. Nothing is mounted by path: a target is resolved beneath the new
//! root to a descriptor (`target`) and a detached mount is moved onto that descriptor.
//!
//! Order: root, mounts as listed, devices, terminal, hidden paths, read-only paths, the root itself read-only.

mod attach;
mod cgroups;
mod check;
mod copy_up;
mod devices;
mod hidden;
mod mapped;
mod options;
mod outside;
mod prepare;
mod target;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use sys::mount::{Attributes, Propagation, Tree};
use sys::namespace::{self, Kind};
use sys::terminal::Pair;

use crate::error::{During, LaunchError, reason};
use crate::namespaces::MountTable;

pub(crate) use check::{bound, check};
pub(crate) use prepare::{Request, RootfsPlan, open_root};

impl RootfsPlan {
    /// In the child: mounts everything. The process's root is still the old one afterwards.
    /// With `terminal`, a pair of the container's own devpts is made and given back.
    pub fn build(&self, cwd: &Path, terminal: bool) -> Result<Option<Pair>, LaunchError> {
        sys::mount::set_propagation(Path::new("/"), Propagation::Private, true)
            .during("make the mounts private")?;
        let place = directory(&self.attach_at)
            .during(&format!("root filesystem's place {}", self.attach_at.display()))?;
        self.root
            .attach(place.as_fd())
            .during("mount the root filesystem")?;
        let root = self.root.as_fd();
        for mount in &self.mounts {
            attach::attach(root, mount, self.sysfs_by_bind, self.label.as_deref())?;
        }
        let own_dev = self.sets_up_dev();
        // What every container has fills up what the configuration leaves open.
        for device in self
            .devices
            .iter()
            .filter(|device| !(own_dev && devices::is_link(&device.path)))
        {
            let spare = self.spares.iter().find(|(path, _)| *path == device.path);
            devices::make(root, device, spare.map(|(_, waiting)| waiting.as_path()))?;
        }
        if own_dev {
            devices::make_defaults(root)?;
        }
        let pair = if terminal {
            Some(self.open_terminal(root)?)
        } else {
            None
        };
        make_cwd(root, cwd)?;
        hidden::mask(root, &self.masked, self.label.as_deref())?;
        hidden::make_read_only(root, &self.read_only_paths)?;
        if self.read_only {
            self.root
                .set(
                    Attributes {
                        set: Attributes::READ_ONLY,
                        ..Attributes::default()
                    },
                    false,
                )
                .during("make the root filesystem read-only")?;
        }
        Ok(pair)
    }

    /// Makes the new root the process's root; the old one is out of reach afterwards.
    pub fn switch(&self, mounts: &MountTable) -> Result<(), LaunchError> {
        const STEP: &str = "switch to the root filesystem";
        if let MountTable::Shared(callers) = mounts {
            return self.switch_outside(callers.as_fd()).during(STEP);
        }
        if self.no_pivot {
            let top = directory(Path::new("/")).during(STEP)?;
            if self.attach_at != Path::new("/") {
                // Whoever joins the namespace later begins at its root.
                self.root.attach(top.as_fd()).during(STEP)?;
            }
            rustix::process::fchdir(self.root.as_fd()).during(STEP)?;
            rustix::process::chroot(".").during(STEP)?;
        } else {
            rustix::process::fchdir(self.root.as_fd()).during(STEP)?;
            sys::mount::pivot_to_working_directory()
                .during("switch to the root filesystem (a host whose root is a ramdisk needs --no-pivot)")?;
        }
        if let Some((propagation, whole)) = self.propagation {
            sys::mount::set_propagation(Path::new("/"), propagation, whole)
                .during("set linux.rootfsPropagation")?;
        }
        Ok(())
    }

    /// For a process in the caller's mount namespace: its root is a copy of all that was mounted, which stands in no
    /// table. It lives as long as a process is in it; the namespace in which it was put together goes.
    fn switch_outside(&self, callers: BorrowedFd<'_>) -> std::io::Result<()> {
        let whole = Tree::of(self.root.as_fd(), true)?;
        namespace::join(callers, Kind::Mount)?;
        rustix::process::fchdir(&whole)?;
        Ok(rustix::process::chroot(".")?)
    }

    /// A `/dev` that is somebody else's directory is taken as it is.
    fn sets_up_dev(&self) -> bool {
        !self
            .mounts
            .iter()
            .any(|mount| mount.destination == Path::new("/dev") && mount.options.bind.is_some())
    }

    fn open_terminal(&self, root: BorrowedFd<'_>) -> Result<Pair, LaunchError> {
        let devpts = open_devpts(root)?;
        let pair = sys::terminal::open_in(devpts.as_fd()).during("make a terminal")?;
        let console = target::open_or_make_last(root, Path::new("/dev/console"), target::Kind::File)
            .during("make /dev/console")?;
        let tree = Tree::of(pair.slave.as_fd(), false).during("bind the terminal to /dev/console")?;
        tree.attach(console.as_fd())
            .during("bind the terminal to /dev/console")?;
        Ok(pair)
    }
}

fn directory(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}

/// The root of the devpts instance below `root`; anything else at its place is refused.
pub(crate) fn open_devpts(root: BorrowedFd<'_>) -> Result<OwnedFd, LaunchError> {
    const DEVPTS: u64 = 0x1cd1;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let devpts = sys::beneath::resolve_in_root(root, "/dev/pts", flags, Mode::empty())
        .during("terminal: open /dev/pts")?;
    let fs = rustix::fs::fstatfs(&devpts).during("terminal: /dev/pts")?;
    if fs.f_type as u64 != DEVPTS {
        return Err(LaunchError::Invalid(
            "a terminal needs a devpts filesystem at /dev/pts".to_owned(),
        ));
    }
    Ok(devpts)
}

fn make_cwd(root: BorrowedFd<'_>, cwd: &Path) -> Result<(), LaunchError> {
    match target::open_or_make(root, cwd, target::Kind::Directory) {
        Ok(_) => Ok(()),
        Err(error) => Err(LaunchError::WorkingDirectory {
            path: cwd.display().to_string(),
            reason: if error.kind() == std::io::ErrorKind::NotADirectory {
                "not a directory".to_owned()
            } else {
                reason(&error)
            },
        }),
    }
}
