//! Planning one stage: its state while its instructions are gone through in order.

use spec::Digest;
use spec::image::ContainerSettings;

use super::bases::Wanted;
use super::settings::{below, shell};
use super::wanted::{context_name, expand_global, platform_of};
use super::{
    COMMENT, DEFAULT_PATH, PlannedStep, Planner, StageBase, StagePlan, apply, env_value, fault, mistake,
};
use crate::error::BuildError;
use crate::expand::expand_word;
use crate::instruction::{Argument, CommandLine, Instruction, Mount, Run, Statement, read};
use crate::parse::{Command, Fault, parse_text};
use crate::request::{BuildRequest, NamedContext};
use crate::solve::VertexId;
use crate::source::{Diagnostic, Snippet};
use crate::step::{CopyStep, PlannedMount, RunPlan, StepKind, WorkdirStep};
use crate::transcript::StepNumber;

/// Where a script of a heredoc appears to its step.
const SCRIPT_DIR: &str = "/dev/pipes";

/// A stage while it is planned.
pub struct Planning {
    pub index: usize,
    pub plan: StagePlan,
    /// Arguments declared so far, in order.
    declared: Vec<(String, Option<String>)>,
    cmd_set: bool,
    /// The step number whose one vertex is already there, so that another one is one more.
    last_number: Option<StepNumber>,
}

impl Planning {
    /// Begins a stage with its FROM and the triggers of its base.
    pub async fn start(
        planner: &mut Planner<'_>,
        index: usize,
        number: StepNumber,
        more: bool,
    ) -> Result<Planning, BuildError> {
        let stages = planner.stages;
        let Some(stage) = stages.stages.get(index) else {
            return Err(BuildError::invalid(format!("there is no stage {index}")));
        };
        let statement = &stage.statement;
        let name = expand_global(&planner.plan.arguments, &stage.from.base, statement)?;
        let named = named_context(planner, &name);
        let (name, named) = match named {
            Some(NamedContext::Image(image)) => (image, None),
            other => (name, other),
        };
        let base = match (name.as_str(), stages.base_stage(&name, index)) {
            _ if matches!(named, Some(NamedContext::Directory)) => StageBase::Scratch,
            _ if let Some(NamedContext::Built(built)) = &named => StageBase::Built(built.clone()),
            (_, Some(base)) => StageBase::Stage(base),
            ("scratch", None) => StageBase::Scratch,
            (_, None) => {
                let asked = planner.build.request.platform.as_ref();
                let platform = platform_of(stage, &planner.plan.arguments, asked)?;
                let wanted = Wanted {
                    name: name.clone(),
                    platform,
                    number,
                    statement: statement.clone(),
                    alike: None,
                };
                let image = planner.image(&wanted).await?;
                StageBase::Image(Box::new(image))
            }
        };
        let (kind, inputs, mut settings, author) = match &base {
            StageBase::Scratch => (
                StepKind::Base(None),
                Vec::new(),
                ContainerSettings {
                    working_dir: "/".to_owned(),
                    ..ContainerSettings::default()
                },
                None,
            ),
            StageBase::Image(image) => {
                let config = &image.config;
                (
                    StepKind::Base(Some(image.clone())),
                    Vec::new(),
                    config.config.clone(),
                    config.author.clone(),
                )
            }
            StageBase::Built(built) => (
                StepKind::Built(built.clone()),
                Vec::new(),
                built.config.config.clone(),
                built.config.author.clone(),
            ),
            StageBase::Stage(base) => {
                let below = planned(planner, *base, statement)?;
                (
                    StepKind::Stage,
                    vec![below.filesystem],
                    below.settings.clone(),
                    below.author.clone(),
                )
            }
        };
        let mut start = planner.add(kind, statement, number, &inputs, more).await?;
        if let Some(NamedContext::Directory) = &named {
            let kind = StepKind::Copy(Box::new(CopyStep::all_of(&name)));
            start = planner.add(kind, statement, number, &[start], true).await?;
        }
        if env_value(&settings.env, "PATH").is_none() {
            settings.env.push(DEFAULT_PATH.to_owned());
        }
        let triggers = std::mem::take(&mut settings.on_build);
        let plan = StagePlan {
            base,
            settings,
            author,
            steps: Vec::new(),
            filesystem: start,
            start,
        };
        let mut planning = Planning {
            index,
            plan,
            declared: Vec::new(),
            cmd_set: false,
            last_number: Some(number),
        };
        if !triggers.is_empty() {
            let count = triggers.len();
            let noun = if count == 1 { "trigger" } else { "triggers" };
            let text = format!("# Executing {count} build {noun}\n");
            planner.build.reporter.text(number, text).await;
        }
        for trigger in &triggers {
            let statement = trigger_statement(trigger, statement)?;
            planning.statement(planner, &statement, number).await?;
        }
        Ok(planning)
    }

