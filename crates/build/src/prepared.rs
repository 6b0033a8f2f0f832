//! What a build is asked for, read and checked before anything runs: the Dockerfile, its stages, its ignore rules.
//!
//! Every mistake that shows without an image is found here, so that it can be answered before a stream is begun.
//! Files are looked up beneath the context only.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use image::Images;
use rustix::fs::{Mode, OFlags};
use spec::Platform;
use sys::beneath::resolve_in_root;

use crate::error::BuildError;
use crate::expand::expand_word;
use crate::graph::{Stages, mistake, sources};
use crate::instruction::{Instruction, Statement, read_all};
use crate::lint::{self, Finding, Settings, Subject};
use crate::parse::{Dockerfile, MAX_SIZE, parse};
use crate::pattern::Ignore;
use crate::plan::{self, Arguments};
use crate::request::{BuildRequest, Narration};
use crate::source::Source;

/// The largest `.dockerignore` that is read.
const MAX_IGNORE: u64 = 4 << 20;

/// A Dockerfile read and checked as far as that is possible without images.
pub struct Prepared {
    pub(crate) request: BuildRequest,
    pub(crate) file: Dockerfile,
    pub(crate) stages: Stages,
    pub(crate) bases: Vec<String>,
    pub(crate) target: usize,
    pub(crate) needed: Vec<bool>,
    pub(crate) arguments: Arguments,
    pub(crate) ignore: Ignore,
    pub(crate) findings: Vec<Finding>,
}

impl Prepared {
    /// What works and is better written otherwise; only for readers that follow each step by itself.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// The Dockerfile.
    pub fn source(&self) -> &Source {
        &self.file.source
    }

    /// Reads and checks what can be without fetching anything.
    pub(crate) fn read(images: &Images, request: BuildRequest) -> Result<Prepared, BuildError> {
        let (name, bytes) = read_dockerfile(&request)?;
        let file = parse(&name, &bytes)?;
        let statements = read_all(&file)?;
        let stages = Stages::read(&file.source, statements.clone())?;
        refuse_more(&stages, &request)?;
        let host = Platform::host();
        let wanted = request.platform.clone().unwrap_or_else(Platform::host);
        let mut arguments = Arguments::new(&request.build_args, &host, &wanted, request.target.as_deref());
        for statement in &stages.global {
            declare_global(&mut arguments, statement)?;
        }
        let mut bases = Vec::new();
        for stage in &stages.stages {
            let variables = |name: &str| arguments.global(name);
            let base = expand_word(&stage.from.base, stage.statement.escape, &variables)
                .map_err(|error| plan::fault(&stage.statement, &error))?;
            if base.trim().is_empty() {
                let text = format!("base name ({}) should not be blank", stage.from.base);
                return Err(mistake(&stage.statement, text, None).into());
            }
            bases.push(base);
        }
        let target = stages.target(request.target.as_deref())?;
        let needed = stages.needed(target, &bases);
        refuse_later(&stages, &needed, &request)?;
        let ignore = match (&request.client, request.context.as_os_str().is_empty()) {
            // The client leaves out itself what is to be left out.
            (Some(_), true) => Ignore::default(),
            _ => read_ignore(&request)?,
        };
        let settings = Settings::of_build(&file, &request.build_args)?;
        let findings = match settings.error || request.narration == Narration::Steps {
            true => lint::check(
                &Subject {
                    file: &file,
                    statements: &statements,
                    stages: Some(&stages),
                    ignore: &ignore,
                    build_args: &request.build_args,
                    platform: wanted,
                    environments: lint::environments(images, &stages),
                },
                &settings,
            ),
            false => Vec::new(),
        };
        if settings.error
            && let Some(diagnostic) = lint::violation(&findings)
        {
            return Err(diagnostic.into());
        }
        Ok(Prepared {
            request,
            file,
            stages,
            bases,
            target,
            needed,
            arguments,
            ignore,
            findings,
        })
    }
}

