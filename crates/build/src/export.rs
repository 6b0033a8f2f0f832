//! From the last step to an image: configuration, history, layers.
//!
//! The same steps give the same image: times are those at which the steps were first done, which the cache
//! keeps, or the one that `SOURCE_DATE_EPOCH` says.

use std::sync::Arc;

use image::{CommitLayers, Image};
use jiff::Timestamp;
use spec::image::{History, ImageConfig};
use spec::{ErrorClass, Platform, Reference};
use store::SnapshotId;

use crate::error::BuildError;
use crate::exchange;
use crate::plan::{Plan, PlannedStep, StageBase, StagePlan};
use crate::relayer::Relayer;
use crate::request::BuiltContext;
use crate::solve::{Results, VertexId};
use crate::step::{Build, Tree};

/// Keys of a base image's configuration that are about how the base was made.
const FORGOTTEN: [&str; 6] = [
    "container",
    "container_config",
    "docker_version",
    "parent",
    "moby.buildkit.buildinfo.v1",
    exchange::INLINE,
];

/// Everything below the target, down to the image it starts from.
struct Ancestry<'p> {
    base: Option<&'p Image>,
    base_plan: &'p StagePlan,
    steps: Vec<&'p PlannedStep>,
}

impl Ancestry<'_> {
    /// What another build made, where that is what it starts from.
    fn built(&self) -> Option<&BuiltContext> {
        match &self.base_plan.base {
            StageBase::Built(built) => Some(built),
            _ => None,
        }
    }
}

fn missing() -> BuildError {
    BuildError::Engine {
        message: "a stage of the build was not planned".into(),
        class: ErrorClass::Internal,
    }
}

fn ancestry(plan: &Plan, target: usize) -> Result<Ancestry<'_>, BuildError> {
    let stage = |index: usize| {
        plan.stages
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(missing)
    };
    let mut current = stage(target)?;
    let mut chain = vec![current];
    let base = loop {
        match &current.base {
            StageBase::Scratch | StageBase::Built(_) => break None,
            StageBase::Image(image) => break Some(image.as_ref()),
            StageBase::Stage(index) => {
                current = stage(*index)?;
                chain.push(current);
            }
        }
    };
    let steps = chain.iter().rev().flat_map(|stage| stage.steps.iter()).collect();
    Ok(Ancestry {
        base,
        base_plan: current,
        steps,
    })
}

/// The vertices whose results an image of the stage `target` is made of.
pub fn needed(plan: &Plan, target: usize) -> Result<Vec<VertexId>, BuildError> {
    let found = ancestry(plan, target)?;
    let mut needed: Vec<VertexId> = found.steps.iter().map(|step| step.vertex).collect();
    needed.extend([found.base_plan.start, stage_of(plan, target)?.filesystem]);
    needed.sort();
    needed.dedup();
    Ok(needed)
}

/// How many layers the stage `target` begins with.
pub fn base_layers(plan: &Plan, target: usize) -> usize {
    let base = ancestry(plan, target).ok().and_then(|found| found.base);
    base.map_or(0, |base| base.manifest.layers.len())
}

/// What an image says of itself beside what the steps say.
#[derive(Default, Clone, Copy)]
pub struct Said<'a> {
    /// Where it was not built from a Dockerfile.
    pub config: Option<&'a ImageConfig>,
    /// What it carries of the cache.
    pub cache: Option<&'a String>,
}

/// Makes the image of the stage `target` under these names. Blocks.
pub fn image(
    build: &Arc<Build>,
    plan: &Plan,
    target: usize,
    results: &Results<Tree>,
    said: Said<'_>,
    names: &[Reference],
) -> Result<Image, BuildError> {
    let Said {
        config: given,
        cache: inline,
    } = said;
    let found = ancestry(plan, target)?;
    match (found.base, found.steps.is_empty() && given.is_none()) {
        (None, true) if found.built().is_none() => Err(BuildError::Engine {
            message: "No image was generated. Is your Dockerfile empty?".to_owned(),
            class: ErrorClass::Internal,
        }),
        (Some(base), true) => named(build, base, names),
        _ => {
            let base_top = tree_of(results, found.base_plan.start)?.snapshot;
            let base_top = base_top.filter(|_| found.base.is_some());
            let relayer = Relayer {
                squash: build.request.squash,
                latest: latest(build, epoch(plan)?)?,
            };
            let plain = layers(build, top(plan, target, results)?, base_top)?;
            let count = plain.len();
            let layers = relayer.apply(build, plain, base_top)?;
            let mut config = config(build, plan, target, results, given)?;
            let of_base = found.base.map_or(0, |base| base.manifest.layers.len());
            if let Some(inline) = inline {
                let key = exchange::INLINE.to_owned();
                config.extra.insert(key, inline.clone().into());
            }
            if plan.is_recipe {
                tell_all(&mut config, of_base + count);
            }
            if layers.len() < count {
                tell_squashed(&mut config, count);
            }
            let commit = CommitLayers {
                parent: found.base.cloned(),
                layers,
                config,
                names: names.to_vec(),
            };
            Ok(build.images.commit_layers(commit)?)
        }
    }
}

/// An image that is here, under these names, too. Blocks.
pub fn named(build: &Build, image: &Image, names: &[Reference]) -> Result<Image, BuildError> {
    if names.is_empty() {
        return Ok(image.clone());
    }
    for name in names {
        build.images.tag(image.id.as_str(), name)?;
    }
    // Seen again, so that it carries its names.
    Ok(build.images.resolve(image.id.as_str())?)
}