    pub fn finish(self) -> StagePlan {
        self.plan
    }

    /// A variable as instructions of this stage see it.
    fn variable(&self, name: &str) -> Option<String> {
        let env = env_value(&self.plan.settings.env, name).map(str::to_owned);
        env.or_else(|| self.argument(name))
    }

    fn argument(&self, name: &str) -> Option<String> {
        let found = self.declared.iter().rev().find(|(declared, _)| declared == name);
        found.and_then(|(_, value)| value.clone())
    }

    /// Expands a text as one word.
    pub fn word(&self, statement: &Statement, text: &str) -> Result<String, BuildError> {
        let variables = |name: &str| self.variable(name);
        expand_word(text, statement.escape, &variables).map_err(|error| fault(statement, &error))
    }

    /// Expands the content of a heredoc.
    pub fn document(&self, statement: &Statement, text: &str) -> Result<String, BuildError> {
        let variables = |name: &str| self.variable(name);
        crate::expand::expand_document(text, statement.escape, &variables)
            .map_err(|error| fault(statement, &error))
    }

    /// Plans one instruction.
    pub async fn statement(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        number: StepNumber,
    ) -> Result<(), BuildError> {
        match &statement.instruction {
            Instruction::Run(run) => self.run(planner, statement, run, number).await,
            Instruction::Copy(copy) => self.copy(planner, statement, copy, false, number).await,
            Instruction::Add(copy) => self.copy(planner, statement, copy, true, number).await,
            Instruction::Arg(arguments) => {
                let history = self.arguments(planner, statement, arguments)?;
                self.add_settings(planner, statement, number, history).await
            }
            Instruction::From(_) => Err(mistake(statement, "FROM cannot stand here".to_owned())),
            _ => {
                let before = self.plan.settings.clone();
                let declared = self.declared.clone();
                let variables = move |name: &str| {
                    let env = env_value(&before.env, name).map(str::to_owned);
                    let declared = declared.iter().rev().find(|(known, _)| known == name);
                    env.or_else(|| declared.and_then(|(_, value)| value.clone()))
                };
                let change = apply(&mut self.plan.settings, &mut self.cmd_set, statement, &variables)?;
                let Some(change) = change else {
                    return Err(mistake(statement, "instruction cannot stand here".to_owned()));
                };
                self.plan.author = change.author.or(self.plan.author.take());
                if let Instruction::Workdir(_) = statement.instruction {
                    let path = self.plan.settings.working_dir.clone();
                    let kind = StepKind::Workdir(WorkdirStep {
                        path,
                        user: self.plan.settings.user.clone(),
                    });
                    return self
                        .add_filesystem(planner, kind, statement, number, &[], change.history)
                        .await;
                }
                self.add_settings(planner, statement, number, change.history)
                    .await
            }
        }
    }

    /// Declares arguments; gives the line of history.
    fn arguments(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        arguments: &[Argument],
    ) -> Result<String, BuildError> {
        let mut history = "ARG".to_owned();
        for argument in arguments {
            let name = self.word(statement, &argument.name)?;
            // A default that does not count may be none.
            let default = argument.default.as_deref();
            let default = default.filter(|_| planner.plan.arguments.given(&name).is_none());
            let default = default.map(|text| self.word(statement, text)).transpose()?;
            let value = planner.plan.arguments.value(&name, default);
            history = match &value {
                Some(value) => format!("{history} {name}={value}"),
                None => format!("{history} {name}"),
            };
            match self.declared.iter_mut().find(|(known, _)| *known == name) {
                Some((_, before)) => *before = value,
                None => self.declared.push((name, value)),
            }
        }
        Ok(history)
    }

    pub(super) async fn add_vertex(
        &mut self,
        planner: &mut Planner<'_>,
        kind: StepKind,
        statement: &Statement,
        number: StepNumber,
        inputs: &[VertexId],
    ) -> Result<VertexId, BuildError> {
        let more = self.last_number == Some(number);
        self.last_number = Some(number);
        planner.add(kind, statement, number, inputs, more).await
    }

    /// Adds a step that makes a filesystem out of the present one and `others`.
    pub(super) async fn add_filesystem(
        &mut self,
        planner: &mut Planner<'_>,
        kind: StepKind,
        statement: &Statement,
        number: StepNumber,
        others: &[VertexId],
        created_by: String,
    ) -> Result<(), BuildError> {
        let inputs: Vec<VertexId> = [self.plan.filesystem].iter().chain(others).copied().collect();
        let vertex = self.add_vertex(planner, kind, statement, number, &inputs).await?;
        self.plan.filesystem = vertex;
        self.plan.steps.push(PlannedStep {
            vertex,
            created_by,
            comment: COMMENT,
        });
        Ok(())
    }

