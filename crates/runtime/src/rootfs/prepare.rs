//! The caller's half of the mounts: sources are opened, checked and given their attributes before the clone.
//!
//! A source is a path of the host and is looked up with the caller's rights and in the caller's namespaces; what
//! the child gets is a detached tree behind a descriptor. Filesystems that belong to a namespace (proc, sysfs,
//! mqueue, devpts, cgroup) and fresh ones (tmpfs) are made by the child, inside; others by the caller (`outside`).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use cgroup::Cgroup;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use spec::runtime::{Linux, Mount, Spec};
use sys::mount::{Attributes, IdMap, Propagation, Tree};
use sys::namespace::{self, Kind};

use super::cgroups::{self, CgroupView};
use super::mapped::{self, Spare};
use super::options::{self, Options};
use super::outside;
use crate::error::{During, LaunchError, reason};
use crate::launch::{ExtraMount, RootFs};
use crate::namespaces::{MountTable, Namespaces};

/// Everything about the container's view of files that the child needs.
#[derive(Debug)]
pub(crate) struct RootfsPlan {
    pub root: Tree,
    pub read_only: bool,
    /// Where the root is mounted until it is switched to.
    pub attach_at: PathBuf,
    pub propagation: Option<(Propagation, bool)>,
    pub mounts: Vec<Prepared>,
    pub devices: Vec<spec::runtime::Device>,
    pub spares: Vec<Spare>,
    pub masked: Vec<PathBuf>,
    pub read_only_paths: Vec<PathBuf>,
    /// The root is changed by chroot(2).
    pub no_pivot: bool,
    /// The SELinux label of the files of what is mounted for the container alone (`linux.mountLabel`).
    pub label: Option<String>,
    /// The network namespace is someone else's: a user namespace of ours may not mount sysfs then.
    pub sysfs_by_bind: bool,
}

/// One mount, ready to be made.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub destination: PathBuf,
    /// For messages.
    pub source_name: String,
    pub options: Options,
    pub source: Source,
    /// A server has the filesystem.
    pub of_network: bool,
}

#[derive(Debug)]
pub(crate) enum Source {
    /// A bind: the tree has all its attributes but those that may still change below.
    Tree {
        tree: Tree,
        directory: bool,
    },
    Filesystem {
        kind: String,
    },
    Cgroup(CgroupView),
}

impl Prepared {
    pub fn error(&self, reason: String) -> LaunchError {
        mount_error(&self.source_name, &self.destination, self.options.told(reason))
    }

    pub fn filesystem(&self) -> Option<&str> {
        match &self.source {
            Source::Filesystem { kind } => Some(kind),
            _ => None,
        }
    }
}

fn mount_error(source: &str, destination: &Path, reason: String) -> LaunchError {
    LaunchError::Mount {
        source_name: source.to_owned(),
        destination: destination.display().to_string(),
        reason,
    }
}

pub(crate) struct Request<'a> {
    pub spec: &'a Spec,
    pub linux: &'a Linux,
    pub bundle: &'a Path,
    pub rootfs: RootFs<'a>,
    pub cgroup: Option<&'a Cgroup>,
    pub namespaces: &'a Namespaces,
    pub hooks_wait: bool,
    pub init: Option<BorrowedFd<'a>>,
    pub extra: &'a [ExtraMount<'a>],
    pub no_pivot: bool,
}

impl Request<'_> {
    fn label(&self) -> Option<&str> {
        Some(self.linux.mount_label.as_str()).filter(|label| !label.is_empty())
    }
}

impl RootfsPlan {
    pub fn new(request: &Request<'_>) -> Result<RootfsPlan, LaunchError> {
        let (root, attach_at) = root(request)?;
        let mut mounts = Vec::new();
        let mut spares = Vec::new();
        for mount in &request.spec.mounts {
            mounts.push(prepare(mount, request, &mut spares)?);
        }
        for extra in request.extra {
            mounts.push(by_descriptor(extra)?);
        }
        if let Some(source) = request.init {
            let destination = Path::new("/sbin/docker-init");
            mounts.push(by_descriptor(&ExtraMount {
                source,
                destination,
                read_only: true,
            })?);
        }
        let propagation = match request.linux.rootfs_propagation.as_str() {
            "" => None,
            _ if matches!(request.namespaces.mounts(), MountTable::Shared(_)) => {
                return Err(LaunchError::Invalid(
                    "linux.rootfsPropagation needs a mount namespace (linux.namespaces)".to_owned(),
                ));
            }
            word => Some(options::propagation(word).ok_or_else(|| {
                LaunchError::Invalid(format!("linux.rootfsPropagation: {word:?} is no propagation"))
            })?),
        };
        Ok(RootfsPlan {
            root,
            read_only: request.spec.root.as_ref().is_some_and(|root| root.readonly),
            attach_at,
            propagation,
            mounts,
            devices: request.linux.devices.clone(),
            spares,
            masked: request.linux.masked_paths.iter().map(PathBuf::from).collect(),
            read_only_paths: request.linux.readonly_paths.iter().map(PathBuf::from).collect(),
            no_pivot: request.no_pivot,
            label: request.label().map(str::to_owned),
            sysfs_by_bind: request.namespaces.has_user() && request.namespaces.foreign_network(),
        })
    }

