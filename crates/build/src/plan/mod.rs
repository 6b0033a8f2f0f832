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

use spec::image::ContainerSettings;

use crate::error::BuildError;
use crate::graph::Stages;
use crate::instruction::{Instruction, Pair, Statement};
use crate::solve::{Graph, VertexId};
use crate::step::{Build, StepKind, StepOperation};
use crate::transcript::StepNumber;

pub use arguments::Arguments;
pub use bases::Bases;
pub use settings::{apply, env_value, fault, mistake};
pub use wanted::wanted_images;

/// What Docker's builder leaves as the comment of a line of history.
const COMMENT: &str = "buildkit.dockerfile.v0";
/// The environment variable that every image has, and its value where the base has none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage starts from.
#[derive(Debug, Clone)]
pub enum StageBase {
    Scratch,
    Image(Box<image::Image>),
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
#[derive(Debug, Clone, Copy)]
pub struct Spoken {
    pub vertex: VertexId,
    pub number: StepNumber,
    /// A FROM, of which nobody wants to hear that it was cached.
    pub from: bool,
}

/// A build with everything decided.
pub struct Plan {
    pub graph: Graph<StepOperation>,
    pub stages: Vec<Option<StagePlan>>,
    pub spoken: Vec<Spoken>,
    pub arguments: Arguments,
}

/// Decides everything. `needed` says which stages are built; `numbers` the step number of each stage's FROM.
pub struct Planner<'a> {
    build: &'a Arc<Build>,
    stages: &'a Stages,
    bases: Bases,
    plan: Plan,
}

impl<'a> Planner<'a> {
    pub fn new(build: &'a Arc<Build>, stages: &'a Stages, arguments: Arguments, bases: Bases) -> Planner<'a> {
        let plan = Plan {
            graph: Graph::default(),
            stages: vec![None; stages.stages.len()],
            spoken: Vec::new(),
            arguments,
        };
        Planner {
            build,
            stages,
            bases,
            plan,
        }
    }

    /// Plans stage after stage. `first` is the step number of the first FROM.
    pub async fn plan(mut self, needed: &[bool], target: usize, first: usize) -> Result<Plan, BuildError> {
        let mut number = first;
        for (index, stage) in self.stages.stages.iter().enumerate() {
            if !needed.get(index).copied().unwrap_or(false) {
                continue;
            }
            let mut planning = stage::Planning::start(&mut self, index, StepNumber(number)).await?;
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

    /// Adds a vertex.
    async fn add(
        &mut self,
        kind: StepKind,
        statement: &Statement,
        number: StepNumber,
        inputs: &[VertexId],
        more: bool,
    ) -> Result<VertexId, BuildError> {
        let from = matches!(kind, StepKind::Base(_) | StepKind::Stage);
        let operation = StepOperation {
            build: self.build.clone(),
            kind,
            number,
            code: statement.code.clone(),
            snippet: statement.snippet.clone(),
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
            self.build.transcript.expect(number).await;
        }
        self.plan.spoken.push(Spoken { vertex, number, from });
        Ok(vertex)
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
