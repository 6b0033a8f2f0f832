//! What the builder asks of the engine: run one step in a container, and get an image.
//!
//! Contract of [`Executor::run`]: the step's writable snapshot is the root filesystem; its parents are never
//! written. When the future ends, no process of the step runs, nothing is mounted, and all output was sent.
//! When `stop` is cancelled the step is killed and the future ends soon with any result. An exit code other
//! than 0 is a result, not an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use image::{Auth, Image, Progress};
use spec::{ErrorClass, Id, Platform, Reference};
use store::SnapshotId;
use sys::mount::Overlay;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// A piece of a step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub stream: Stream,
    pub bytes: bytes::Bytes,
}

/// The network of a step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NetworkMode {
    /// The engine's default bridge.
    #[default]
    Default,
    None,
    Host,
    /// A network by name, or `container:ID`.
    Named(String),
}

impl NetworkMode {
    /// Reads the words of the API.
    pub fn parse(text: &str) -> NetworkMode {
        match text {
            "" | "default" | "bridge" => NetworkMode::Default,
            "none" => NetworkMode::None,
            "host" => NetworkMode::Host,
            other => NetworkMode::Named(other.to_owned()),
        }
    }
}

/// What is mounted by a bind mount.
#[derive(Debug, Clone, PartialEq)]
pub enum MountSource {
    /// A directory or file of the host.
    Path(PathBuf),
    /// Several directories as one, to be mounted as overlayfs inside the step's own mount namespace.
    Overlay(Overlay),
}

/// Something a step sees that is not part of its snapshot. `target` is absolute; where it does not exist it is
/// made and, as far as it stayed empty, removed again by the builder.
#[derive(Debug, Clone, PartialEq)]
pub enum StepMount {
    Bind {
        source: MountSource,
        target: String,
        read_only: bool,
    },
    /// A directory of the builder that outlives the step.
    Cache {
        source: PathBuf,
        target: String,
        read_only: bool,
    },
    Tmpfs {
        target: String,
        size: Option<u64>,
    },
    /// A file on the host, in memory, with mode and owner already set.
    Secret {
        source: PathBuf,
        target: String,
    },
}

impl StepMount {
    /// Where it appears.
    pub fn target(&self) -> &str {
        match self {
            StepMount::Bind { target, .. }
            | StepMount::Cache { target, .. }
            | StepMount::Tmpfs { target, .. }
            | StepMount::Secret { target, .. } => target,
        }
    }
}

/// A limit on a step's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// Limits that every step of a build runs under; 0 and empty mean none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    pub memory: i64,
    pub memory_swap: i64,
    pub cpu_shares: i64,
    pub cpu_period: i64,
    pub cpu_quota: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub cgroup_parent: String,
    pub ulimits: Vec<Ulimit>,
}

/// One RUN.
#[derive(Debug, Clone)]
pub struct RunStep {
    /// 64 hexadecimal digits, like a container's.
    pub id: String,
    /// The writable snapshot that is the root filesystem.
    pub snapshot: SnapshotId,
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Absolute; made where it does not exist.
    pub cwd: String,
    /// As USER says it: name or number, perhaps with a group.
    pub user: String,
    pub hostname: String,
    pub network: NetworkMode,
    /// Without the confinement of containers.
    pub privileged: bool,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    pub mounts: Vec<StepMount>,
    /// Bytes, 0 for the default.
    pub shm_size: i64,
    pub limits: Limits,
    pub labels: BTreeMap<String, String>,
    pub platform: Platform,
    /// Whether the build has more of them to run, as far as is known.
    pub more: bool,
    pub stop: CancellationToken,
}

/// A step could not be run at all.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ExecError {
    pub message: String,
    pub class: ErrorClass,
}

impl ExecError {
    pub fn new(message: impl Into<String>, class: ErrorClass) -> ExecError {
        ExecError {
            message: message.into(),
            class,
        }
    }

    /// Which kind of failure this is for a client.
    pub fn class(&self) -> ErrorClass {
        self.class
    }
}

/// Runs steps and gets images for the builder.
pub trait Executor: Send + Sync + 'static {
    /// Runs a step to its end; the result is its exit code.
    fn run(&self, step: RunStep, output: mpsc::Sender<Output>) -> BoxFuture<'_, Result<i32, ExecError>>;

    /// The id of a step that is about to run.
    fn step_id(&self) -> Id {
        Id::random()
    }

    /// Waits until nothing is left of the steps that have ended. A step may be cleared away while the next one runs.
    fn settle(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Gets an image from its registry, with the client's login for it if there is one.
    fn pull<'a>(
        &'a self,
        reference: &'a Reference,
        platform: Option<&'a Platform>,
        auth: Option<&'a Auth>,
        progress: Progress,
    ) -> BoxFuture<'a, Result<Image, ExecError>>;
}
