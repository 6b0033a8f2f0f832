//! From stages to the graph of what has to be done.
//!
//! Everything that depends on values of variables is decided here, before anything runs: a mistake in the last
//! line of a Dockerfile does not wait for an hour of building. Only images have to be here for that, because
//! their environment and triggers take part; those that are missing are fetched at the same time.

mod arguments;
mod bases;
mod files;
mod settings;
mod stage;
mod wanted;

use std::sync::Arc;

use image::Image;
use spec::image::ContainerSettings;
use spec::{Digest, Reference};

use crate::error::BuildError;
use crate::graph::Stages;
use crate::instruction::{Instruction, Pair, Statement};
use crate::report::StepName;
use crate::request::BuiltContext;
use crate::solve::{Graph, VertexId};
use crate::step::{Build, FileSource, StepKind, StepOperation};
use crate::transcript::StepNumber;
use bases::Wanted;

pub use arguments::{Arguments, PREDEFINED, is_platform_argument};
pub use bases::Bases;
pub use settings::{apply, env_value, fault, mistake};
pub use stage::refuse_more;
pub use wanted::{context_name, wanted_images};

/// What Docker's builder leaves as the comment of a line of history.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// The environment variable that every image has, and its value where the base has none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage starts from.
#[derive(Debug, Clone)]
pub enum StageBase {
    Scratch,
    Image(Box<image::Image>),
    /// What another build made.
    Built(Box<BuiltContext>),
    Stage(usize),
}

/// A step as the export needs it.
#[derive(Debug, Clone)]
pub struct PlannedStep {
    pub vertex: VertexId,
    pub created_by: String,
    pub comment: &'static str,
}

/// A stage with everything decided.
#[derive(Debug, Clone)]
pub struct StagePlan {
    pub base: StageBase,
    pub settings: ContainerSettings,
    pub author: Option<String>,
    pub steps: Vec<PlannedStep>,
    /// The vertex whose result is the stage's filesystem.
    pub filesystem: VertexId,
    /// The vertex whose result is the filesystem the stage starts from.
    pub start: VertexId,
}

/// What a vertex means to the transcript.
#[derive(Debug, Clone)]
pub struct Spoken {
    pub vertex: VertexId,
    pub name: StepName,
    /// A FROM, of which nobody wants to hear that it was cached.
    pub from: bool,
}

/// A build with everything decided.
pub struct Plan {
    pub graph: Graph<StepOperation>,
    pub stages: Vec<Option<StagePlan>>,
    pub spoken: Vec<Spoken>,
    pub arguments: Arguments,
    /// The images that anything is taken from, each once.
    pub images: Vec<(Reference, Digest)>,
    /// Whether a step may have made several layers, or none, and the image's configuration comes from elsewhere.
    pub is_recipe: bool,
}

/// The name that a text has for an image; an image's own digest is none.
fn named(text: &str) -> Option<Reference> {
    match text.parse::<spec::Digest>() {
        Ok(_) => None,
        Err(_) => Reference::parse_normalized(text).ok(),
    }
}

/// Decides everything. `needed` says which stages are built; `numbers` the step number of each stage's FROM.
pub struct Planner<'a> {
    build: &'a Arc<Build>,
    stages: &'a Stages,
    bases: Bases,
    plan: Plan,
    shown: Shown,
}

/// How the steps of the stage that is planned now are shown.
#[derive(Default)]
struct Shown {
    stage: String,
    at: usize,
    of: usize,
    /// Whether its steps are made again whatever the cache knows.
    anew: bool,
}