    /// Adds a step that changes the configuration only.
    async fn add_settings(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        number: StepNumber,
        created_by: String,
    ) -> Result<(), BuildError> {
        let all = serde_json::json!([self.plan.settings, self.plan.author, self.declared, created_by]);
        let kind = StepKind::Settings(Digest::sha256(all.to_string().as_bytes()));
        let inputs = [self.plan.filesystem];
        let vertex = self.add_vertex(planner, kind, statement, number, &inputs).await?;
        self.plan.steps.push(PlannedStep {
            vertex,
            created_by,
            comment: COMMENT,
        });
        Ok(())
    }

    async fn run(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        run: &Run,
        number: StepNumber,
    ) -> Result<(), BuildError> {
        // A trigger of the base is seen here for the first time.
        refuse_more(statement, run, &planner.build.request)?;
        let (args, script) = command(run, &shell(&self.plan.settings));
        let env = self.plan.settings.env.clone();
        let declared =
            self.declared
                .iter()
                .filter_map(|(name, value)| match (value, env_value(&env, name)) {
                    (Some(value), None) => Some((name.as_str(), value.as_str())),
                    _ => None,
                });
        let declared: Vec<(&str, &str)> = declared.collect();
        let declared_env: Vec<String> = declared
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let silent_env = planner
            .plan
            .arguments
            .proxies()
            .into_iter()
            .filter(|(name, _)| {
                env_value(&env, name).is_none() && declared.iter().all(|(known, _)| known != name)
            })
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let shown = args.join(" ");
        let created_by = match declared_env.is_empty() {
            true => format!("RUN {shown} # buildkit"),
            false => format!(
                "RUN |{} {} {shown} # buildkit",
                declared_env.len(),
                declared_env.join(" ")
            ),
        };
        let mut inputs = Vec::new();
        let mut mounts = Vec::new();
        for mount in &run.mounts {
            let mount = self.mount(statement, mount)?;
            let input = match &mount.from {
                None => None,
                Some(from) => {
                    inputs.push(self.tree_of(planner, statement, from, number).await?);
                    // The stage's own filesystem is input 0.
                    Some(inputs.len())
                }
            };
            let target = below(&self.plan.settings.working_dir, &mount.target_or_default());
            mounts.push(PlannedMount {
                mount,
                target,
                input,
                output: None,
            });
        }
        let cwd = match self.plan.settings.working_dir.as_str() {
            "" => "/".to_owned(),
            path => below("/", path),
        };
        let plan = RunPlan {
            args,
            shown,
            env: env.into_iter().chain(declared_env).collect(),
            silent_env,
            cwd,
            user: self.plan.settings.user.clone(),
            network: run.network,
            insecure: run.insecure,
            cache_namespace: planner
                .plan
                .arguments
                .given("BUILDKIT_CACHE_MOUNT_NS")
                .map(str::to_owned),
            mounts,
            script,
            hostname: String::new(),
            hosts: Vec::new(),
            good_codes: Vec::new(),
            several: None,
        };
        let kind = StepKind::Run(Box::new(plan));
        self.add_filesystem(planner, kind, statement, number, &inputs, created_by)
            .await
    }

    /// A mount with everything expanded.
    fn mount(&self, statement: &Statement, mount: &Mount) -> Result<Mount, BuildError> {
        let Some(flag) = &mount.written else {
            return Ok(mount.clone());
        };
        let wrong = |fault: Fault| mistake(statement, fault.message);
        let mut fields = Mount::fields(flag).map_err(wrong)?;
        for value in fields.iter_mut().filter_map(|(_, value)| value.as_mut()) {
            *value = self.word(statement, value)?;
        }
        Mount::of(flag, &fields).map_err(wrong)
    }