    /// Takes out the mounts of filesystems that servers have. The child has its own handles of them.
    pub fn take_of_network(&mut self) -> Vec<Tree> {
        let mounts = std::mem::take(&mut self.mounts);
        let (taken, left): (Vec<Prepared>, Vec<Prepared>) =
            mounts.into_iter().partition(|mount| mount.of_network);
        self.mounts = left;
        let trees = taken.into_iter().filter_map(|mount| match mount.source {
            Source::Tree { tree, .. } => Some(tree),
            Source::Filesystem { .. } | Source::Cgroup(_) => None,
        });
        trees.collect()
    }

    /// The descriptors that must survive into the child.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.root.as_fd()];
        for mount in &self.mounts {
            match &mount.source {
                Source::Tree { tree, .. } => fds.push(tree.as_fd()),
                Source::Cgroup(view) => fds.extend(view.fds()),
                Source::Filesystem { .. } => {}
            }
        }
        fds
    }
}

/// The directory that a bundle has for its root.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, LaunchError> {
    let step = format!("root.path {}", path.display());
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).during(&step)?;
    let stat = rustix::fs::fstat(&directory).during(&step)?;
    let why = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => return Ok(directory),
        FileType::Symlink => "a symbolic link: name the directory that it leads to",
        _ => "no directory",
    };
    Err(LaunchError::Invalid(format!("{step} is {why}")))
}

fn root(request: &Request<'_>) -> Result<(Tree, PathBuf), LaunchError> {
    let (tree, place) = match request.rootfs {
        RootFs::Path(path) => {
            let tree = Tree::of(open_root(path)?.as_fd(), true);
            let tree = tree.during(&format!("root filesystem {}", path.display()))?;
            (tree, Some(path.to_owned()))
        }
        RootFs::Overlay(overlay) => {
            let mut overlay = overlay.clone();
            overlay.label = overlay.label.or_else(|| request.label().map(str::to_owned));
            let mounted = match request.namespaces.id_map() {
                Some(map) => overlay.mount_mapped(map),
                None => overlay.mount_detached(),
            };
            let fd: OwnedFd = mounted.during("mount the root filesystem")?;
            let place = request.bundle.join("rootfs");
            (Tree::from_fd(fd), place.is_dir().then_some(place))
        }
    };
    tree.set(
        Attributes {
            propagation: Some(Propagation::Private),
            ..Attributes::default()
        },
        true,
    )
    .during("root filesystem")?;
    // Hooks of the caller expect the root at the path that the configuration names. Nobody else needs a path, and in
    // a namespace that is joined the path may lead elsewhere.
    let joined = matches!(request.namespaces.mounts(), MountTable::Joined(_));
    let attach_at = match place {
        Some(place) if request.hooks_wait && !request.namespaces.has_user() && !joined => place,
        _ => PathBuf::from("/"),
    };
    Ok((tree, attach_at))
}

