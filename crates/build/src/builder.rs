//! The builder: one build from request to image, and the cache that all builds share.
//!
//! ```text
//!   parse ──> stages ──> images (fetched if missing) ──> plan ──> solve ──> export ──> names
//!   └──────── mistakes are found here, before anything runs ────────┘
//! ```

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::future::BoxFuture;
use image::{Image, Images};
use spec::{ErrorClass, Id, Platform};
use store::{Roots, Store};
use tokio::sync::mpsc;

use crate::cache::{
    self, BuildCache, CacheEntry, CacheMounts, CachePolicy, FileDigests, PruneOptions, Pruned, cache_roots,
};
use crate::error::{BuildError, advice};
use crate::exchange::{CacheExport, CacheTarget};
use crate::executor::Executor;
use crate::export;
use crate::graph::Stages;
use crate::history::{self, BuildRow, Place, Recorder};
use crate::pattern::Ignore;
use crate::plan::{self, Arguments, Bases, Plan, Planner};
use crate::prepared::Prepared;
use crate::recipe::{self, Action, Recipe};
use crate::report::Reporter;
use crate::request::{BuildEvent, BuildRequest};
use crate::solution::Solution;
use crate::solve::{Conditions, Done, Graph, Making, Observer, Outcome, SolveError, VertexId, Wanted, solve};
use crate::step::{Build, FileSource, StepKind, StepOperation, Tree, forget_private};
use crate::tally::{self, Tally};
use crate::transcript::StepNumber;

/// Builds images. Clones share the cache, and make equal steps once at a time.
#[derive(Clone)]
pub struct Builder {
    pub(crate) images: Images,
    store: Store,
    executor: Arc<dyn Executor>,
    file_digests: Arc<FileDigests>,
    cache_mounts: Arc<CacheMounts>,
    making: Arc<Making>,
    policy: Arc<CachePolicy>,
    tally: Tally,
    /// How many steps of a build may run at a time.
    places: usize,
}

impl Builder {
    /// A builder on `store`, whose cache it keeps from garbage collection.
    pub fn new(images: Images, store: Store, executor: Arc<dyn Executor>) -> Result<Builder, BuildError> {
        store.db().migrate("build", cache::STEPS)?;
        store.db().migrate("build_history", history::STEPS)?;
        cache::forget_torn(&store)?;
        cache::forget_unnoted(&store)?;
        store.snapshots().doubt_with(Arc::new(cache::forget_doubted));
        if let Err(error) = forget_private(&store) {
            tracing::warn!(%error, "files of steps that a killed daemon left in memory are still there");
        }
        images.keep_also(|tx| {
            Ok(Roots {
                snapshots: cache_roots(tx)?,
                ..Roots::default()
            })
        });
        Ok(Builder {
            images,
            store,
            executor,
            file_digests: Arc::default(),
            cache_mounts: Arc::default(),
            making: Arc::default(),
            policy: Arc::default(),
            tally: Tally::default(),
            places: std::thread::available_parallelism().map_or(2, |count| count.get().max(2)),
        })
    }

    /// The same builder, whose cache keeps to `policy` after every build.
    pub fn with_policy(mut self, policy: CachePolicy) -> Builder {
        self.policy = Arc::new(policy);
        self
    }

    /// The same builder, whose builds are counted.
    pub fn counted_by(mut self, counter: Arc<tally::Counter>) -> Builder {
        self.tally = Tally::new(counter);
        self
    }

    /// Whom those tell of a build who drive it step by step. [`Builder::build`] tells by itself.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Has the cache keep to its policy. What a build uses now stays.
    pub async fn keep_to_policy(&self) -> Result<Pruned, BuildError> {
        let mut all = Pruned::default();
        let (used, free) = match rustix::fs::statvfs(self.store.root()) {
            Ok(disk) => (
                disk.f_blocks
                    .saturating_sub(disk.f_bfree)
                    .saturating_mul(disk.f_frsize),
                disk.f_bavail.saturating_mul(disk.f_frsize),
            ),
            // Only the cache's own limits are left.
            Err(_) => (u64::MAX, u64::MAX),
        };
        if !self.policy.may_be_due(used, free) {
            return Ok(all);
        }
        let entries = self.disk_usage().await?;
        let used = entries
            .iter()
            .filter(|entry| !entry.shared)
            .map(|entry| entry.size)
            .sum();
        for options in self.policy.due(used, free) {
            let pruned = self.prune(options).await?;
            all.bytes += pruned.bytes;
            all.ids.extend(pruned.ids);
        }
        Ok(all)
    }

