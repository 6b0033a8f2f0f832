//! What is mounted into a container besides its root: binds, volumes, tmpfs and images.
//!
//! Two steps. At creation the wishes of every flag are read into one list of [`PlannedMount`]s, sorted so that
//! a mount never hides one below it, and volumes are made and filled. At each start the plan becomes the
//! bundle's mounts; a source that vanished meanwhile is an error that names it.

mod beneath;
mod bundle;
mod plan;
mod shown;
mod stack;
mod wish;

use serde::{Deserialize, Serialize};
use store::SnapshotId;

use super::ownership::Ownership;

pub(super) use beneath::{beneath, open_beneath};
pub(super) use bundle::bundle;
pub(super) use plan::plan;
pub(super) use shown::{points, show_places};

/// One mount as it will be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedMount {
    pub destination: String,
    pub read_only: bool,
    pub kind: MountKind,
    /// Options as the user wrote them, for `Mode` in inspect.
    #[serde(default)]
    pub mode: String,
    /// Whose its files are.
    #[serde(default)]
    pub ownership: Ownership,
}

/// Where a mount's content comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: String,
        propagation: String,
        recursive: bool,
        create: bool,
        /// Read-only is meant for the mount itself and not for those below it.
        #[serde(default)]
        read_only_top: bool,
        /// A directory or file of the engine's own: who owns it is told in ids of the image, not of the host.
        #[serde(default)]
        own: bool,
    },
    Volume {
        name: String,
        driver: String,
        no_copy: bool,
        subpath: String,
        anonymous: bool,
    },
    Tmpfs {
        options: Vec<String>,
    },
    Image {
        snapshot: SnapshotId,
        name: String,
        subpath: String,
    },
    /// Directories of the engine stacked read-only, for steps of a build.
    Overlay {
        overlay: sys::mount::Overlay,
    },
}