fn prepare(mount: &Mount, request: &Request<'_>, spares: &mut Vec<Spare>) -> Result<Prepared, LaunchError> {
    // A relative one is an old way of writing.
    let destination = Path::new("/").join(&mount.destination);
    let mut options = Options::parse(mount);
    if let Some(label) = request.label() {
        options.label(mount.r#type.as_deref().unwrap_or_default(), label);
    }
    let kind = mount.r#type.clone().unwrap_or_default();
    let source_name = mount.source.clone().unwrap_or_else(|| kind.clone());
    let failed = |error: std::io::Error| {
        let reason = options.told(reason(&error));
        mount_error(&source_name, &mount.destination, reason)
    };
    let translation = mapped::translation(mount, &options, request.namespaces)?;
    let source = match options.bind {
        Some(recursive) => {
            let path = mount.source.as_deref().ok_or_else(|| {
                LaunchError::Invalid(format!(
                    "mounts: the bind at {} has no source",
                    mount.destination.display()
                ))
            })?;
            let tree = bind(&request.bundle.join(path), recursive, &options).map_err(failed)?;
            if let Some(namespace) = &translation {
                let map = IdMap {
                    namespace: namespace.as_fd(),
                    root: (0, 0),
                };
                map.apply(&tree, options.idmap == Some(true)).map_err(failed)?;
            }
            whole_or_part(tree)?
        }
        None if kind == "overlay" && translation.is_some() => {
            let map = request.namespaces.id_map().ok_or_else(|| {
                let why = "an overlay is translated for a joined user namespace only";
                LaunchError::Unsupported(format!("mounts: {}: {why}", mount.destination.display()))
            })?;
            let tree = mapped::overlay(&options, Some(map)).map_err(failed)?;
            set_own_attributes(&tree, &options).map_err(failed)?;
            whole_or_part(tree)?
        }
        None if kind == "overlay" && mapped::is_for_us(&options) => {
            let tree = mapped::overlay(&options, None).map_err(failed)?;
            set_own_attributes(&tree, &options).map_err(failed)?;
            whole_or_part(tree)?
        }
        None if outside::is_made_outside(&kind) => {
            let made = outside::filesystem(&kind, &source_name, &options, translation.as_ref());
            let tree = made.map_err(failed)?;
            set_own_attributes(&tree, &options).map_err(failed)?;
            Source::Tree {
                tree,
                directory: true,
            }
        }
        None if translation.is_some() => {
            return Err(LaunchError::Invalid(format!(
                "mounts: {}: what is mounted there cannot be id-mapped",
                mount.destination.display()
            )));
        }
        None if kind == "tmpfs"
            && destination == Path::new("/dev")
            && request.namespaces.has_user()
            && !options.read_only() =>
        {
            match mapped::dev(&options, &request.linux.devices, request.namespaces)? {
                Some((tree, waiting)) => {
                    set_own_attributes(&tree, &options).map_err(failed)?;
                    spares.extend(waiting);
                    Source::Tree {
                        tree,
                        directory: true,
                    }
                }
                None => Source::Filesystem { kind },
            }
        }
        None if kind == "cgroup" || kind == "cgroup2" => Source::Cgroup(
            cgroups::prepare(request.cgroup, request.namespaces.is_new(Kind::Cgroup))
                .map_err(|error| mount_error(&source_name, &mount.destination, reason(&error)))?,
        ),
        None if kind.is_empty() => {
            return Err(LaunchError::Invalid(format!(
                "mounts: {} has neither a type nor the option bind",
                mount.destination.display()
            )));
        }
        None => Source::Filesystem { kind },
    };
    Ok(Prepared {
        of_network: options.bind.is_none()
            && outside::is_of_network(mount.r#type.as_deref().unwrap_or_default()),
        destination,
        source_name,
        options,
        source,
    })
}

fn bind(source: &Path, recursive: bool, options: &Options) -> std::io::Result<Tree> {
    if let Some(base) = &options.beneath {
        let tree = bind_beneath(base, source, recursive)?;
        set_bind_attributes(&tree, options)?;
        return Ok(tree);
    }
    let tree = match Tree::open(CWD, source, recursive) {
        // The kernel copies mounts of the caller's own namespace only.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => match of_process(source) {
            Some((pid, path)) => from_process(pid, path, recursive)?,
            None => return Err(error),
        },
        result => result?,
    };
    set_bind_attributes(&tree, options)?;
    Ok(tree)
}

/// A source in a directory that others write to while this happens (a volume): what was looked at before may be a link
/// by now, so it is found and copied by descriptors, and nothing leads out.
fn bind_beneath(base: &Path, source: &Path, recursive: bool) -> std::io::Result<Tree> {
    let below = source
        .strip_prefix(base)
        .map_err(|_| std::io::Error::other(format!("it is not in {}", base.display())))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let base = rustix::fs::open(base, flags, Mode::empty())?;
    let found = sys::beneath::open_beneath(base.as_fd(), below, OFlags::PATH, Mode::empty())?;
    Tree::of(found.as_fd(), recursive)
}

/// The process and the path below its root, of a source like `/proc/PID/root/dev/shm`.
fn of_process(source: &Path) -> Option<(i32, &Path)> {
    let below = source.strip_prefix("/proc").ok()?;
    let mut parts = below.components();
    let pid = parts.next()?.as_os_str().to_str()?.parse().ok()?;
    (parts.next()?.as_os_str() == "root").then_some((pid, parts.as_path()))
}

/// A mount of another container, copied in its mount namespace. Links there stay below its root.
fn from_process(pid: i32, path: &Path, recursive: bool) -> std::io::Result<Tree> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty())?;
    let source = sys::beneath::resolve_in_root(root.as_fd(), path, OFlags::PATH, Mode::empty())?;
    let namespace = namespace::open(Some(pid), Kind::Mount)?;
    namespace::in_namespace(namespace.as_fd(), Kind::Mount, || {
        Tree::of(source.as_fd(), recursive)
    })?
}

