//! The domain: containers, execs, images, networks, volumes and events, and the rules between them.
//!
//! A request comes in through a method of [`Engine`]; what it changes is stored before it is told; what is
//! told can be read from a published snapshot without waiting for anyone. Nothing here knows of HTTP.
//!
//! - One task owns one container ([`container`]); no lock is held over I/O.
//! - Slow kernel work runs on the blocking pool.
//! - Errors carry a class and Docker's words.

mod activity;
mod apparmor;
mod blobs;
pub mod cdi;
mod check;
mod clock;
mod container;
mod distribution;
mod engine;
mod error;
mod events;
pub mod filters;
mod hello;
mod images;
mod inside;
mod live;
mod metrics;
mod names;
mod networks;
mod recover;
mod selinux;
mod signal;
mod space;
mod system;
pub mod userns;
mod volumes;

pub use activity::{Activities, Activity};
pub use container::{
    ArchivePut, AttachOptions, Attachment, ByteStream, CommitContainer, Container, CreateContainer, Created,
    Exec, ExecStart, LogOptions, LogStream, Logs, MountKind, Owners, Ownership, PlannedMount, Pruned,
    RemoveOptions, Sizes, State, Status, Step, StepOutput, WaitCondition, WaitOutcome, check_log_settings,
};
pub use distribution::{ManifestAt, ManifestPush};
pub use engine::{Engine, EngineConfig, check_cgroup_parent};
pub use error::{Error, Result};
pub use events::{EventFilter, matches as event_matches};
pub use filters::{Filters, parse_duration, parse_time};
pub use images::{ImagesPruned, ImportImage};
pub use live::LiveConfig;
pub use metrics::Metrics;
pub use system::{API_VERSION, DiskUsage, MIN_API_VERSION};
pub use volumes::snapshot::VolumeSnapshot;
pub use volumes::trash::{DEFAULT_TTL as DEFAULT_VOLUME_TRASH_TTL, TrashedVolume};
pub use {cgroup, image, monitor, network, registry, store, volume};

use error::from_classed;

from_classed!(
    cgroup::CgroupError,
    image::ImageError,
    image::archive::ArchiveError,
    image::layer::LayerError,
    network::Error,
    store::DbError,
    store::OpenError,
    store::RemoveError,
    store::SnapshotError,
    volume::VolumeError,
);
