//! A container's files behind a descriptor, whether it runs or not, with its volumes and binds where it has them.
//!
//! Of a living container it is the root of its first process. Of any other its layers are stacked in a mount that no
//! mount table shows; where volumes or binds belong on top of them, that happens in a mount namespace nobody is in,
//! which is gone with the descriptor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use image::archive::Ids;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use sys::beneath::{resolve_dir_in_root, resolve_in_root};
use sys::mount::{Attributes, Propagation, Tree};
use sys::namespace::{self, Kind};

use super::mounts::{MountKind, PlannedMount};
use super::{Container, mounts};
use crate::engine::Inner;
use crate::error::{Error, Result};
use crate::selinux;

/// The root directory of a container.
pub(crate) struct Root {
    dir: OwnedFd,
    /// The maps by which owners are translated, where the container runs in a user namespace.
    ids: Option<Ids>,
    /// What is mounted below the root is there as long as this is.
    _namespace: Option<OwnedFd>,
}

impl Root {
    pub(crate) fn ids(&self) -> Option<&Ids> {
        self.ids.as_ref()
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

impl Inner {
    /// The container's root.
    pub(crate) fn root_of(&self, container: &Container) -> Result<Root> {
        if container.state.status.is_alive() {
            let path = format!("/proc/{}/root", container.state.pid);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = rustix::fs::open(&path, flags, Mode::empty())
                .map_err(|error| Error::internal(format!("cannot open {path}: {error}")))?;
            let ids = ids_of(container.state.pid)
                .map_err(|error| Error::internal(format!("cannot read the container's id maps: {error}")))?;
            return Ok(Root {
                dir,
                ids,
                _namespace: None,
            });
        }
        let layers = self
            .store
            .snapshots()
            .overlay(container.snapshot)?
            .mount_detached()?;
        let mut sources = Vec::new();
        for mount in &container.plan {
            if let Some(source) = source(self, mount, container)? {
                sources.push((mount, source));
            }
        }
        if sources.is_empty() {
            return Ok(Root {
                dir: layers,
                ids: None,
                _namespace: None,
            });
        }
        let (namespace, mounted) = namespace::create_with(Kind::Mount, || stack(layers, sources, container))?;
        Ok(Root {
            dir: mounted?,
            ids: None,
            _namespace: Some(namespace),
        })
    }
}

/// The maps of a process that is in a user namespace of its own.
fn ids_of(pid: i32) -> std::io::Result<Option<Ids>> {
    let (theirs, own) = (
        namespace::open(Some(pid), Kind::User)?,
        namespace::open(None, Kind::User)?,
    );
    if namespace::same(theirs, own)? {
        return Ok(None);
    }
    let (uids, gids) = namespace::maps_of(pid)?;
    Ok(Some(Ids { uids, gids }))
}

/// The directory or file of the host that a mount of a container shows. What exists only while the container runs has
/// none, and neither has a bind whose source is not there.
fn source(engine: &Inner, mount: &PlannedMount, container: &Container) -> Result<Option<Source>> {
    let (base, below) = match &mount.kind {
        MountKind::Bind { source, .. } => (source.into(), ""),
        MountKind::Volume { name, subpath, .. } => {
            let Ok(volume) = engine.volumes.get(name) else {
                return Ok(None);
            };
            if volume.driver == volume::LOCAL && volume.options.contains_key("device") {
                // No start mounts a part of it.
                if !subpath.is_empty() {
                    return Ok(None);
                }
                let label = selinux::shared(&container.mount_label);
                return Ok(engine.volumes.tree(&volume, &label)?.map(Source::Mounted));
            }
            let place = engine.volumes.place(name, Some(container.id.as_str()));
            if place.as_os_str().is_empty() {
                // A plugin's, which is mounted for those who run.
                return Ok(None);
            }
            (place, subpath.as_str())
        }
        MountKind::Tmpfs { .. } | MountKind::Image { .. } | MountKind::Overlay { .. } => return Ok(None),
    };
    let path = mounts::beneath(&base, below)?;
    Ok(Path::new(&path).exists().then(|| Source::Path {
        path,
        base,
        below: below.to_owned(),
    }))
}

/// A mount's content.
enum Source {
    /// Where it is on the host.
    Path {
        path: String,
        base: PathBuf,
        /// The part of the path that others may write to.
        below: String,
    },
    /// What the options of a volume mount.
    Mounted(Tree),
}

impl Source {
    /// For messages.
    fn shown(&self, mount: &PlannedMount) -> String {
        match (self, &mount.kind) {
            (Source::Path { path, .. }, _) => path.clone(),
            (Source::Mounted(_), MountKind::Volume { name, .. }) => format!("volume {name}"),
            (Source::Mounted(_), _) => String::new(),
        }
    }

    fn is_directory(&self) -> std::io::Result<bool> {
        match self {
            Source::Path { path, .. } => Ok(Path::new(path).is_dir()),
            Source::Mounted(tree) => {
                let mode = rustix::fs::fstat(tree)?.st_mode;
                Ok(FileType::from_raw_mode(mode) == FileType::Directory)
            }
        }
    }

    fn tree(self) -> std::io::Result<Tree> {
        match self {
            Source::Path { path, below, .. } if below.is_empty() => Tree::open(CWD, Path::new(&path), true),
            Source::Path { base, below, .. } => Tree::of(mounts::open_beneath(&base, &below)?.as_fd(), true),
            Source::Mounted(tree) => Ok(tree),
        }
    }
}

/// What to mount on; made where it is missing, as the start would.
fn target(root: BorrowedFd<'_>, destination: &Path, directory: bool) -> std::io::Result<OwnedFd> {
    let mut at = PathBuf::from("/");
    let mut names = destination.iter().skip(1).peekable();
    while let Some(name) = names.next() {
        let above = resolve_dir_in_root(root, &at)?;
        at.push(name);
        if resolve_in_root(root, &at, OFlags::PATH, Mode::empty()).is_ok() {
            continue;
        }
        if directory || names.peek().is_some() {
            rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&above, name, flags, Mode::from_raw_mode(0o644))?;
        }
    }
    resolve_in_root(root, &at, OFlags::PATH, Mode::empty())
}

/// Runs inside the new namespace.
fn stack(layers: OwnedFd, sources: Vec<(&PlannedMount, Source)>, container: &Container) -> Result<OwnedFd> {
    // Nothing that happens here is to be seen elsewhere.
    sys::mount::set_propagation(Path::new("/"), Propagation::Private, true)?;
    let place = rustix::fs::open(
        &container.files.dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| Error::internal(format!("cannot open {}: {error}", container.files.dir.display())))?;
    let root = Tree::from_fd(layers);
    root.attach(place.as_fd())?;
    for (mount, source) in sources {
        let destination = Path::new(&mount.destination);
        let shown = source.shown(mount);
        let failed = |error: std::io::Error| {
            Error::invalid(format!("cannot mount {shown} at {}: {error}", mount.destination))
        };
        let target = target(root.as_fd(), destination, source.is_directory().map_err(failed)?)
            .map_err(|error| Error::invalid(format!("cannot mount at {}: {error}", mount.destination)))?;
        let tree = source.tree().map_err(failed)?;
        let read_only = if mount.read_only { Attributes::READ_ONLY } else { 0 };
        tree.set(
            Attributes {
                set: read_only,
                propagation: Some(Propagation::Private),
                ..Attributes::default()
            },
            true,
        )?;
        tree.attach(target.as_fd()).map_err(failed)?;
    }
    Ok(root.into_fd())
}