fn tree_of(results: &Results<Tree>, vertex: VertexId) -> Result<&Tree, BuildError> {
    results
        .get(&vertex)
        .map(|solved| &solved.value)
        .ok_or_else(missing)
}

fn stage_of(plan: &Plan, target: usize) -> Result<&StagePlan, BuildError> {
    plan.stages
        .get(target)
        .and_then(Option::as_ref)
        .ok_or_else(missing)
}

/// The filesystem of the stage `target`.
pub fn top(plan: &Plan, target: usize, results: &Results<Tree>) -> Result<Option<SnapshotId>, BuildError> {
    Ok(tree_of(results, stage_of(plan, target)?.filesystem)?.snapshot)
}

/// The configuration of the stage `target`, with its history.
pub fn config(
    build: &Build,
    plan: &Plan,
    target: usize,
    results: &Results<Tree>,
    given: Option<&ImageConfig>,
) -> Result<ImageConfig, BuildError> {
    let found = ancestry(plan, target)?;
    let stage = stage_of(plan, target)?;
    let epoch = epoch(plan)?;
    let epoch = epoch.map(|time| time.to_string());
    let platform = build.request.platform.clone().unwrap_or_else(Platform::host);
    let mut config = match (found.base, found.built()) {
        (Some(base), _) => base.config.clone(),
        (None, Some(built)) => built.config.clone(),
        (None, None) => ImageConfig::new(&platform),
    };
    if found.steps.is_empty() && given.is_none() {
        return Ok(config);
    }
    for key in FORGOTTEN {
        config.extra.remove(key);
    }
    for step in &found.steps {
        let result = tree_of(results, step.vertex)?;
        let created = epoch.clone().unwrap_or_else(|| result.created.clone());
        config.created = Some(created.clone());
        config.history.push(History {
            created: Some(created),
            created_by: Some(step.created_by.clone()),
            author: stage.author.clone(),
            comment: Some(step.comment.to_owned()),
            empty_layer: !result.layer,
        });
    }
    config.config = stage.settings.clone();
    config.author = stage.author.clone();
    if let Some(given) = given {
        config.config = given.config.clone();
        config.author = given.author.clone();
        if !given.history.is_empty() {
            config.history = given.history.clone();
        }
    }
    Ok(config)
}

/// Has the history tell as many lines with files as there are layers: a step may have made several layers or, because
/// nothing was in them, none.
fn tell_all(config: &mut ImageConfig, layers: usize) {
    let told = config.history.iter().filter(|line| !line.empty_layer).count();
    let surplus = told.saturating_sub(layers);
    let last = config.history.iter_mut().rev().filter(|line| !line.empty_layer);
    last.take(surplus).for_each(|line| line.empty_layer = true);
    for _ in told..layers {
        config.history.push(History {
            created: config.created.clone(),
            created_by: None,
            author: config.author.clone(),
            comment: Some("buildkit.exporter.image.v0".to_owned()),
            empty_layer: false,
        });
    }
}

/// The snapshots between the base and the top, lowest first.
fn layers(
    build: &Arc<Build>,
    top: Option<SnapshotId>,
    base: Option<SnapshotId>,
) -> Result<Vec<SnapshotId>, BuildError> {
    let Some(top) = top else {
        return Ok(Vec::new());
    };
    let stack = build.store.snapshots().stack(top)?;
    let own = stack.iter().map(|info| info.id);
    let mut layers: Vec<SnapshotId> = own.take_while(|snapshot| Some(*snapshot) != base).collect();
    layers.reverse();
    Ok(layers)
}

/// The time that a reproducible build asks for.
pub fn epoch(plan: &Plan) -> Result<Option<Timestamp>, BuildError> {
    const EPOCH: &str = "SOURCE_DATE_EPOCH";
    // An ARG before the first FROM may say one, which the client can take back.
    let given = plan.arguments.given(EPOCH).map(str::to_owned);
    let text = given.or_else(|| plan.arguments.global(EPOCH));
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let time = text
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    match time {
        Some(time) => Ok(Some(time)),
        None => Err(BuildError::invalid(format!(
            "invalid SOURCE_DATE_EPOCH: {text}: it should be a number of seconds since 1970"
        ))),
    }
}

/// The history of an image whose last `count` layers became one.
fn tell_squashed(config: &mut ImageConfig, count: usize) {
    let with_files = config.history.iter_mut().rev().filter(|line| !line.empty_layer);
    with_files.take(count).for_each(|line| line.empty_layer = true);
    config.history.push(History {
        created: config.created.clone(),
        created_by: None,
        author: config.author.clone(),
        comment: Some(format!("{count} layers as one")),
        empty_layer: false,
    });
}

/// The latest time that files of new layers may have.
fn latest(build: &Build, epoch: Option<Timestamp>) -> Result<Option<i64>, BuildError> {
    match (build.request.rewrite_timestamp, epoch) {
        (false, _) => Ok(None),
        (true, Some(time)) => Ok(Some(time.as_second())),
        (true, None) => Err(BuildError::invalid(
            "times are rewritten to SOURCE_DATE_EPOCH, which is not set: give it with --build-arg",
        )),
    }
}