    /// Builds an image. Mistakes that show without running anything are returned before anything is said.
    pub async fn build(
        &self,
        request: BuildRequest,
        output: mpsc::Sender<BuildEvent>,
    ) -> Result<Image, BuildError> {
        let counted = self.tally.begin();
        let built = match self.prepare(request).await {
            Ok(prepared) => self.run(prepared, output).await,
            Err(error) => Err(error),
        };
        match &built {
            Ok(_) => counted.done(),
            Err(error) => counted.failed(&error.to_string(), matches!(error, BuildError::Cancelled)),
        }
        built
    }

    /// Reads and checks the Dockerfile, so that a mistake can be answered before a stream is begun.
    pub async fn prepare(&self, request: BuildRequest) -> Result<Prepared, BuildError> {
        let images = self.images.clone();
        tokio::task::spawn_blocking(move || Prepared::read(&images, request)).await?
    }

    /// Builds what was prepared, makes an image of it and gives it its names.
    pub async fn run(
        &self,
        prepared: Prepared,
        output: mpsc::Sender<BuildEvent>,
    ) -> Result<Image, BuildError> {
        let image = self.run_to_image(prepared, output).await;
        self.steps_left().await;
        image
    }

    async fn run_to_image(
        &self,
        mut prepared: Prepared,
        output: mpsc::Sender<BuildEvent>,
    ) -> Result<Image, BuildError> {
        let targets = std::mem::take(&mut prepared.request.cache_targets);
        prepared.request.cache_export = CacheTarget::most(&targets);
        self.read_caches(&mut prepared.request, &output).await?;
        let solution = Arc::new(self.solve(prepared, output.clone()).await?);
        let made = self.write_caches(&solution, &targets, &output).await;
        if let Ok(image) = &made {
            let reporter = &solution.build().reporter;
            reporter.say(BuildEvent::Image(image.shown.clone())).await;
            let text = format!("Successfully built {}\n", image.shown.short());
            reporter.say(BuildEvent::Text(text)).await;
            for tag in &solution.build().request.tags {
                let text = format!("Successfully tagged {}\n", tag.or_latest().familiar());
                reporter.say(BuildEvent::Text(text)).await;
            }
        }
        if let Some(settling) = solution.settling() {
            let _ = settling.await;
        }
        made
    }

    /// Waits until nothing is left of the steps that have ended by now.
    pub async fn steps_left(&self) {
        self.executor.settle().await;
    }

    /// Does all that was prepared; what comes of it is the caller's choice. Something may be left of the last steps, which goes
    /// while the caller works: [`Builder::steps_left`] waits for it.
    pub async fn solve(
        &self,
        prepared: Prepared,
        output: mpsc::Sender<BuildEvent>,
    ) -> Result<Solution, BuildError> {
        let Prepared {
            request,
            file,
            stages,
            bases,
            target,
            needed,
            arguments,
            ignore,
            findings: _,
        } = prepared;
        let stop = request.stop.clone();
        // Whoever drops the build wants it to end.
        let stop_when_dropped = stop.clone().drop_guard();
        let codes = codes(&stages, &needed, target, &request);
        let build = self.begin(request, codes, ignore, output);
        for warning in &file.warnings {
            build
                .reporter
                .say(BuildEvent::ErrorText(format!("{warning}\n")))
                .await;
        }
        if let Some(transcript) = build.reporter.transcript() {
            transcript.begin().await;
            for number in 0..stages.global.len() {
                transcript.finish(StepNumber(number)).await;
            }
        }
        if build.request.explain {
            build.reporter.hand(BuildEvent::Reference(build.id.clone())).await;
        }
        let first = stages.global.len();
        let bases = async {
            let wanted = plan::wanted_images(&build, &stages, &bases, &needed, &arguments, first)?;
            Bases::get_all(&build, wanted).await
        };
        // Nobody needs it before there is a plan.
        let recorder = recorder(&build, &stages, &needed, target);
        let (bases, recorder) = tokio::join!(bases, recorder);
        let recorder = match recorder {
            Ok(recorder) => Some(Arc::new(recorder)),
            Err(error) => {
                tracing::warn!(%error, "this build will not be remembered");
                None
            }
        };
        let result = match bases {
            Ok(bases) => {
                let planner = Planner::new(&build, &stages, arguments, bases);
                run(&build, planner, &needed, target, first, recorder.clone()).await
            }
            Err(error) => Err(error),
        };
        let error = result.as_ref().err().map(ToString::to_string);
        let result = self
            .settle(&build, recorder.map(|recorder| (recorder, error)), result)
            .await;
        match result {
            Ok((plan, done)) => {
                stop_when_dropped.disarm();
                Ok(Solution::new(build, plan, target, done))
            }
            Err(_) if stop.is_cancelled() => {
                build
                    .reporter
                    .say(BuildEvent::Text("Build cancelled\n".to_owned()))
                    .await;
                Err(BuildError::Cancelled)
            }
            Err(error) => {
                if let (Some(snippet), false) = (error.snippet(), matches!(error, BuildError::Dockerfile(_)))
                {
                    build
                        .reporter
                        .say(BuildEvent::Text(format!("{snippet}\n{}", advice(error.hints()))))
                        .await;
                }
                Err(error)
            }
        }
    }

