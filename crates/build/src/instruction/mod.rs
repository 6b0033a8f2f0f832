//! Typed instructions: what each command of a Dockerfile says, checked as far as that is possible without the
//! values of variables.
//!
//! Texts that may hold variables are kept unexpanded; the plan expands them when it knows the stage's
//! environment. Unknown instructions and flags are refused here, with the nearest known name as advice.

mod copy;
mod duration;
mod from;
mod mount;
mod pairs;
mod read;

use crate::parse::{Command, Dockerfile, Heredoc, diagnose};
use crate::source::{Diagnostic, Snippet};

pub use copy::{Copy, Inline};
pub use duration::{format_duration, parse_duration};
pub use from::From;
pub use mount::{Mount, MountKind, Sharing};
pub use read::nearest;
use spec::image::HealthCheck;

/// All instruction names, as messages list them.
pub const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// A command line in shell form (one text for the shell) or exec form (a list).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    Shell(String),
    Exec(Vec<String>),
}

impl CommandLine {
    /// The arguments of the process, with `shell` before a shell form.
    pub fn arguments(&self, shell: &[String]) -> Vec<String> {
        match self {
            CommandLine::Exec(list) => list.clone(),
            CommandLine::Shell(text) => shell.iter().cloned().chain([text.clone()]).collect(),
        }
    }

    /// Whether nothing is to be run.
    pub fn is_empty(&self) -> bool {
        match self {
            CommandLine::Shell(text) => text.is_empty(),
            CommandLine::Exec(list) => list.is_empty(),
        }
    }
}

/// `key=value` with the value still unexpanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub key: String,
    pub value: String,
}

/// One name of an ARG instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub default: Option<String>,
}

/// The network a RUN asks for by flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    Default,
    None,
    Host,
}

/// A RUN instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<Mount>,
    pub network: Option<RunNetwork>,
    /// `--security=insecure`: without the confinement of containers. The build has to be allowed it.
    pub insecure: bool,
}

/// What one command says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    From(From),
    Run(Run),
    Copy(Copy),
    Add(Copy),
    Env(Vec<Pair>),
    Arg(Vec<Argument>),
    Label(Vec<Pair>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Shell(Vec<String>),
    /// The trigger's own text, heredocs included.
    Onbuild(String),
    Healthcheck(HealthCheck),
    Stopsignal(String),
    Maintainer(String),
}

/// An instruction with its place in the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    pub instruction: Instruction,
    /// The line as written, continuations joined.
    pub code: String,
    pub snippet: Snippet,
    /// The character that takes away the meaning of the next one in words.
    pub escape: char,
}

/// Types one command.
pub fn read(command: &Command) -> Result<Statement, Diagnostic> {
    let instruction =
        read::instruction(command).map_err(|fault| diagnose(&command.source, &command.logical, fault))?;
    Ok(Statement {
        instruction,
        code: command.code().to_owned(),
        snippet: command.snippet(),
        escape: command.escape,
    })
}

/// Types all commands of a file.
pub fn read_all(file: &Dockerfile) -> Result<Vec<Statement>, Diagnostic> {
    file.commands.iter().map(read).collect()
}

#[cfg(test)]
mod tests;