/// What the options say of the mount of a filesystem of its own.
fn set_own_attributes(tree: &Tree, options: &Options) -> std::io::Result<()> {
    let read_only = if options.read_only() {
        Attributes::READ_ONLY
    } else {
        0
    };
    let (propagation, whole) = match options.propagation {
        Some((propagation, whole)) => (Some(propagation), whole),
        None => (None, false),
    };
    tree.set(
        Attributes {
            set: options.mount_attributes() | read_only,
            propagation,
            ..Attributes::default()
        },
        whole,
    )
}

/// All attributes of a bind mount. Without a word about propagation it hears of the host's mounts but tells
/// nothing back.
fn set_bind_attributes(tree: &Tree, options: &Options) -> std::io::Result<()> {
    let (propagation, whole) = options.propagation.unwrap_or((Propagation::Slave, true));
    tree.set(
        Attributes {
            set: options.set_all,
            clear: options.clear_all,
            propagation: whole.then_some(propagation),
            ..Attributes::default()
        },
        true,
    )?;
    tree.set(
        Attributes {
            set: options.set,
            clear: options.clear,
            propagation: (!whole).then_some(propagation),
            ..Attributes::default()
        },
        false,
    )
}

fn by_descriptor(extra: &ExtraMount<'_>) -> Result<Prepared, LaunchError> {
    let name = "(descriptor)";
    // A copy where the kernel makes one; of a mount that is in no namespace it does so only from Linux 6.15 on,
    // and there the mount itself is used up.
    let tree = Tree::of(extra.source, true)
        .or_else(|_| extra.source.try_clone_to_owned().map(Tree::from_fd))
        .map_err(|error| mount_error(name, extra.destination, reason(&error)))?;
    let set = if extra.read_only { Attributes::READ_ONLY } else { 0 };
    let attributes = Attributes {
        set,
        propagation: Some(Propagation::Private),
        ..Attributes::default()
    };
    tree.set(attributes, true)
        .map_err(|error| mount_error(name, extra.destination, reason(&error)))?;
    let directory = is_directory(&tree).during("mount source")?;
    Ok(Prepared {
        destination: extra.destination.to_owned(),
        source_name: name.to_owned(),
        options: Options::default(),
        source: Source::Tree { tree, directory },
        of_network: false,
    })
}

fn whole_or_part(tree: Tree) -> Result<Source, LaunchError> {
    let directory = is_directory(&tree).during("mount source")?;
    Ok(Source::Tree { tree, directory })
}

fn is_directory(tree: &Tree) -> std::io::Result<bool> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_does_not_lead_a_source_out_of_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("volume");
        std::fs::create_dir_all(base.join("sub")).unwrap();
        std::os::unix::fs::symlink("/etc", base.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", base.join("relative")).unwrap();
        std::os::unix::fs::symlink("sub", base.join("inside")).unwrap();
        for out in ["absolute", "relative", "sub/../../volume"] {
            let refused = bind_beneath(&base, &base.join(out), true).unwrap_err();
            assert_eq!(
                refused.raw_os_error(),
                Some(rustix::io::Errno::XDEV.raw_os_error()),
                "{out}"
            );
        }
        assert!(bind_beneath(&base, Path::new("/etc"), true).is_err());
        if rustix::process::geteuid().is_root() {
            bind_beneath(&base, &base.join("inside"), true).unwrap();
        } else {
            println!("skipped in part: copying a mount needs root");
        }
    }
}
