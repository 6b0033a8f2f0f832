//! What a Dockerfile asks of whoever builds it: its targets, and for one of them its arguments, secrets and agents
//! (`--call targets`, `--call outline`).

use std::collections::BTreeMap;

use super::Subject;
use super::describe::description;
use crate::expand::expand_word;
use crate::graph::Stages;
use crate::instruction::{Argument, Instruction, MountKind, Statement};

/// One stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Empty for a stage without a name.
    pub name: String,
    /// It is what is built when nothing is asked for.
    pub default: bool,
    pub description: Option<String>,
    /// What it starts from, as written.
    pub base: String,
    pub platform: Option<String>,
    pub line: usize,
}

/// An argument that the target takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArgument {
    pub name: String,
    pub description: Option<String>,
    pub value: Option<String>,
    pub line: usize,
}

/// A secret, a key agent or a cache that the target takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineItem {
    pub id: String,
    pub required: bool,
    pub line: usize,
}

/// What one target asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// Empty for a stage without a name.
    pub name: String,
    pub description: Option<String>,
    pub arguments: Vec<OutlineArgument>,
    pub secrets: Vec<OutlineItem>,
    pub agents: Vec<OutlineItem>,
    pub caches: Vec<OutlineItem>,
}

/// All stages, in order.
pub fn targets(subject: &Subject<'_>) -> Vec<Target> {
    let stages = subject
        .stages
        .map(|stages| stages.stages.as_slice())
        .unwrap_or_default();
    let last = stages.len().saturating_sub(1);
    let target = |(index, stage): (usize, &crate::graph::Stage)| {
        let name = stage.from.name.clone().unwrap_or_default();
        Target {
            default: index == last,
            description: description(subject.file, &stage.statement, &name),
            base: stage.from.base.clone(),
            platform: stage.from.platform.clone(),
            line: stage.statement.snippet.line(),
            name,
        }
    };
    stages.iter().enumerate().map(target).collect()
}

/// What the stage `target` and those it needs ask for.
pub fn outline(subject: &Subject<'_>, stages: &Stages, target: usize) -> Outline {
    let bases: Vec<String> = stages
        .stages
        .iter()
        .map(|stage| stage.from.base.clone())
        .collect();
    let needed = stages.needed(target, &bases);
    let mut found = Outline::default();
    if let Some(stage) = stages.stages.get(target) {
        found.name = stage.from.name.clone().unwrap_or_default();
        found.description = description(subject.file, &stage.statement, &found.name);
    }
    let mut global = BTreeMap::new();
    for statement in &stages.global {
        add_arguments(subject, statement, &mut global, &mut found);
    }
    for (_, stage) in stages
        .stages
        .iter()
        .enumerate()
        .filter(|(index, _)| needed.get(*index) == Some(&true))
    {
        let mut known = global.clone();
        for statement in &stage.body {
            add_arguments(subject, statement, &mut known, &mut found);
            add_mounts(statement, &mut found);
        }
    }
    found
}

fn add_arguments(
    subject: &Subject<'_>,
    statement: &Statement,
    known: &mut BTreeMap<String, String>,
    found: &mut Outline,
) {
    let Instruction::Arg(list) = &statement.instruction else {
        return;
    };
    for Argument { name, default } in list {
        let given = subject.build_args.get(name).cloned().flatten();
        let own = default.as_deref().and_then(|text| {
            let variables = |name: &str| known.get(name).cloned();
            expand_word(text, statement.escape, &variables).ok()
        });
        let value = given.or(own).or_else(|| known.get(name).cloned());
        if let Some(value) = &value {
            known.insert(name.clone(), value.clone());
        }
        if !found.arguments.iter().any(|argument| argument.name == *name) {
            found.arguments.push(OutlineArgument {
                name: name.clone(),
                description: description(subject.file, statement, name),
                value,
                line: statement.snippet.line(),
            });
        }
    }
}

fn add_mounts(statement: &Statement, found: &mut Outline) {
    let Instruction::Run(run) = &statement.instruction else {
        return;
    };
    for mount in &run.mounts {
        let path = mount.target_or_default();
        let (list, default) = match mount.kind {
            MountKind::Secret => {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                (&mut found.secrets, mount.source.clone().unwrap_or(name))
            }
            MountKind::Ssh => (&mut found.agents, "default".to_owned()),
            MountKind::Cache => (&mut found.caches, path),
            MountKind::Bind | MountKind::Tmpfs => continue,
        };
        let id = mount.id.clone().unwrap_or(default);
        match list.iter_mut().find(|known| known.id == id) {
            Some(known) => known.required |= mount.required,
            None => list.push(OutlineItem {
                id,
                required: mount.required,
                line: statement.snippet.line(),
            }),
        }
    }
}
