//! From the last step to an image: configuration, history, layers.
//!
//! The same steps give the same image: times are those at which the steps were first done, which the cache
//! keeps, or the one that `SOURCE_DATE_EPOCH` says.

use std::sync::Arc;

use image::{CommitLayers, Image};
use jiff::Timestamp;
use spec::image::{History, ImageConfig};
use spec::{ErrorClass, Platform};
use store::SnapshotId;

use crate::error::BuildError;
use crate::plan::{Plan, PlannedStep, StageBase, StagePlan};
use crate::solve::Results;
use crate::step::{Build, Tree};

/// Keys of a base image's configuration that are about how the base was made.
const FORGOTTEN: [&str; 5] = [
    "container",
    "container_config",
    "docker_version",
    "parent",
    "moby.buildkit.buildinfo.v1",
];

/// Everything below the target, down to the image it starts from.
struct Ancestry<'p> {
    base: Option<&'p Image>,
    base_plan: &'p StagePlan,
    steps: Vec<&'p PlannedStep>,
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
            StageBase::Scratch => break None,
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

/// Makes the image of the stage `target` and gives it its names. Blocks.
pub fn export(
    build: &Arc<Build>,
    plan: &Plan,
    target: usize,
    results: &Results<Tree>,
) -> Result<Image, BuildError> {
    let found = ancestry(plan, target)?;
    let stage = plan
        .stages
        .get(target)
        .and_then(Option::as_ref)
        .ok_or_else(missing)?;
    let image = match (found.base, found.steps.is_empty()) {
        (None, true) => {
            return Err(BuildError::Engine {
                message: "No image was generated. Is your Dockerfile empty?".to_owned(),
                class: ErrorClass::Internal,
            });
        }
        (Some(base), true) => base.clone(),
        _ => make(build, plan, &found, stage, results)?,
    };
    for tag in &build.request.tags {
        build.images.tag(image.id.as_str(), tag)?;
    }
    // Seen again, so that it carries its names.
    Ok(build.images.resolve(image.id.as_str())?)
}

fn make(
    build: &Arc<Build>,
    plan: &Plan,
    found: &Ancestry<'_>,
    stage: &StagePlan,
    results: &Results<Tree>,
) -> Result<Image, BuildError> {
    let tree = |vertex| {
        results
            .get(&vertex)
            .map(|solved| &solved.value)
            .ok_or_else(missing)
    };
    let epoch = epoch(plan)?;
    let platform = build.request.platform.clone().unwrap_or_else(Platform::host);
    let mut config = match found.base {
        Some(base) => base.config.clone(),
        None => ImageConfig::new(&platform),
    };
    for key in FORGOTTEN {
        config.extra.remove(key);
    }
    let base_top = tree(found.base_plan.start)?.snapshot;
    let layers = layers(build, tree(stage.filesystem)?.snapshot, base_top)?;
    for step in &found.steps {
        let result = tree(step.vertex)?;
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
    let commit = CommitLayers {
        parent: found.base.cloned(),
        layers,
        config,
        reference: None,
    };
    Ok(build.images.commit_layers(commit)?)
}

/// The snapshots between the base and the top, lowest first.
fn layers(
    build: &Arc<Build>,
    top: Option<SnapshotId>,
    base: Option<SnapshotId>,
) -> Result<Vec<SnapshotId>, BuildError> {
    let mut layers = Vec::new();
    let mut next = top;
    while let Some(snapshot) = next.filter(|snapshot| Some(*snapshot) != base) {
        layers.push(snapshot);
        next = build.store.snapshots().get(snapshot)?.parent;
    }
    layers.reverse();
    Ok(layers)
}

/// The time that a reproducible build asks for.
fn epoch(plan: &Plan) -> Result<Option<String>, BuildError> {
    let Some(text) = plan
        .arguments
        .given("SOURCE_DATE_EPOCH")
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    let time = text
        .parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    match time {
        Some(time) => Ok(Some(time.to_string())),
        None => Err(BuildError::invalid(format!(
            "invalid SOURCE_DATE_EPOCH: {text}: it should be a number of seconds since 1970"
        ))),
    }
}