    /// Does what a recipe says. Of the request what counts is how steps are run and what is told about them.
    pub async fn solve_recipe(
        &self,
        recipe: Recipe,
        request: BuildRequest,
        output: mpsc::Sender<BuildEvent>,
    ) -> Result<Solution, BuildError> {
        let stop = request.stop.clone();
        let stop_when_dropped = stop.clone().drop_guard();
        let allowed = request.allowed();
        if let Some(word) = recipe
            .operations
            .iter()
            .find_map(|operation| operation.lacks(allowed))
        {
            return Err(BuildError::invalid(format!(
                "{word} is not allowed for this build: allow it with --allow {word}"
            )));
        }
        let build = self.begin(request, Vec::new(), Ignore::default(), output);
        let result = self.run_recipe(&build, &recipe).await;
        match self.settle(&build, None, result).await {
            Ok((plan, done)) => {
                stop_when_dropped.disarm();
                Ok(Solution::new(build, plan, 0, done))
            }
            Err(_) if stop.is_cancelled() => Err(BuildError::Cancelled),
            Err(error) => Err(error),
        }
    }

    async fn run_recipe(
        &self,
        build: &Arc<Build>,
        recipe: &Recipe,
    ) -> Result<(Plan, Done<Tree>), BuildError> {
        let host = Platform::host();
        let platform = build.request.platform.clone().unwrap_or_else(Platform::host);
        let arguments = Arguments::new(&build.request.build_args, &host, &platform, None);
        let images = recipe
            .operations
            .iter()
            .enumerate()
            .filter_map(|(number, operation)| {
                let Action::Image { name, pull } = &operation.action else {
                    return None;
                };
                let platform = operation.platform.clone().unwrap_or_else(|| platform.clone());
                Some(async move {
                    if let Some(guest) = build.request.guest(name) {
                        return Ok::<_, BuildError>((number, guest));
                    }
                    let auth = match (&build.request.client, spec::Reference::parse_normalized(name)) {
                        (Some(client), Ok(name)) => client.login(name.domain()).await,
                        _ => None,
                    };
                    let found = tokio::select! {
                        found = self.image(name, Some(&platform), *pull, auth) => found?,
                        () = build.request.stop.cancelled() => return Err(BuildError::Cancelled),
                    };
                    Ok((number, found))
                })
            });
        let images = futures_util::future::try_join_all(images).await?;
        let plan = recipe::plan(build, recipe, images.into_iter().collect(), arguments)?;
        work(build, plan, 0, None).await
    }

    /// What the steps of one build share.
    fn begin(
        &self,
        request: BuildRequest,
        codes: Vec<String>,
        ignore: Ignore,
        output: mpsc::Sender<BuildEvent>,
    ) -> Arc<Build> {
        Arc::new(Build {
            reporter: Reporter::new(request.narration, codes, output),
            cache: Arc::new(BuildCache::new(
                &self.store,
                &self.images,
                request.cache_imports.clone(),
            )),
            id: Id::random().short().to_owned(),
            store: self.store.clone(),
            images: self.images.clone(),
            executor: self.executor.clone(),
            file_digests: self.file_digests.clone(),
            cache_mounts: self.cache_mounts.clone(),
            making: self.making.clone(),
            places: self.places,
            ignore,
            request,
            context_paths: Default::default(),
            context: Default::default(),
            runs_left: Default::default(),
            settling: Default::default(),
        })
    }

