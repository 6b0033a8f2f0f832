//! What the vertices of a build do: give a base, run a command, copy files, make a working directory, or
//! change nothing but the configuration.
//!
//! A step's result is a [`Tree`]: the snapshot that is the root filesystem from there on. A step that writes
//! works in a writable snapshot on top of its parent's, which is committed in place; no archive is made
//! between steps. When it fails or is stopped, its snapshot is removed.

mod copy;
mod diagnose;
mod digest;
mod files;
mod fresh;
mod layers;
mod mode;
mod mounts;
mod owner;
mod place;
mod root;
mod run;
mod scratch;
mod select;
mod share;
mod workdir;

use std::path::PathBuf;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use image::Images;
use spec::Digest;
use store::{SnapshotId, Store};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cache::{BuildCache, CacheMounts, FileDigests};
use crate::error::BuildError;
use crate::executor::{Executor, Output, Stream};
use crate::history::Part;
use crate::patience::Patience;
use crate::pattern::Ignore;
use crate::report::{Reporter, StepName};
use crate::request::{BuildRequest, BuiltContext};
use crate::solve::{Making, Operation};
use crate::source::Snippet;

pub use copy::{CopyStep, FileSource};
pub use files::FilesStep;
pub use mode::ModeChange;
pub use mounts::forget_private;
pub use run::{PlannedMount, RunPlan, Several};
pub use scratch::{Scratch, mount};
pub use workdir::WorkdirStep;

/// The filesystem after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// `None`: empty, as `FROM scratch`.
    pub snapshot: Option<SnapshotId>,
    /// Whether the step added the topmost layer.
    pub layer: bool,
    /// RFC 3339 time at which the step was first done; part of the history, so it is kept with the result.
    pub created: String,
}

impl Tree {
    /// What is there already, or nothing at all.
    fn given(snapshot: Option<SnapshotId>) -> Tree {
        Tree {
            snapshot,
            layer: false,
            created: now(),
        }
    }
}

/// What the steps of one build share.
pub struct Build {
    pub request: BuildRequest,
    /// Names the build in owners of snapshots.
    pub id: String,
    pub store: Store,
    pub images: Images,
    pub executor: Arc<dyn Executor>,
    pub reporter: Reporter,
    pub cache: Arc<BuildCache>,
    pub file_digests: Arc<FileDigests>,
    pub cache_mounts: Arc<CacheMounts>,
    /// What all builds are making.
    pub making: Arc<Making>,
    /// How many steps may run at a time.
    pub places: usize,
    pub ignore: Ignore,
    /// What the instructions take from the context, known once everything is planned; `None`: all of it.
    pub context_paths: OnceLock<Option<Vec<String>>>,
    /// The context's directory, asked for by the first step that needs it.
    pub context: OnceCell<PathBuf>,
    /// How many commands are neither known to the cache nor begun.
    pub runs_left: AtomicI64,
    /// What is still being noted of it.
    pub settling: Mutex<Option<JoinHandle<()>>>,
}

impl Build {
    /// The directory of the context; waits for the client to send it.
    pub async fn context(&self) -> Result<PathBuf, BuildError> {
        let Some(client) = &self.request.client else {
            return Ok(self.request.context.clone());
        };
        let fetch = async || client.context(self.context_paths.get().cloned().flatten()).await;
        self.context.get_or_try_init(fetch).await.cloned()
    }
}

/// What a vertex does.
pub enum StepKind {
    /// The image a stage starts from; `None` for `scratch`.
    Base(Option<Box<image::Image>>),
    /// What another build made.
    Built(Box<BuiltContext>),
    /// A stage that starts from another one: its only input as it is.
    Stage,
    Run(Box<RunPlan>),
    Copy(Box<CopyStep>),
    Workdir(WorkdirStep),
    /// Only the configuration changes; the digest is over all of it.
    Settings(Digest),
    Files(FilesStep),
    /// The layers of all inputs on top of each other.
    Merge,
    /// What has to be laid over the first input to get the second.
    Difference,
}

