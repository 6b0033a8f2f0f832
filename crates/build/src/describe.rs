//! What a Dockerfile offers to whoever builds it: its targets, and what a target takes.

use crate::builder::Prepared;
use crate::graph::Stage;
use crate::instruction::{Instruction, MountKind, Statement};
use crate::source::Snippet;

/// A stage that can be built.
#[derive(Debug, Clone)]
pub struct Target {
    /// Empty where the stage has none.
    pub name: String,
    /// Built where no target is named.
    pub default: bool,
    /// From a comment above it that begins with its name.
    pub description: String,
    pub base: String,
    pub platform: String,
    pub at: Snippet,
}

/// Something that a target takes: an argument, a secret, an agent, a cache.
#[derive(Debug, Clone)]
pub struct Taken {
    pub name: String,
    pub description: String,
    /// An argument's value as far as it is known.
    pub value: Option<String>,
    pub required: bool,
    pub at: Snippet,
}

/// What one target takes.
#[derive(Debug, Clone, Default)]
pub struct Outline {
    pub name: String,
    pub description: String,
    pub arguments: Vec<Taken>,
    pub secrets: Vec<Taken>,
    pub agents: Vec<Taken>,
    pub caches: Vec<Taken>,
}

/// The comment above a statement that begins with `name`, without the name.
fn description(at: &Snippet, name: &str) -> String {
    if name.is_empty() {
        return String::new();
    }
    let text = at.text();
    let lines: Vec<&str> = text.lines().take(at.line().saturating_sub(1)).collect();
    let comments = lines
        .iter()
        .rev()
        .map(|line| line.trim())
        .take_while(|line| line.starts_with('#'));
    let words = comments.filter_map(|line| {
        let rest = line.trim_start_matches('#').trim().strip_prefix(name)?;
        rest.starts_with(char::is_whitespace)
            .then(|| rest.trim().to_owned())
    });
    words.last().unwrap_or_default()
}

fn target(stage: &Stage, default: bool) -> Target {
    let name = stage.from.name.clone().unwrap_or_default();
    Target {
        description: description(&stage.statement.snippet, &name),
        name,
        default,
        base: stage.from.base.clone(),
        platform: stage.from.platform.clone().unwrap_or_default(),
        at: stage.statement.snippet.clone(),
    }
}

impl Prepared {
    /// The Dockerfile as it was read.
    pub fn text(&self) -> String {
        let first = self.stages.stages.first();
        first
            .map(|stage| stage.statement.snippet.text())
            .unwrap_or_default()
    }

    /// Every stage, in the order of the file.
    pub fn targets(&self) -> Vec<Target> {
        let stages = &self.stages.stages;
        let last = stages.len().saturating_sub(1);
        stages
            .iter()
            .enumerate()
            .map(|(index, stage)| target(stage, index == last))
            .collect()
    }

    /// What the target of the request takes.
    pub fn outline(&self) -> Outline {
        let mut outline = Outline::default();
        if let Some(stage) = self.stages.stages.get(self.target) {
            let target = target(stage, false);
            outline.name = target.name;
            outline.description = target.description;
        }
        for statement in &self.stages.global {
            self.take(&mut outline, statement);
        }
        for (index, stage) in self.stages.stages.iter().enumerate() {
            if self.needed.get(index).copied().unwrap_or(false) {
                for statement in &stage.body {
                    self.take(&mut outline, statement);
                }
            }
        }
        outline
    }

    fn take(&self, outline: &mut Outline, statement: &Statement) {
        let taken = |name: &str, value: Option<String>, required: bool| Taken {
            name: name.to_owned(),
            description: description(&statement.snippet, name),
            value,
            required,
            at: statement.snippet.clone(),
        };
        let add = |list: &mut Vec<Taken>, taken: Taken| match list
            .iter_mut()
            .find(|known| known.name == taken.name)
        {
            Some(known) => {
                known.required |= taken.required;
                known.value = known.value.take().or(taken.value);
            }
            None => list.push(taken),
        };
        match &statement.instruction {
            Instruction::Arg(arguments) => {
                for argument in arguments {
                    let given = self.request.build_args.get(&argument.name).cloned().flatten();
                    let value = given
                        .or_else(|| self.arguments.global(&argument.name))
                        .or_else(|| argument.default.clone());
                    add(&mut outline.arguments, taken(&argument.name, value, false));
                }
            }
            Instruction::Run(run) => {
                for mount in &run.mounts {
                    let id = mount.id.clone();
                    match mount.kind {
                        MountKind::Secret => {
                            let of_target = mount.target_or_default();
                            let name = of_target.rsplit('/').next().unwrap_or_default();
                            let name = id.unwrap_or_else(|| name.to_owned());
                            add(&mut outline.secrets, taken(&name, None, mount.required));
                        }
                        MountKind::Ssh => {
                            let name = id.unwrap_or_else(|| "default".to_owned());
                            add(&mut outline.agents, taken(&name, None, mount.required));
                        }
                        MountKind::Cache => {
                            let name = id.unwrap_or_else(|| mount.target_or_default());
                            add(&mut outline.caches, taken(&name, None, false));
                        }
                        MountKind::Bind | MountKind::Tmpfs => {}
                    }
                }
            }
            _ => {}
        }
    }
}
