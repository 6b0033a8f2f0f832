//! The names a daemon takes on the host, derived from its root directory, so that two daemons with different
//! roots never meet: cgroup parent, default bridge, nftables table, run directory.

use std::path::{Path, PathBuf};

use crate::Digest;

/// The default root directory.
const DEFAULT_ROOT: &str = "/var/lib/berth";

/// One daemon's identity on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `berth` for the default root, otherwise `berth-` and six hexadecimal digits of the root's digest.
    pub tag: String,
}

impl Instance {
    /// The instance of a root directory. The path should be absolute; equal paths give equal names.
    pub fn of_root(root: &Path) -> Instance {
        if root == Path::new(DEFAULT_ROOT) {
            return Instance {
                tag: "berth".to_owned(),
            };
        }
        let digest = Digest::sha256(root.as_os_str().as_encoded_bytes());
        Instance {
            tag: format!("berth-{}", &digest.hex()[..6]),
        }
    }

    /// The default root directory of the engine.
    pub fn default_root() -> PathBuf {
        PathBuf::from(DEFAULT_ROOT)
    }

    /// The name of the default network's bridge; at most 15 bytes (the kernel's IFNAMSIZ less one).
    pub fn default_bridge(&self) -> String {
        if self.tag == "berth" {
            "berth0".to_owned()
        } else {
            self.tag.clone()
        }
    }

    /// Sockets and monitor state; gone at reboot.
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run").join(&self.tag)
    }

    /// The cgroup below which the containers' groups are made.
    pub fn cgroup_parent(&self) -> String {
        format!("/{}", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_never_meet() {
        let default = Instance::of_root(Path::new("/var/lib/berth"));
        let other = Instance::of_root(Path::new("/tmp/a"));
        assert_eq!(default.default_bridge(), "berth0");
        assert_ne!(default.tag, other.tag);
        assert_ne!(other.tag, Instance::of_root(Path::new("/tmp/b")).tag);
        assert!(other.default_bridge().len() <= 15);
    }
}