/// A vertex of a build's graph. The first input, where there is one, is the filesystem it starts from.
pub struct StepOperation {
    pub build: Arc<Build>,
    pub kind: StepKind,
    pub name: StepName,
    /// Made again whatever the cache knows.
    pub anew: bool,
    pub code: String,
    pub snippet: Snippet,
    /// What it has asked of its client.
    pub patience: Arc<Patience>,
}

impl StepOperation {
    /// What the cache shows about it; `None` for what is not cached.
    pub fn description(&self) -> Option<(&'static str, String)> {
        match self.kind {
            StepKind::Base(_) | StepKind::Built(_) | StepKind::Stage => None,
            _ => Some(("regular", self.code.clone())),
        }
    }

    /// What its result depends on, by name.
    pub async fn parts(&self, inputs: &[Tree]) -> Result<Vec<Part>, BuildError> {
        match &self.kind {
            StepKind::Run(plan) => plan.parts(&self.build).await,
            StepKind::Copy(copy) => copy.parts(&self.build, inputs).await,
            StepKind::Workdir(workdir) => Ok(vec![
                ("directory".to_owned(), workdir.path.clone()),
                ("user".to_owned(), workdir.user.clone()),
            ]),
            StepKind::Settings(digest) => Ok(vec![
                ("instruction".to_owned(), self.code.clone()),
                ("configuration".to_owned(), digest.to_string()),
            ]),
            StepKind::Files(files) => Ok(vec![("changes".to_owned(), files.definition().to_string())]),
            StepKind::Base(_)
            | StepKind::Built(_)
            | StepKind::Stage
            | StepKind::Merge
            | StepKind::Difference => Ok(Vec::new()),
        }
    }

    async fn make(&self, inputs: &[Tree], stop: &CancellationToken) -> Result<Tree, BuildError> {
        match &self.kind {
            StepKind::Base(None) => Ok(Tree::given(None)),
            StepKind::Base(Some(image)) => {
                let (images, image, build) = (self.build.images.clone(), image.clone(), self.build.clone());
                let snapshot = blocking(move || -> Result<Option<SnapshotId>, BuildError> {
                    // An image without layers has no filesystem, like `scratch`.
                    if image.manifest.layers.is_empty() {
                        return Ok(None);
                    }
                    Ok(Some(images.snapshot_for(&image, build.cache.lease())?))
                })
                .await?;
                Ok(Tree::given(snapshot))
            }
            StepKind::Built(built) => Ok(self.take(built)),
            StepKind::Stage => Ok(passed_on(inputs)),
            StepKind::Run(plan) => plan.run(self, inputs, stop).await,
            StepKind::Copy(copy) => copy.run(self, inputs, stop).await,
            StepKind::Workdir(workdir) => workdir.run(self, inputs).await,
            StepKind::Files(files) => files.run(self, inputs).await,
            StepKind::Merge => layers::merge(&self.build, inputs).await,
            StepKind::Difference => {
                let snapshot = |index: usize| inputs.get(index).and_then(|tree| tree.snapshot);
                layers::difference(&self.build, snapshot(0), snapshot(1)).await
            }
            StepKind::Settings(_) => {
                let snapshot = inputs.first().and_then(|parent| parent.snapshot);
                Ok(Tree::given(snapshot))
            }
        }
    }

    /// What another build made.
    fn take(&self, built: &BuiltContext) -> Tree {
        if let Some(snapshot) = built.snapshot {
            self.build.cache.hold(snapshot);
        }
        Tree::given(built.snapshot)
    }

