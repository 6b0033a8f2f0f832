//! Containers: one task owns each ([`owner`]); everyone else reads the snapshot it publishes.
//!
//! ```text
//!             start            exit                     remove
//!  Created ──────────> Running ────> Exited ──────────────────────> (gone)
//!                      │  ▲   ╲        │ ▲                  ▲
//!                pause ▼  │    ╲       │ │ policy           │
//!                     Paused    ╲──> Restarting ────────────┘
//! ```
//!
//! Invariants: a snapshot that is published is also in the database; the database never holds a container
//! whose writable snapshot was not made; a name belongs to one container from before its creation until after
//! its removal.

mod age;
mod archive;
mod attach;
mod clocks;
mod commit;
mod create;
mod defaults;
mod devices;
mod exec;
mod files;
mod frozen;
mod health;
mod init_layer;
mod isolation;
mod launch;
mod limits;
mod links;
mod list;
mod logs;
mod mounts;
mod oci;
mod owner;
mod ownership;
mod ports;
mod propagation;
mod prune;
mod record;
mod registry;
mod remove;
mod restart;
mod root;
mod seccomp;
mod security;
mod served;
mod stats;
mod step;
mod stop;
mod stuck;
mod supervision;
mod top;
mod unheard;
mod update;
mod user;
mod userns;
mod wait;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_types::{ContainerConfig, EndpointSettings, Health, HostConfig, MountPoint, PortMap};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use spec::runtime::Resources;
use spec::{Digest, Id, Platform};
use store::SnapshotId;

use crate::userns::IdMaps;

pub use archive::{ArchivePut, ByteStream};
pub use attach::{AttachOptions, Attachment};
pub use commit::CommitContainer;
pub use create::{CreateContainer, Created};
pub use exec::{Exec, ExecStart};
pub(crate) use frozen::Holds;
pub use logs::{LogOptions, LogStream, Logs, check_log_settings};
pub use mounts::{MountKind, PlannedMount};
pub use ownership::{Owners, Ownership};
pub use prune::Pruned;
pub use remove::RemoveOptions;
pub use stats::Sizes;
pub use step::{Step, StepOutput};
pub use wait::{WaitCondition, WaitOutcome};

pub(crate) use archive::{Incoming, stream};
pub(crate) use exec::Execs;
pub(crate) use launch::{clear_after_monitor, netns_of};
pub(crate) use limits::settle as settle_limits;
pub(crate) use logs::keep_to_budget;
pub(crate) use owner::{EXIT_UNKNOWN, Handle, adopt, read_exit_record, tell_end};
pub(crate) use ports::reconcile as reconcile_ports;
pub(crate) use record::{Records, mounted_layers};
pub(crate) use registry::Registry;
pub(crate) use remove::remove_parts;
pub(crate) use restart::wants_start_with_daemon;
pub(crate) use stats::{sizes, total_memory};
pub(crate) use step::Steps;
pub(crate) use supervision::Supervision;

/// Where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl Status {
    /// The word the API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Removing => "removing",
            Status::Exited => "exited",
            Status::Dead => "dead",
        }
    }

    /// Whether a process of the container lives (a paused one does).
    pub fn is_alive(self) -> bool {
        matches!(self, Status::Running | Status::Paused)
    }
}

/// The changing part of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    pub status: Status,
    /// The first process as the host numbers it; 0 when none lives.
    pub pid: i32,
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why the last start failed, if it did.
    pub error: String,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    /// As it was when its status last changed, for the next daemon.
    #[serde(default)]
    pub health: Option<Health>,
}

/// The files the engine keeps for a container on the host.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Files {
    /// `<root>/containers/<id>`.
    pub dir: PathBuf,
    /// Empty until the first start, like the three below.
    pub hosts: String,
    pub hostname: String,
    pub resolv_conf: String,
    pub log: String,
}

/// One container as published by its owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Container {
    pub id: Id,
    /// Without the slash the API puts before it.
    pub name: String,
    pub created: Timestamp,
    /// The program and its arguments, from entrypoint and command.
    pub path: String,
    pub args: Vec<String>,
    /// The image as the user named it.
    pub image: String,
    /// The image's target.
    pub image_id: Digest,
    /// The configuration it was made with; unknown of containers of older engines.
    #[serde(default)]
    pub image_config: Option<Digest>,
    /// Descriptor of the platform's manifest.
    pub manifest: Option<spec::image::Descriptor>,
    pub platform: Platform,
    /// This and the next are shared by all snapshots that are published: they are large, and few requests change them.
    pub config: Arc<ContainerConfig>,
    pub host_config: Arc<HostConfig>,
    pub state: State,
    pub restart_count: i64,
    pub networks: BTreeMap<String, EndpointSettings>,
    /// Hardware addresses that were asked for, by network; `networks` has those of this moment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fixed_macs: BTreeMap<String, String>,
    /// Ports as they are really published while the container runs.
    pub ports: Arc<PortMap>,
    pub mounts: Vec<MountPoint>,
    #[serde(skip)]
    pub exec_ids: Vec<String>,
    /// Since when the monitor does not answer, if it does not.
    #[serde(skip)]
    pub silent_since: Option<Timestamp>,
    pub sandbox_id: String,
    pub files: Files,
    pub snapshot: SnapshotId,
    /// Ids that no other container has, for as long as this one is there.
    #[serde(default)]
    pub userns: Option<IdMaps>,
    /// SELinux labels of its processes and of its files; empty without SELinux.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub process_label: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mount_label: String,
    /// The AppArmor profile of its processes, as of the last start; empty without AppArmor.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// How often the first process has ended; tells waiters of the next exit from the last one.
    pub exits: u64,
    /// Set in the last snapshot a container ever publishes.
    #[serde(skip)]
    pub removed: bool,
    /// Everything mounted besides the root, ordered for mounting.
    pub plan: Vec<mounts::PlannedMount>,
    /// Stopped by a person: restart policies leave it alone.
    pub stopped_by_hand: bool,
    /// Where the time of the last start went, in order.
    #[serde(skip)]
    pub start_phases: Vec<(&'static str, Duration)>,
    /// Whether a removal that has begun takes the anonymous volumes with it.
    #[serde(default)]
    pub removing_volumes: bool,
    /// In a document alone; see [`record`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folded: Option<Box<record::Folded>>,
    /// Limits that an update was about to write, and that hold in part or all, unless the update is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<Resources>,
}

impl Container {
    /// The ID of its image, as users know it.
    pub fn shown_image(&self, ids: image::ImageIds) -> &Digest {
        match ids {
            image::ImageIds::Manifest => &self.image_id,
            image::ImageIds::Config => self.image_config.as_ref().unwrap_or(&self.image_id),
        }
    }

    /// The attributes events about this container carry: labels, image and name.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.config.labels.as_map().clone();
        attributes.insert("image".to_owned(), self.image.clone());
        attributes.insert("name".to_owned(), self.name.clone());
        attributes
    }

    /// The error for commands that need a running container.
    pub(crate) fn not_running(&self) -> crate::Error {
        crate::Error::conflict(format!("container {} is not running", self.id))
    }

    /// Whether the engine gives this container endpoints on its networks.
    pub(crate) fn has_endpoints(&self) -> bool {
        let mode = self.host_config.network_mode.as_str();
        mode != "host" && mode != "none" && !mode.starts_with("container:")
    }
}
