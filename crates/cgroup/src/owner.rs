//! Giving a group to the user of a container, who may then divide it.
//!
//! The directory and the files that the kernel lists change hands; the limits do not, so that nobody raises his own.
//! Version 1 is left alone: there a group that is given away is a way out (cgroups(7)).
//!
//! Sources: OCI runtime-spec config-linux.md "Cgroup ownership"; cgroups(7) "Cgroups delegation".

use std::io;
use std::path::Path;

use rustix::fs::Uid;

use crate::error::{CgroupError, Result};
use crate::file;
use crate::group::Cgroup;
use crate::hierarchy::Version;

/// Linux 4.15 and newer.
const LIST: &str = "/sys/kernel/cgroup/delegate";
const UNLISTED: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Cgroup {
    /// Makes a version 2 group the user's. In other trees nothing is changed.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        match (self.version(), self.unified()) {
            (Version::V2, Some(directory)) => {
                let list = file::read_optional(Path::new(LIST))?;
                give(&directory, list.as_deref().unwrap_or(UNLISTED), uid)
            }
            _ => Ok(()),
        }
    }
}

/// Not every group has every file of the list.
fn give(directory: &Path, list: &str, uid: u32) -> Result<()> {
    let owner = Some(Uid::from_raw(uid));
    let files = list.lines().map(|name| directory.join(name.trim()));
    for path in std::iter::once(directory.to_owned()).chain(files) {
        match rustix::fs::chown(&path, owner, None).map_err(io::Error::from) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(CgroupError::io("give away", &path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn only_what_is_listed_changes_hands() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return;
        }
        let group = tempfile::tempdir().unwrap();
        for name in ["cgroup.procs", "cgroup.threads", "memory.max"] {
            fs::write(group.path().join(name), "").unwrap();
        }
        give(group.path(), UNLISTED, 4321).unwrap();
        let owner = |name: &str| fs::metadata(group.path().join(name)).unwrap().uid();
        assert_eq!(
            ["", "cgroup.procs", "cgroup.threads", "memory.max"].map(owner),
            [4321, 4321, 4321, 0]
        );
    }
}