    /// Nothing runs for a build any more: what it used, and how it ended, is noted, and the cache keeps to its limits. Where
    /// there is a result, that goes on while it is used ([`Solution::settling`]).
    async fn settle<T>(
        &self,
        build: &Arc<Build>,
        ended: Option<(Arc<Recorder>, Option<String>)>,
        result: Result<T, BuildError>,
    ) -> Result<T, BuildError> {
        build.reporter.close();
        let (builder, noting) = (self.clone(), build.clone());
        let settling = tokio::spawn(async move { builder.note(noting, ended).await });
        match result {
            Ok(result) => {
                *build.settling.lock().unwrap_or_else(PoisonError::into_inner) = Some(settling);
                Ok(result)
            }
            Err(error) => {
                let _ = settling.await;
                Err(error)
            }
        }
    }

    async fn note(&self, build: Arc<Build>, ended: Option<(Arc<Recorder>, Option<String>)>) {
        let note = move || match ended {
            Some((recorder, error)) => build.cache.note_used(|tx| recorder.end(tx, error.as_deref())),
            None => build.cache.note_used(|_| Ok(())),
        };
        if let Err(error) = tokio::task::spawn_blocking(note)
            .await
            .unwrap_or_else(|error| Err(error.into()))
        {
            tracing::warn!(%error, "what a build did and used of the cache is not remembered");
        }
        if let Err(error) = self.keep_to_policy().await {
            tracing::warn!(%error, "the build cache may take more than it should");
        }
    }

    /// An image by its name: the one that is here, or its registry's.
    pub async fn image(
        &self,
        name: &str,
        platform: Option<&Platform>,
        pull: bool,
        auth: Option<image::Auth>,
    ) -> Result<Image, BuildError> {
        if !pull {
            let (images, asked, wanted) = (self.images.clone(), name.to_owned(), platform.cloned());
            let found = tokio::task::spawn_blocking(move || match &wanted {
                Some(wanted) => images.resolve_platform(&asked, Some(wanted)),
                None => images.resolve(&asked),
            });
            if let Ok(image) = found.await? {
                return Ok(image);
            }
        }
        let reference = spec::Reference::parse_normalized(name)
            .map_err(|error| BuildError::invalid(format!("failed to parse image name \"{name}\": {error}")))?
            .or_latest();
        let (progress, mut events) = mpsc::channel(1);
        let pull = self.executor.pull(&reference, platform, auth.as_ref(), progress);
        let drain = async { while events.recv().await.is_some() {} };
        Ok(tokio::join!(pull, drain).0?)
    }

    /// The builds that are remembered, newest first.
    pub async fn builds(&self) -> Result<Vec<BuildRow>, BuildError> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || history::builds(&store)).await?
    }

    /// What differs between two builds, a line each. They are named by their ids or by names of their images.
    pub async fn compare(&self, first: &str, second: &str) -> Result<Vec<String>, BuildError> {
        let (store, first, second) = (self.store.clone(), first.to_owned(), second.to_owned());
        tokio::task::spawn_blocking(move || history::diff(&store, &first, &second)).await?
    }

    /// Everything that takes room in the cache.
    pub async fn disk_usage(&self) -> Result<Vec<CacheEntry>, BuildError> {
        let (store, images, busy) = (self.store.clone(), self.images.clone(), self.cache_mounts.busy());
        tokio::task::spawn_blocking(move || cache::disk_usage(&store, &images, &busy)).await?
    }

    /// How many bytes are free on the filesystem of the cache.
    pub fn free_bytes(&self) -> u64 {
        cache::free(&self.store)
    }

    /// Takes parts of the cache away and frees what they alone kept.
    pub async fn prune(&self, options: PruneOptions) -> Result<Pruned, BuildError> {
        let (store, images, busy) = (self.store.clone(), self.images.clone(), self.cache_mounts.busy());
        tokio::task::spawn_blocking(move || cache::prune(&store, &images, &options, &busy)).await?
    }
}

