//! `/sys/fs/cgroup` as a container sees it.
//!
//! Version 2: with a cgroup namespace of its own, a fresh mount of the hierarchy, which shows the namespace's
//! root; without one, the container's directory bound. Version 1: a small tmpfs with one directory per
//! hierarchy, each the container's own directory there, and links for controllers that share a hierarchy.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use cgroup::{Cgroup, Version};
use rustix::fs::{CWD, Mode};
use sys::mount::{Attributes, Filesystem, Propagation, Tree};

#[derive(Debug)]
pub(crate) enum CgroupView {
    /// Mounted by the child.
    Unified,
    /// One tree.
    Bound(Tree),
    /// Directory name, tree, and further names of the same hierarchy.
    Hierarchies(Vec<(String, Tree, Vec<String>)>),
}

impl CgroupView {
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            CgroupView::Unified => Vec::new(),
            CgroupView::Bound(tree) => vec![tree.as_fd()],
            CgroupView::Hierarchies(list) => list.iter().map(|(_, tree, _)| tree.as_fd()).collect(),
        }
    }
}

pub(crate) fn prepare(cgroup: Option<&Cgroup>, new_namespace: bool) -> io::Result<CgroupView> {
    let Some(cgroup) = cgroup else {
        let host = Tree::open(CWD, Path::new("/sys/fs/cgroup"), true)?;
        make_private(&host)?;
        return Ok(CgroupView::Bound(host));
    };
    if cgroup.version() == Version::V2 {
        if new_namespace {
            return Ok(CgroupView::Unified);
        }
        let Some(only) = cgroup.paths().into_iter().next() else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the host has no cgroup hierarchy",
            ));
        };
        let tree = Tree::open(CWD, &only.directory, false)?;
        make_private(&tree)?;
        return Ok(CgroupView::Bound(tree));
    }
    let mut hierarchies = Vec::new();
    for path in cgroup.paths() {
        let Some(name) = path.mount_point.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let tree = Tree::open(CWD, &path.directory, false)?;
        make_private(&tree)?;
        let others = path
            .controllers
            .iter()
            .filter(|other| *other != name)
            .cloned()
            .collect();
        hierarchies.push((name.to_owned(), tree, others));
    }
    Ok(CgroupView::Hierarchies(hierarchies))
}

fn make_private(tree: &Tree) -> io::Result<()> {
    tree.set(
        Attributes {
            propagation: Some(Propagation::Private),
            ..Attributes::default()
        },
        true,
    )
}

/// In the child: puts the view over `target` with these attribute bits (read-only among them), and with this propagation
/// of all of it or of its top.
pub(crate) fn attach(
    view: &CgroupView,
    target: BorrowedFd<'_>,
    attributes: u64,
    propagation: Option<(Propagation, bool)>,
) -> io::Result<()> {
    let propagate = |top: &Tree| match propagation {
        None => Ok(()),
        Some((propagation, whole)) => top.set(
            Attributes {
                propagation: Some(propagation),
                ..Attributes::default()
            },
            whole,
        ),
    };
    let set = Attributes {
        set: attributes,
        ..Attributes::default()
    };
    match view {
        CgroupView::Unified => {
            let tree = Filesystem::new("cgroup2")?.mount(attributes)?;
            tree.attach(target)?;
            propagate(&tree)
        }
        CgroupView::Bound(tree) => {
            tree.set(set, true)?;
            tree.attach(target)?;
            propagate(tree)
        }
        CgroupView::Hierarchies(list) => {
            let fs = Filesystem::new("tmpfs")?;
            fs.string("mode", "755")?;
            let top = fs.mount(attributes & !Attributes::READ_ONLY)?;
            top.attach(target)?;
            for (name, tree, others) in list {
                rustix::fs::mkdirat(&top, name.as_str(), Mode::from_raw_mode(0o755))?;
                let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
                let place = rustix::fs::openat(&top, name.as_str(), flags, Mode::empty())?;
                tree.set(set, false)?;
                tree.attach(place.as_fd())?;
                for other in others {
                    match rustix::fs::symlinkat(name.as_str(), &top, other.as_str()) {
                        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            top.set(set, false)?;
            propagate(&top)
        }
    }
}
