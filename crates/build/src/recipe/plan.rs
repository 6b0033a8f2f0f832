//! From a recipe to the graph of what has to be done: only what is wanted, each operation as one vertex or a few.
//!
//! A command with several results is a vertex for each that is used; they run it once together. The changes of an
//! operation on files are one vertex for each that is kept, so that they make one layer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use image::Image;
use spec::ErrorClass;
use spec::image::ContainerSettings;

use super::{Action, Exec, FileAction, FileChange, FileSource, Output, Recipe};
use crate::error::BuildError;
use crate::instruction::MountKind;
use crate::plan::{Arguments, Plan, PlannedStep, Spoken, StageBase, StagePlan};
use crate::report::StepName;
use crate::solve::{Graph, VertexId};
use crate::source::{Snippet, Source, Span};
use crate::step::{Build, CopyStep, FilesStep, PlannedMount, RunPlan, Several, StepKind, StepOperation};
use crate::transcript::StepNumber;

/// Decides everything. `images` are those of the operations that name one.
pub fn plan(
    build: &Arc<Build>,
    recipe: &Recipe,
    images: HashMap<usize, Image>,
    arguments: Arguments,
) -> Result<Plan, BuildError> {
    let titles: Vec<String> = recipe
        .operations
        .iter()
        .map(|operation| one_line(&operation.title))
        .collect();
    let mut planning = Planning {
        build,
        recipe,
        images,
        source: Source::new("definition", titles.join("\n").as_bytes()),
        graph: Graph::default(),
        spoken: Vec::new(),
        made: HashMap::new(),
        origins: HashMap::new(),
        at: 0,
    };
    let wanted = wanted(recipe);
    for (number, operation) in recipe.operations.iter().enumerate() {
        let outputs: BTreeSet<usize> = wanted
            .iter()
            .filter(|output| output.operation == number)
            .map(|output| output.number)
            .collect();
        if outputs.is_empty() {
            continue;
        }
        planning.at = number;
        planning.operation(&operation.action, &outputs)?;
    }
    let filesystem = planning.vertex(recipe.wanted)?;
    let origin = planning.origins.get(&filesystem).cloned().unwrap_or_default();
    let base = origin
        .base
        .and_then(|(number, vertex)| Some((planning.images.remove(&number)?, vertex)));
    let (base, start) = match base {
        Some((image, vertex)) => (StageBase::Image(Box::new(image)), vertex),
        None => (StageBase::Scratch, filesystem),
    };
    let stage = StagePlan {
        base,
        settings: ContainerSettings::default(),
        author: None,
        steps: origin.steps,
        filesystem,
        start,
    };
    Ok(Plan {
        graph: planning.graph,
        stages: vec![Some(stage)],
        spoken: planning.spoken,
        arguments,
        images: Vec::new(),
        is_recipe: true,
    })
}

/// Every result that what is wanted needs.
fn wanted(recipe: &Recipe) -> BTreeSet<Output> {
    let mut all = BTreeSet::from([recipe.wanted]);
    let mut waiting = vec![recipe.wanted];
    let mut seen = BTreeSet::new();
    while let Some(output) = waiting.pop() {
        if !seen.insert(output.operation) {
            continue;
        }
        let action = recipe
            .operations
            .get(output.operation)
            .map(|operation| &operation.action);
        for input in action.map(inputs_of).unwrap_or_default() {
            all.insert(input);
            waiting.push(input);
        }
    }
    all
}

