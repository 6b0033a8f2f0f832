//! Filesystems that are mounted by the caller: those on devices, of the network, and whatever else exists only once.
//!
//! The child could not: the device rules of its control group hold for it already, and in a user namespace the kernel lets
//! nobody bring it the bytes of a filesystem.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use sys::mount::{Attributes, Filesystem, IdMap, Tree};

use super::options::Options;

/// What belongs to a namespace, or is fresh: the child makes it inside.
const INSIDE: [&str; 11] = [
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "mqueue",
    "devpts",
    "cgroup",
    "cgroup2",
    "overlay",
    "fuse",
    "binfmt_misc",
];

/// What a server has, whom the end of the mount may wait for as its beginning does.
const OF_NETWORK: [&str; 7] = ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "afs"];

/// How long a filesystem may take until it is there: longer than a server needs that has much to do, and less than an engine
/// waits for a container.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether a filesystem is for the caller to mount.
pub(super) fn is_made_outside(kind: &str) -> bool {
    !kind.is_empty() && !INSIDE.contains(&kind)
}

pub(super) fn is_of_network(kind: &str) -> bool {
    OF_NETWORK.contains(&kind)
}

/// The mount, with ids translated by the maps of a user namespace if there is one.
pub(super) fn filesystem(
    kind: &str,
    source: &str,
    options: &Options,
    translation: Option<&OwnedFd>,
) -> io::Result<Tree> {
    let fs = Filesystem::new(kind)?;
    fs.string("source", source)?;
    for option in &options.data {
        fs.option(option)?;
    }
    let read_only = if options.read_only() {
        Attributes::READ_ONLY
    } else {
        0
    };
    let tree = fs.mount_within(options.mount_attributes() | read_only, PATIENCE)?;
    if let Some(namespace) = translation {
        let map = IdMap {
            namespace: namespace.as_fd(),
            root: (0, 0),
        };
        map.apply(&tree, false)?;
    }
    Ok(tree)
}