/// Commands that may more than others are for builds that allow it.
fn refuse_more(stages: &Stages, request: &BuildRequest) -> Result<(), BuildError> {
    let mut all = stages.stages.iter().flat_map(|stage| stage.body.iter());
    all.try_for_each(|statement| match &statement.instruction {
        Instruction::Run(run) => plan::refuse_more(statement, run, request),
        _ => Ok(()),
    })
}

/// A stage takes files only from those before it.
fn refuse_later(stages: &Stages, needed: &[bool], request: &BuildRequest) -> Result<(), BuildError> {
    let needed = stages.stages.iter().enumerate().zip(needed);
    for ((index, stage), _) in needed.filter(|(_, needed)| **needed) {
        for statement in &stage.body {
            let later = |name: &&str| {
                let named = request.named_contexts.contains_key(&plan::context_name(name));
                !named && stages.find(name, index).is_none() && stages.is_later(name, index)
            };
            if let Some(name) = sources(statement).into_iter().find(later) {
                let own = stage.from.name.clone().unwrap_or_else(|| index.to_string());
                let text = format!(
                    "cannot copy from stage {name:?}, it needs to be defined before current stage {own:?}"
                );
                let help = format!("move FROM … AS {name} above it");
                return Err(mistake(statement, text, Some(help)).into());
            }
        }
    }
    Ok(())
}

fn declare_global(arguments: &mut Arguments, statement: &Statement) -> Result<(), BuildError> {
    let Instruction::Arg(list) = &statement.instruction else {
        return Ok(());
    };
    for argument in list {
        let expanded = {
            let variables = |name: &str| arguments.global(name);
            let expand = |text: &str| expand_word(text, statement.escape, &variables);
            // A default that does not count may be none.
            let default = argument.default.as_deref();
            let default = default.filter(|_| arguments.given(&argument.name).is_none());
            default.map(expand).transpose()
        };
        arguments.declare_global(
            &argument.name,
            expanded.map_err(|error| plan::fault(statement, &error))?,
        );
    }
    Ok(())
}

/// Reads a file beneath the context; `None` where there is none.
fn read_beneath(request: &BuildRequest, path: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
    let context = File::open(&request.context)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match resolve_in_root(context.as_fd(), path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

pub(crate) fn read_dockerfile(request: &BuildRequest) -> Result<(String, Vec<u8>), BuildError> {
    if let Some(content) = &request.dockerfile_content {
        return Ok((request.dockerfile.clone(), content.clone()));
    }
    let name = if request.dockerfile.is_empty() {
        "Dockerfile"
    } else {
        request.dockerfile.as_str()
    };
    if crate::pattern::climbs_out(name) {
        return Err(BuildError::invalid(format!(
            "the Dockerfile ({name}) must be within the build context"
        )));
    }
    let room = MAX_SIZE as u64 + 1;
    let fail = |error: io::Error| BuildError::io(format_args!("reading {name}"), &error);
    match read_beneath(request, name, room).map_err(fail)? {
        Some(bytes) => Ok((name.to_owned(), bytes)),
        // Docker looks for the lower-case name as well, if none was asked for.
        None if name == "Dockerfile" => match read_beneath(request, "dockerfile", room).map_err(fail)? {
            Some(bytes) => Ok(("dockerfile".to_owned(), bytes)),
            None => Err(BuildError::NoDockerfile(name.to_owned())),
        },
        None => Err(BuildError::NoDockerfile(name.to_owned())),
    }
}

/// The Dockerfile's own ignore file if it has one, else the context's.
pub(crate) fn read_ignore(request: &BuildRequest) -> Result<Ignore, BuildError> {
    let own = format!("{}.dockerignore", request.dockerfile);
    for name in [own.as_str(), ".dockerignore"] {
        let read = read_beneath(request, name, MAX_IGNORE)
            .map_err(|error| BuildError::io(format_args!("reading {name}"), &error))?;
        if let Some(bytes) = read {
            return Ignore::parse(&String::from_utf8_lossy(&bytes))
                .map_err(|error| BuildError::invalid(format!("{name}: {error}")));
        }
    }
    Ok(Ignore::default())
}