fn inputs_of(action: &Action) -> Vec<Output> {
    match action {
        Action::Exec(exec) => exec.mounts.iter().filter_map(|mount| mount.input).collect(),
        Action::Files(actions) => {
            let sources = actions.iter().flat_map(|action| {
                let from = match &action.change {
                    FileChange::Copy { from, .. } => Some(*from),
                    _ => None,
                };
                [Some(action.base), from]
            });
            let outputs = sources.flatten().filter_map(|source| match source {
                FileSource::Output(output) => Some(output),
                FileSource::Nothing | FileSource::Action(_) => None,
            });
            outputs.collect()
        }
        Action::Merge(inputs) => inputs.iter().flatten().copied().collect(),
        Action::Difference { lower, upper } => [lower, upper].into_iter().flatten().copied().collect(),
        Action::Image { .. }
        | Action::Directory(_)
        | Action::Web(_)
        | Action::Git { .. }
        | Action::Built(_) => Vec::new(),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a result was made of, as the history of an image tells it.
#[derive(Debug, Clone, Default)]
struct Origin {
    /// The operation of the image it starts from, and its vertex.
    base: Option<(usize, VertexId)>,
    steps: Vec<PlannedStep>,
}

struct Planning<'a> {
    build: &'a Arc<Build>,
    recipe: &'a Recipe,
    images: HashMap<usize, Image>,
    source: Arc<Source>,
    graph: Graph<StepOperation>,
    spoken: Vec<Spoken>,
    made: HashMap<Output, VertexId>,
    origins: HashMap<VertexId, Origin>,
    /// The operation that is planned.
    at: usize,
}

fn broken(text: &str) -> BuildError {
    BuildError::Engine {
        message: text.to_owned(),
        class: ErrorClass::Internal,
    }
}

impl Planning<'_> {
    fn vertex(&self, output: Output) -> Result<VertexId, BuildError> {
        let found = self.made.get(&output).copied();
        found.ok_or_else(|| {
            let title = self
                .recipe
                .operations
                .get(output.operation)
                .map_or("", |operation| &operation.title);
            BuildError::invalid(format!("{title} has no result {}", output.number))
        })
    }

    /// The operation that is planned has this result.
    fn record(&mut self, number: usize, vertex: VertexId) {
        let operation = self.at;
        self.made.insert(Output { operation, number }, vertex);
    }

    /// A vertex for what may be nothing.
    fn vertex_or_nothing(&mut self, output: Option<Output>) -> Result<VertexId, BuildError> {
        match output {
            Some(output) => self.vertex(output),
            None => self.add(StepKind::Base(None), &[], false),
        }
    }

    /// Adds a vertex of the operation that is planned; others of it are not heard of.
    fn add(&mut self, kind: StepKind, inputs: &[VertexId], shown: bool) -> Result<VertexId, BuildError> {
        let Some(operation) = self.recipe.operations.get(self.at) else {
            return Err(broken("an operation that is planned is not there"));
        };
        let from = matches!(kind, StepKind::Base(_) | StepKind::Built(_));
        let title = match shown {
            true => one_line(&operation.title),
            false => String::new(),
        };
        let name = StepName {
            number: StepNumber(self.at),
            vertex: self.graph.len(),
            title: title.clone(),
            inputs: inputs.iter().map(|input| input.index()).collect(),
        };
        // Whoever waits for a result of a command with several waits for the command.
        let several = match &kind {
            StepKind::Run(run) => run.several.as_ref(),
            _ => None,
        };
        let patience = several
            .map(|several| several.patience.clone())
            .unwrap_or_default();
        let step = StepOperation {
            build: self.build.clone(),
            kind,
            name: name.clone(),
            anew: operation.anew,
            code: one_line(&operation.title),
            snippet: Snippet::new(&self.source, Span::of_line(&self.source, self.at + 1)),
            patience,
        };
        let vertex = self
            .graph
            .add(step, inputs)
            .map_err(|error| broken(&error.to_string()))?;
        self.spoken.push(Spoken { vertex, name, from });
        // What lies below is the first input's, and each vertex that makes files is a line of history.
        let mut origin = match (from, inputs.first()) {
            (false, Some(below)) => self.origins.get(below).cloned().unwrap_or_default(),
            _ => Origin::default(),
        };
        if !from {
            origin.steps.push(PlannedStep {
                vertex,
                created_by: one_line(&operation.title),
                comment: "buildkit.exporter.image.v0",
            });
        }
        self.origins.insert(vertex, origin);
        Ok(vertex)
    }

    fn operation(&mut self, action: &Action, outputs: &BTreeSet<usize>) -> Result<(), BuildError> {
        let only = match action {
            Action::Exec(exec) => return self.exec(exec, outputs),
            Action::Files(actions) => return self.files(actions, outputs),
            Action::Image { .. } => {
                let image = self.images.get(&self.at).cloned();
                let image = image.ok_or_else(|| broken("an image that was to be fetched is not there"))?;
                let vertex = self.add(StepKind::Base(Some(Box::new(image))), &[], true)?;
                let origin = Origin {
                    base: Some((self.at, vertex)),
                    steps: Vec::new(),
                };
                self.origins.insert(vertex, origin);
                vertex
            }
            Action::Built(built) => self.add(StepKind::Built(built.clone()), &[], true)?,
            Action::Directory(name) => self.onto_nothing(CopyStep::all_of(name))?,
            Action::Web(web) => self.onto_nothing(CopyStep::web(web)?)?,
            Action::Git {
                source,
                keep_git_dir,
                ssh,
            } => self.onto_nothing(CopyStep::repository(source, *keep_git_dir, ssh))?,
            Action::Merge(inputs) => {
                let mut vertices = Vec::new();
                for input in inputs.iter().flatten() {
                    vertices.push(self.vertex(*input)?);
                }
                self.add(StepKind::Merge, &vertices, true)?
            }
            Action::Difference { lower, upper } => {
                let inputs = [self.vertex_or_nothing(*lower)?, self.vertex_or_nothing(*upper)?];
                let vertex = self.add(StepKind::Difference, &inputs, true)?;
                // It stands on nothing, whatever it was made from.
                if let Some(origin) = self.origins.get_mut(&vertex) {
                    origin.base = None;
                    origin.steps = origin.steps.split_off(origin.steps.len().saturating_sub(1));
                }
                vertex
            }
        };
        self.record(0, only);
        Ok(())
    }

    fn onto_nothing(&mut self, copy: CopyStep) -> Result<VertexId, BuildError> {
        let empty = self.add(StepKind::Base(None), &[], false)?;
        self.add(StepKind::Copy(Box::new(copy)), &[empty], true)
    }

    fn exec(&mut self, exec: &Exec, outputs: &BTreeSet<usize>) -> Result<(), BuildError> {
        let root = exec.mounts.iter().find(|mount| mount.target == "/");
        let root = root.ok_or_else(|| BuildError::invalid(format!("{:?} has no root", exec.args)))?;
        let mut inputs = vec![self.vertex_or_nothing(root.input)?];
        let mut mounts = Vec::new();
        for mount in exec.mounts.iter().filter(|mount| mount.target != "/") {
            let files = matches!(mount.mount.kind, MountKind::Bind | MountKind::Cache);
            // A directory of the cache begins empty unless something is given for it.
            let input = match (files, mount.mount.kind, mount.input) {
                (false, _, _) | (true, MountKind::Cache, None) => None,
                (true, _, input) => {
                    inputs.push(self.vertex_or_nothing(input)?);
                    Some(inputs.len() - 1)
                }
            };
            mounts.push(PlannedMount {
                mount: mount.mount.clone(),
                target: mount.target.clone(),
                input,
                output: mount.output,
            });
        }
        let plan = RunPlan {
            args: exec.args.clone(),
            shown: exec.args.join(" "),
            env: exec.env.clone(),
            silent_env: exec.proxy.clone(),
            cwd: exec.cwd.clone(),
            user: exec.user.clone(),
            network: exec.network,
            insecure: exec.insecure,
            cache_namespace: None,
            mounts,
            script: None,
            hostname: exec.hostname.clone(),
            hosts: exec.hosts.clone(),
            good_codes: exec.good_codes.clone(),
            several: None,
        };
        let (results, patience) = (Arc::default(), Arc::default());
        for (at, &number) in outputs.iter().enumerate() {
            let several = Several {
                root: root.output,
                wanted: number,
                results: Arc::clone(&results),
                patience: Arc::clone(&patience),
            };
            let plan = RunPlan {
                several: Some(several),
                ..plan.clone()
            };
            let vertex = self.add(StepKind::Run(Box::new(plan)), &inputs, at == 0)?;
            if root.output != Some(number) {
                let below = exec.mounts.iter().find(|mount| mount.output == Some(number));
                let below = below
                    .and_then(|mount| mount.input)
                    .and_then(|input| self.made.get(&input));
                let mut origin = below
                    .and_then(|below| self.origins.get(below))
                    .cloned()
                    .unwrap_or_default();
                origin.steps.extend(
                    self.origins
                        .get(&vertex)
                        .and_then(|own| own.steps.last())
                        .cloned(),
                );
                self.origins.insert(vertex, origin);
            }
            self.record(number, vertex);
        }
        Ok(())
    }

    fn files(&mut self, actions: &[FileAction], outputs: &BTreeSet<usize>) -> Result<(), BuildError> {
        let mut left: BTreeMap<usize, VertexId> = BTreeMap::new();
        for (at, action) in actions.iter().enumerate() {
            let Some(number) = action.output.filter(|number| outputs.contains(number)) else {
                continue;
            };
            let vertex = self.left_by(actions, at, &mut left, true)?;
            self.record(number, vertex);
        }
        Ok(())
    }

    /// The vertex of what the change `at` left: it and all it starts from, as one layer.
    fn left_by(
        &mut self,
        actions: &[FileAction],
        at: usize,
        left: &mut BTreeMap<usize, VertexId>,
        shown: bool,
    ) -> Result<VertexId, BuildError> {
        if let Some(vertex) = left.get(&at) {
            return Ok(*vertex);
        }
        let missing = || broken("a change of files is not there");
        let mut chain = vec![at];
        let base = loop {
            let first = chain.last().and_then(|at| actions.get(*at)).ok_or_else(missing)?;
            match first.base {
                FileSource::Nothing => break None,
                FileSource::Output(output) => break Some(output),
                FileSource::Action(before) => chain.push(before),
            }
        };
        let mut inputs = vec![self.vertex_or_nothing(base)?];
        let mut changes = Vec::new();
        for at in chain.into_iter().rev() {
            let change = actions
                .get(at)
                .map(|action| action.change.clone())
                .ok_or_else(missing)?;
            let from = match &change {
                FileChange::Copy { from, .. } => {
                    let source = match from {
                        FileSource::Nothing => self.vertex_or_nothing(None)?,
                        FileSource::Output(output) => self.vertex(*output)?,
                        FileSource::Action(before) => self.left_by(actions, *before, left, false)?,
                    };
                    inputs.push(source);
                    Some(inputs.len() - 1)
                }
                _ => None,
            };
            changes.push((change, from));
        }
        let vertex = self.add(StepKind::Files(FilesStep { changes }), &inputs, shown)?;
        left.insert(at, vertex);
        Ok(vertex)
    }
}