    /// The definition; or the part of it that has to be waited for.
    fn defined(&self) -> Result<Digest, Waits<'_>> {
        Ok(match &self.kind {
            StepKind::Base(None) => Digest::sha256(b"base scratch"),
            StepKind::Base(Some(image)) => {
                let content = image.chain().unwrap_or_else(|| image.config_digest.clone());
                Digest::sha256(format!("base {content} {}", image.platform).as_bytes())
            }
            StepKind::Built(built) => Digest::sha256(format!("built {}", built.identity).as_bytes()),
            StepKind::Stage => Digest::sha256(b"stage"),
            StepKind::Run(plan) => plan.definition_at_once(&self.build).ok_or(Waits::Run(plan))?,
            StepKind::Copy(copy) => return Err(Waits::Copy(copy)),
            StepKind::Workdir(workdir) => workdir.definition(),
            StepKind::Settings(digest) => Digest::sha256(format!("settings {digest}").as_bytes()),
            StepKind::Files(files) => files.definition(),
            StepKind::Merge => Digest::sha256(b"merge 1"),
            StepKind::Difference => Digest::sha256(b"difference 1"),
        })
    }
}

/// What reads something before it can say what it depends on.
enum Waits<'a> {
    Run(&'a RunPlan),
    Copy(&'a CopyStep),
}

/// What a stage hands on that starts from another one.
fn passed_on(inputs: &[Tree]) -> Tree {
    inputs.first().cloned().unwrap_or_else(|| Tree::given(None))
}

impl Operation for StepOperation {
    type Value = Tree;
    type Error = BuildError;

    fn definition(&self) -> BoxFuture<'_, Result<Digest, BuildError>> {
        Box::pin(async move {
            let defined = match self.defined() {
                Ok(defined) => Ok(defined),
                Err(Waits::Run(plan)) => plan.definition(&self.build).await,
                Err(Waits::Copy(copy)) => copy.definition(&self.build).await,
            };
            defined.map_err(|error| error.at(&self.snippet))
        })
    }

    fn definition_at_once(&self) -> Option<Digest> {
        self.defined().ok()
    }

    fn at_once(&self, inputs: &[Tree]) -> Option<Tree> {
        match &self.kind {
            StepKind::Base(Some(image)) if !image.manifest.layers.is_empty() => {
                let here = self.build.images.snapshot_here(image, self.build.cache.lease())?;
                Some(Tree::given(Some(here)))
            }
            StepKind::Base(_) => Some(Tree::given(None)),
            StepKind::Built(built) => Some(self.take(built)),
            StepKind::Stage => Some(passed_on(inputs)),
            _ => None,
        }
    }

    fn contents<'a>(
        &'a self,
        inputs: &'a [Tree],
    ) -> BoxFuture<'a, Result<Option<Vec<Option<Digest>>>, BuildError>> {
        Box::pin(async move {
            match &self.kind {
                StepKind::Copy(copy) => copy
                    .contents(&self.build, inputs)
                    .await
                    .map_err(|error| error.at(&self.snippet)),
                StepKind::Run(plan) => plan
                    .contents(&self.build, inputs)
                    .await
                    .map_err(|error| error.at(&self.snippet)),
                _ => Ok(None),
            }
        })
    }

    fn run<'a>(
        &'a self,
        inputs: &'a [Tree],
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Tree, BuildError>> {
        Box::pin(async move {
            self.build.reporter.begin(&self.name).await;
            self.make(inputs, stop)
                .await
                .map_err(|error| error.at(&self.snippet))
        })
    }

    fn may_be_cached(&self) -> bool {
        !self.anew
    }

    fn takes_place(&self) -> bool {
        matches!(
            self.kind,
            StepKind::Run(_)
                | StepKind::Copy(_)
                | StepKind::Files(_)
                | StepKind::Merge
                | StepKind::Difference
        )
    }

    fn waits(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.build.reporter.begin(&self.name).await;
            let output = Output {
                stream: Stream::Stderr,
                bytes: Bytes::from_static(b"waiting for another build that does the same\n"),
            };
            self.build.reporter.output(&self.name, output).await;
        })
    }

    fn stalls(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.patience.ends())
    }
}

/// The time now as image documents write it.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Runs what blocks on a thread of its own kind.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    tokio::task::spawn_blocking(work).await?
}