/// The lines of all steps, in the order of their numbers.
fn codes(stages: &Stages, needed: &[bool], target: usize, request: &BuildRequest) -> Vec<String> {
    let mut codes: Vec<String> = stages
        .global
        .iter()
        .map(|statement| statement.code.clone())
        .collect();
    for (index, stage) in stages.stages.iter().enumerate() {
        if !needed.get(index).copied().unwrap_or(false) {
            continue;
        }
        codes.push(stage.statement.code.clone());
        codes.extend(stage.body.iter().map(|statement| statement.code.clone()));
        if index == target {
            let labels = plan::label_statements(&request.labels, &stage.statement);
            codes.extend(labels.into_iter().map(|statement| statement.code));
        }
    }
    codes
}

/// Begins to remember a build.
async fn recorder(
    build: &Arc<Build>,
    stages: &Stages,
    needed: &[bool],
    target: usize,
) -> Result<Recorder, BuildError> {
    let mut places: Vec<Place> = vec![Place::default(); stages.global.len()];
    for (index, stage) in stages.stages.iter().enumerate() {
        if !needed.get(index).copied().unwrap_or(false) {
            continue;
        }
        let name = stage.from.name.clone().unwrap_or_else(|| index.to_string());
        let labels = if index == target {
            build.request.labels.len()
        } else {
            0
        };
        places.extend((0..=stage.body.len() + labels).map(|ordinal| Place {
            stage: name.clone(),
            ordinal,
        }));
    }
    let tags: Vec<String> = build
        .request
        .tags
        .iter()
        .map(|tag| tag.or_latest().familiar())
        .collect();
    let row = BuildRow {
        reference: build.id.clone(),
        dockerfile: build.request.dockerfile.clone(),
        target: build.request.target.clone().unwrap_or_default(),
        tags: tags.join(" "),
        ..BuildRow::default()
    };
    let (store, no_cache) = (build.store.clone(), build.request.no_cache);
    tokio::task::spawn_blocking(move || Recorder::begin(&store, &row, places, no_cache)).await?
}

async fn run(
    build: &Arc<Build>,
    planner: Planner<'_>,
    needed: &[bool],
    target: usize,
    first: usize,
    recorder: Option<Arc<Recorder>>,
) -> Result<(Plan, Done<Tree>), BuildError> {
    let plan = planner.plan(needed, target, first).await?;
    let (plan, done) = work(build, plan, target, recorder).await?;
    for name in plan.arguments.secret_names() {
        let text = format!(
            "[Warning] The build argument {name} looks like a secret, and the image's history shows it: use RUN --mount=type=secret,id={name}\n"
        );
        build.reporter.say(BuildEvent::ErrorText(text)).await;
    }
    let unused = plan.arguments.unused();
    if !unused.is_empty() {
        let text = format!(
            "[Warning] One or more build-args [{}] were not consumed\n",
            unused.join(" ")
        );
        build.reporter.say(BuildEvent::ErrorText(text)).await;
    }
    Ok((plan, done))
}

/// Does what was planned.
async fn work(
    build: &Arc<Build>,
    plan: Plan,
    target: usize,
    recorder: Option<Arc<Recorder>>,
) -> Result<(Plan, Done<Tree>), BuildError> {
    let values = export::needed(&plan, target)?;
    let Plan {
        graph,
        stages: planned,
        spoken,
        arguments,
        images,
        is_recipe,
    } = plan;
    let targets: Vec<VertexId> = spoken.iter().map(|spoken| spoken.vertex).collect();
    let numbers: HashMap<VertexId, plan::Spoken> = spoken
        .iter()
        .map(|spoken| (spoken.vertex, spoken.clone()))
        .collect();
    let _ = build.context_paths.set(context_paths(&graph, &targets));
    let runs = targets.iter().filter(|target| is_run(&graph, **target)).count();
    build
        .runs_left
        .store(i64::try_from(runs).unwrap_or(i64::MAX), Ordering::Relaxed);
    let graph = Arc::new(graph);
    let conditions = Conditions {
        cache: build.cache.clone(),
        use_cache: !build.request.no_cache,
        observer: Arc::new(Speaker {
            build: build.clone(),
            numbers: numbers.clone(),
            graph: graph.clone(),
            recorder,
        }),
        making: build.making.clone(),
        places: build.places,
        stop: build.request.stop.clone(),
    };
    let wanted = Wanted {
        targets: &targets,
        values: &values,
        // What is not needed here is exported all the same.
        fetch_rest: build.request.cache_export == CacheExport::Max,
    };
    let solved = solve(graph.clone(), wanted, conditions).await;
    for text in build.cache.complaints() {
        build.reporter.warn(text).await;
    }
    let done = match solved {
        Ok(done) => done,
        Err(SolveError::Stopped) => return Err(BuildError::Cancelled),
        Err(SolveError::Failed(vertex, error)) => {
            if let (Some(spoken), Some(transcript)) = (numbers.get(&vertex), build.reporter.transcript()) {
                transcript.reveal(spoken.name.number).await;
            }
            return Err(error);
        }
        Err(SolveError::Broken(vertex)) => {
            let code = graph
                .operation(vertex)
                .map(|step| step.code.clone())
                .unwrap_or_default();
            let message = format!("the builder failed in: {code}");
            return Err(BuildError::Engine {
                message,
                class: ErrorClass::Internal,
            });
        }
    };
    let plan = Plan {
        graph: Graph::default(),
        stages: planned,
        spoken,
        arguments,
        images,
        is_recipe,
    };
    Ok((plan, done))
}