impl<'a> Planner<'a> {
    pub fn new(build: &'a Arc<Build>, stages: &'a Stages, arguments: Arguments, bases: Bases) -> Planner<'a> {
        let plan = Plan {
            graph: Graph::default(),
            stages: vec![None; stages.stages.len()],
            spoken: Vec::new(),
            arguments,
            images: Vec::new(),
            is_recipe: false,
        };
        Planner {
            build,
            stages,
            bases,
            plan,
            shown: Shown::default(),
        }
    }

    /// Gets an image that the build takes something from.
    async fn image(&mut self, wanted: &Wanted) -> Result<Image, BuildError> {
        let image = self.bases.get(self.build, wanted).await?;
        let known = self.plan.images.iter().any(|(_, id)| *id == image.id);
        let name = image.references.first().cloned();
        let name = name.or_else(|| named(&wanted.name));
        if let Some(name) = name.filter(|_| !known) {
            self.plan.images.push((name, image.id.clone()));
        }
        Ok(image)
    }

    /// Plans stage after stage. `first` is the step number of the first FROM.
    pub async fn plan(mut self, needed: &[bool], target: usize, first: usize) -> Result<Plan, BuildError> {
        let mut number = first;
        for (index, stage) in self.stages.stages.iter().enumerate() {
            if !needed.get(index).copied().unwrap_or(false) {
                continue;
            }
            self.begin_stage(index);
            let mut planning = stage::Planning::start(&mut self, index, StepNumber(number), false).await?;
            number += 1;
            for statement in &stage.body {
                planning
                    .statement(&mut self, statement, StepNumber(number))
                    .await?;
                number += 1;
            }
            if index == target {
                for statement in label_statements(&self.build.request.labels, &stage.statement) {
                    planning
                        .statement(&mut self, &statement, StepNumber(number))
                        .await?;
                    number += 1;
                }
            }
            let planned = planning.finish();
            if let Some(place) = self.plan.stages.get_mut(index) {
                *place = Some(planned);
            }
        }
        Ok(self.plan)
    }

    /// Plans a stage that only a trigger needs, as part of the step `number`.
    async fn plan_stage(&mut self, index: usize, number: StepNumber) -> Result<(), BuildError> {
        let stages = self.stages;
        let Some(stage) = stages.stages.get(index) else {
            return Ok(());
        };
        let around = std::mem::take(&mut self.shown);
        self.begin_stage(index);
        let mut planning = stage::Planning::start(self, index, number, true).await?;
        for statement in &stage.body {
            planning.statement(self, statement, number).await?;
        }
        self.shown = around;
        let planned = planning.finish();
        if let Some(place) = self.plan.stages.get_mut(index) {
            *place = Some(planned);
        }
        Ok(())
    }

    /// Adds a vertex.
    async fn add(
        &mut self,
        kind: StepKind,
        statement: &Statement,
        number: StepNumber,
        inputs: &[VertexId],
        more: bool,
    ) -> Result<VertexId, BuildError> {
        let from = matches!(kind, StepKind::Base(_) | StepKind::Built(_) | StepKind::Stage);
        let name = StepName {
            number,
            vertex: self.plan.graph.len(),
            title: self.title(&kind, statement),
            inputs: inputs.iter().map(|input| input.index()).collect(),
        };
        let operation = StepOperation {
            build: self.build.clone(),
            kind,
            name: name.clone(),
            anew: self.shown.anew,
            code: statement.code.clone(),
            snippet: statement.snippet.clone(),
            patience: Arc::default(),
        };
        let vertex = self
            .plan
            .graph
            .add(operation, inputs)
            .map_err(|error| BuildError::Engine {
                message: error.to_string(),
                class: spec::ErrorClass::Internal,
            })?;
        // A step that is more than one vertex has ended when all of them have.
        if more {
            self.build.reporter.expect(number).await;
        }
        self.plan.spoken.push(Spoken { vertex, name, from });
        Ok(vertex)
    }

    /// What a step is called among all others: its stage, its place in it, its line.
    fn title(&mut self, kind: &StepKind, statement: &Statement) -> String {
        let counted = match kind {
            StepKind::Base(None) | StepKind::Stage | StepKind::Settings(_) => return String::new(),
            // What a COPY or a mount takes files from is no step of the stage.
            StepKind::Base(Some(_)) | StepKind::Built(_)
                if !matches!(statement.instruction, Instruction::From(_)) =>
            {
                return format!("FROM {}", self.base_of(kind));
            }
            StepKind::Copy(copy) if matches!(copy.from, FileSource::Named(_)) => {
                let FileSource::Named(name) = &copy.from else {
                    return String::new();
                };
                return format!("[context {name}] load from client");
            }
            StepKind::Base(Some(_)) | StepKind::Built(_) => format!("FROM {}", self.base_of(kind)),
            StepKind::Copy(copy) if copy.over_links => format!("LINK {}", statement.code),
            _ => statement.code.clone(),
        };
        // What a linked copy made is laid over what is below as a part of the same step.
        if !matches!(kind, StepKind::Copy(copy) if copy.over_links) {
            self.shown.at = (self.shown.at + 1).min(self.shown.of);
        }
        let Shown { stage, at, of, .. } = &self.shown;
        let space = if stage.is_empty() { "" } else { " " };
        let width = of.to_string().len();
        format!("[{stage}{space}{at:>width$}/{of}] {counted}")
    }

    fn base_of(&self, kind: &StepKind) -> String {
        match kind {
            StepKind::Base(Some(image)) => match image.references.first() {
                Some(name) => name.to_string(),
                None => image.id.to_string(),
            },
            StepKind::Built(built) => built.identity.to_string(),
            _ => String::new(),
        }
    }

    /// Begins to count the steps of a stage.
    fn begin_stage(&mut self, index: usize) {
        let Some(stage) = self.stages.stages.get(index) else {
            return;
        };
        let name = match &stage.from.name {
            Some(name) => name.clone(),
            None if self.stages.stages.len() > 1 => format!("stage-{index}"),
            None => String::new(),
        };
        let steps = stage.body.iter().filter(|statement| {
            matches!(
                statement.instruction,
                Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
            )
        });
        let anew = &self.build.request.no_cache_stages;
        self.shown = Shown {
            anew: anew.iter().any(|wanted| wanted.eq_ignore_ascii_case(&name)),
            stage: name,
            at: 0,
            of: steps.count() + 1,
        };
    }
}

/// The labels of the request as instructions at the end of the target.
pub fn label_statements(
    labels: &std::collections::BTreeMap<String, String>,
    like: &Statement,
) -> Vec<Statement> {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "'\"'\"'"));
    let statement = |(key, value): (&String, &String)| Statement {
        // Quoted, so that the expansion leaves them as they are.
        instruction: Instruction::Label(vec![Pair {
            key: quote(key),
            value: quote(value),
        }]),
        code: format!("LABEL {key}={value}"),
        snippet: like.snippet.clone(),
        escape: like.escape,
    };
    labels.iter().map(statement).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_an_image_is_no_name() {
        let digest = Digest::sha256(b"image");
        assert_eq!(named(&digest.to_string()), None);
        for name in ["box:1", &format!("box@{digest}")] {
            assert_eq!(named(name), Reference::parse_normalized(name).ok());
        }
    }
}
