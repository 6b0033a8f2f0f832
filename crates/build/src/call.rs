//! What a Dockerfile says about itself, without building it: `--check`, `--call outline`, `--call targets`.

use std::collections::BTreeMap;
use std::sync::Arc;

use spec::Platform;

use crate::builder::Builder;
use crate::error::BuildError;
use crate::graph::Stages;
use crate::instruction::{Statement, read_all};
use crate::lint::{self, Finding, Outline, Settings, Subject, Target};
use crate::parse::{Dockerfile, parse};
use crate::pattern::Ignore;
use crate::prepared::{read_dockerfile, read_ignore};
use crate::request::BuildRequest;
use crate::source::{Diagnostic, Source};

/// What `--check` found.
#[derive(Debug)]
pub struct Checked {
    pub source: Arc<Source>,
    pub findings: Vec<Finding>,
    /// What keeps the file from being built at all.
    pub error: Option<Diagnostic>,
    /// The file wants a build with findings to fail.
    pub fatal: bool,
}

/// A file with all that the rules need.
struct Read {
    request: BuildRequest,
    file: Dockerfile,
    statements: Vec<Statement>,
    stages: Result<Stages, Diagnostic>,
    ignore: Ignore,
    environments: BTreeMap<usize, Vec<String>>,
}

impl Read {
    fn subject(&self) -> Subject<'_> {
        Subject {
            file: &self.file,
            statements: &self.statements,
            stages: self.stages.as_ref().ok(),
            ignore: &self.ignore,
            build_args: &self.request.build_args,
            platform: self.request.platform.clone().unwrap_or_else(Platform::host),
            environments: self.environments.clone(),
        }
    }
}

impl Builder {
    /// Holds the Dockerfile against the rules. Base images that are here say what they set; none is fetched.
    pub async fn check(&self, request: BuildRequest) -> Result<Checked, BuildError> {
        let builder = self.clone();
        tokio::task::spawn_blocking(move || {
            let (name, bytes) = read_dockerfile(&request)?;
            let read = match builder.read(request, &name, &bytes) {
                Ok(read) => read,
                Err(error) => {
                    let source = Source::new(&name, &bytes);
                    return Ok(Checked {
                        source,
                        findings: Vec::new(),
                        error: Some(error),
                        fatal: false,
                    });
                }
            };
            let settings = Settings::of_build(&read.file, &read.request.build_args)?;
            Ok(Checked {
                source: read.file.source.clone(),
                findings: lint::check(&read.subject(), &settings),
                error: read.stages.as_ref().err().cloned(),
                fatal: settings.error,
            })
        })
        .await?
    }

    /// What the request's target asks for.
    pub async fn outline(&self, request: BuildRequest) -> Result<(Arc<Source>, Outline), BuildError> {
        let builder = self.clone();
        tokio::task::spawn_blocking(move || {
            let (name, bytes) = read_dockerfile(&request)?;
            let read = builder.read(request, &name, &bytes)?;
            let stages = read.stages.as_ref().map_err(|error| error.clone())?;
            let target = stages.target(read.request.target.as_deref())?;
            let outline = lint::outline(&read.subject(), stages, target);
            Ok((read.file.source.clone(), outline))
        })
        .await?
    }

    /// The stages that can be built.
    pub async fn targets(&self, request: BuildRequest) -> Result<(Arc<Source>, Vec<Target>), BuildError> {
        let builder = self.clone();
        tokio::task::spawn_blocking(move || {
            let (name, bytes) = read_dockerfile(&request)?;
            let read = builder.read(request, &name, &bytes)?;
            read.stages.as_ref().map_err(|error| error.clone())?;
            Ok((read.file.source.clone(), lint::targets(&read.subject())))
        })
        .await?
    }

    fn read(&self, request: BuildRequest, name: &str, bytes: &[u8]) -> Result<Read, Diagnostic> {
        let file = parse(name, bytes)?;
        let statements = read_all(&file)?;
        let stages = Stages::read(&file.source, statements.clone());
        let ignore = read_ignore(&request).unwrap_or_default();
        let environments = match &stages {
            Ok(stages) => lint::environments(&self.images, stages),
            Err(_) => BTreeMap::new(),
        };
        Ok(Read {
            request,
            file,
            statements,
            stages,
            ignore,
            environments,
        })
    }
}