fn is_run(graph: &Graph<StepOperation>, vertex: VertexId) -> bool {
    let operation = graph.operation(vertex);
    operation.is_some_and(|step| matches!(step.kind, StepKind::Run(_)))
}

/// What all steps take from the context; `None` for all of it.
fn context_paths(graph: &Graph<StepOperation>, targets: &[VertexId]) -> Option<Vec<String>> {
    let mut paths = Vec::new();
    for step in targets.iter().filter_map(|target| graph.operation(*target)) {
        match &step.kind {
            StepKind::Copy(copy) if copy.from == FileSource::Context => paths.extend(copy.sources.clone()),
            StepKind::Run(run) => paths.extend(run.context_paths()),
            _ => {}
        }
    }
    let mut paths: Vec<String> = paths.iter().map(|path| crate::pattern::clean(path)).collect();
    paths.sort();
    paths.dedup();
    (!paths.iter().any(String::is_empty)).then_some(paths)
}

/// Says how each step ended.
struct Speaker {
    build: Arc<Build>,
    numbers: HashMap<VertexId, plan::Spoken>,
    graph: Arc<Graph<StepOperation>>,
    recorder: Option<Arc<Recorder>>,
}

impl Observer<StepOperation> for Speaker {
    fn settled<'a>(&'a self, vertex: VertexId, outcome: &'a Outcome<Tree, BuildError>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let reporter = &self.build.reporter;
            let spoken = self.numbers.get(&vertex);
            let known = matches!(outcome, Outcome::Cached(_) | Outcome::Merged(_));
            if known && is_run(&self.graph, vertex) {
                self.build.runs_left.fetch_sub(1, Ordering::Relaxed);
            }
            if let Some(recorder) = &self.recorder
                && let Some(explained) = recorder.settled(&self.graph, vertex, outcome).await
                && self.build.request.explain
            {
                if let Some(spoken) = spoken.filter(|_| !explained.hit) {
                    reporter.reason(&spoken.name, &explained.reason).await;
                }
                reporter.hand(BuildEvent::Explained(explained)).await;
            }
            let Some(spoken) = spoken else {
                return;
            };
            let (cached, failure) = match outcome {
                Outcome::Made(_) => (false, None),
                Outcome::Cached(_) | Outcome::Merged(_) => (true, None),
                Outcome::Failed(error) => (false, Some(error.clone())),
                Outcome::Stopped => (false, Some(BuildError::Cancelled)),
            };
            // What was given up before it began is not heard of.
            if !matches!(outcome, Outcome::Stopped) || reporter.has_begun(&spoken.name) {
                reporter.end(&spoken.name, cached && !spoken.from, failure).await;
            }
            let identity = match outcome {
                Outcome::Made(solved) => &solved.identity,
                Outcome::Cached(seen) | Outcome::Merged(seen) => &seen.identity,
                Outcome::Failed(_) | Outcome::Stopped => return,
            };
            let Some(transcript) = reporter.transcript() else {
                return;
            };
            let number = spoken.name.number;
            if cached && !spoken.from {
                transcript.text(number, " ---> Using cache\n").await;
            }
            transcript
                .text(number, format!(" ---> {}\n", identity.short()))
                .await;
            transcript.finish(number).await;
        })
    }
}