    /// The vertex of the filesystem that `--from` names: an earlier stage or an image.
    pub async fn tree_of(
        &mut self,
        planner: &mut Planner<'_>,
        statement: &Statement,
        from: &str,
        number: StepNumber,
    ) -> Result<VertexId, BuildError> {
        let named = named_context(planner, from);
        match &named {
            Some(NamedContext::Directory) => {
                let empty = self
                    .add_vertex(planner, StepKind::Base(None), statement, number, &[])
                    .await?;
                let kind = StepKind::Copy(Box::new(CopyStep::all_of(from)));
                return self.add_vertex(planner, kind, statement, number, &[empty]).await;
            }
            Some(NamedContext::Built(built)) => {
                let kind = StepKind::Built(built.clone());
                return self.add_vertex(planner, kind, statement, number, &[]).await;
            }
            Some(NamedContext::Image(_)) | None => {}
        }
        let stages = planner.stages;
        let image_name = match &named {
            Some(NamedContext::Image(image)) => image.as_str(),
            _ => from,
        };
        if named.is_none()
            && let Some(index) = stages.find(from, self.index)
        {
            if planner.plan.stages.get(index).is_some_and(Option::is_none) {
                // Only a trigger of an image can name a stage that the file itself does not need.
                Box::pin(planner.plan_stage(index, number)).await?;
            }
            return Ok(planned(planner, index, statement)?.filesystem);
        }
        let own = stages
            .stages
            .get(self.index)
            .and_then(|stage| stage.from.name.as_deref());
        if own == Some(from.to_ascii_lowercase().as_str()) {
            return Err(mistake(
                statement,
                format!("circular dependency: stage {from} takes files from itself"),
            ));
        }
        if from.contains('$') {
            let text = format!(
                "invalid from flag value {from}: variable expansion is not supported for --from, define a new stage with \
                 FROM using ARG from global scope as a workaround"
            );
            return Err(mistake(statement, text));
        }
        if from == "scratch" {
            return self
                .add_vertex(planner, StepKind::Base(None), statement, number, &[])
                .await;
        }
        let platform = planner.build.request.platform.clone();
        let wanted = Wanted {
            name: image_name.to_owned(),
            platform,
            number,
            statement: statement.clone(),
            alike: None,
        };
        let image = planner.image(&wanted).await?;
        let kind = StepKind::Base(Some(Box::new(image)));
        self.add_vertex(planner, kind, statement, number, &[]).await
    }
}

/// What the client said a name stands for, by the name itself or as an image's full name.
fn named_context(planner: &Planner<'_>, name: &str) -> Option<NamedContext> {
    let contexts = &planner.build.request.named_contexts;
    if contexts.is_empty() {
        return None;
    }
    contexts.get(&context_name(name)).cloned()
}

/// The plan of a stage that must be there already.
fn planned<'p>(
    planner: &'p Planner<'_>,
    index: usize,
    statement: &Statement,
) -> Result<&'p StagePlan, BuildError> {
    planner
        .plan
        .stages
        .get(index)
        .and_then(Option::as_ref)
        .ok_or_else(|| mistake(statement, format!("stage {index} is used before it is planned")))
}

/// Refuses a command that wants more than this build allows.
pub fn refuse_more(statement: &Statement, run: &Run, request: &BuildRequest) -> Result<(), BuildError> {
    let Some(word) = request.allowed().lacks(run.insecure, run.network) else {
        return Ok(());
    };
    let text = format!("{word} is not allowed for this build");
    let help = format!("allow it with --allow {word}");
    Err(crate::graph::mistake(statement, text, Some(help)).into())
}

/// Reads a trigger of a base image; what is wrong with it is shown at the FROM.
fn trigger_statement(trigger: &str, from: &Statement) -> Result<Statement, BuildError> {
    let wrong = |message: String| {
        BuildError::Dockerfile(Diagnostic {
            message: format!("ONBUILD trigger {trigger:?} of the base image: {message}"),
            snippet: Some(from.snippet.clone()),
            help: None,
        })
    };
    let command: Command = parse_text(trigger, '\\', 1).map_err(|fault| wrong(fault.message))?;
    let mut statement = read(&command).map_err(|diagnostic| wrong(diagnostic.message))?;
    if let Instruction::From(_) | Instruction::Onbuild(_) | Instruction::Maintainer(_) = statement.instruction
    {
        return Err(wrong("it cannot be a trigger".to_owned()));
    }
    let snippet: Snippet = from.snippet.clone();
    statement.snippet = snippet;
    Ok(statement)
}

/// The process of a RUN, and the script that is mounted for it.
fn command(run: &Run, shell: &[String]) -> (Vec<String>, Option<(String, String)>) {
    let CommandLine::Shell(text) = &run.command else {
        return (run.command.arguments(shell), None);
    };
    let Some(first) = run.heredocs.first() else {
        return (run.command.arguments(shell), None);
    };
    let alone = run.heredocs.len() == 1 && crate::parse::announce(text).is_some();
    if alone && first.content.starts_with("#!") {
        let target = format!("{SCRIPT_DIR}/{}", first.name);
        return (vec![target.clone()], Some((target, first.content.clone())));
    }
    let whole = match alone {
        true => first.content.clone(),
        // The shell reads the heredocs itself, and expands in them what it does in any script.
        false => run.heredocs.iter().fold(text.clone(), |text, heredoc| {
            format!("{text}\n{}{}", heredoc.content, heredoc.name)
        }),
    };
    (CommandLine::Shell(whole).arguments(shell), None)
}
