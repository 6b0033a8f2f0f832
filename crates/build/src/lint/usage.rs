//! Instructions that say something other than what was probably meant.

use super::rule::{
    EXPOSE_CASING, EXPOSE_FORMAT, JSON_ARGS, LEGACY_PAIR, MAINTAINER, MULTIPLE, WORKDIR_RELATIVE,
};
use super::{Finding, Subject, at};
use crate::instruction::{CommandLine, Instruction, Statement};
use crate::parse::{Command, pair_words};

/// What is known while a stage is gone through.
#[derive(Default)]
struct Stage<'a> {
    shell_set: bool,
    workdir_set: bool,
    cmd: Option<&'a Statement>,
    entrypoint: Option<&'a Statement>,
    health: Option<&'a Statement>,
}

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Finding>) {
    let mut stage = Stage::default();
    // Whether the stages so far have an absolute working directory, by number.
    let mut absolute: Vec<bool> = Vec::new();
    for (command, statement) in subject.all() {
        match &statement.instruction {
            Instruction::From(from) => {
                let number = absolute.len();
                let base = subject.stages.and_then(|stages| stages.find(&from.base, number));
                let inherited = base.and_then(|base| absolute.get(base).copied()).unwrap_or(false);
                stage = Stage {
                    workdir_set: inherited,
                    ..Stage::default()
                };
                absolute.push(inherited);
            }
            Instruction::Shell(_) => stage.shell_set = true,
            Instruction::Workdir(path) => {
                // What begins with a variable may be anything.
                let relative = !path.starts_with(['/', '$', '"', '\'']);
                if relative && !stage.workdir_set {
                    let detail = format!(
                        "Relative workdir \"{path}\" can have unexpected results if the base image changes"
                    );
                    found.push(at(statement, &WORKDIR_RELATIVE, detail));
                }
                stage.workdir_set = true;
                if let Some(last) = absolute.last_mut() {
                    *last = true;
                }
            }
            Instruction::Cmd(line) => {
                shell_form(command, statement, line, &stage, found);
                once("CMD", &mut stage.cmd, statement, found);
            }
            Instruction::Entrypoint(line) => {
                shell_form(command, statement, line, &stage, found);
                once("ENTRYPOINT", &mut stage.entrypoint, statement, found);
            }
            Instruction::Healthcheck(_) => once("HEALTHCHECK", &mut stage.health, statement, found),
            Instruction::Maintainer(_) => {
                let detail = "Maintainer instruction is deprecated in favor of using label";
                found.push(at(statement, &MAINTAINER, detail));
            }
            Instruction::Env(_) | Instruction::Label(_) => pairs(command, statement, found),
            Instruction::Expose(ports) => ports.iter().for_each(|port| expose(port, statement, found)),
            _ => {}
        }
    }
}

fn shell_form(
    command: &Command,
    statement: &Statement,
    line: &CommandLine,
    stage: &Stage<'_>,
    found: &mut Vec<Finding>,
) {
    // Who chose a shell wants it.
    if let (CommandLine::Shell(text), false) = (line, stage.shell_set)
        && !text.is_empty()
    {
        let detail = format!(
            "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
            command.keyword
        );
        found.push(at(statement, &JSON_ARGS, detail));
    }
}

/// The earlier one is what has no effect.
fn once<'a>(
    name: &str,
    before: &mut Option<&'a Statement>,
    statement: &'a Statement,
    found: &mut Vec<Finding>,
) {
    if let Some(before) = before.replace(statement) {
        let detail = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        found.push(at(before, &MULTIPLE, detail));
    }
}

fn pairs(command: &Command, statement: &Statement, found: &mut Vec<Finding>) {
    let words = pair_words(&command.rest, 0, command.escape);
    if words.first().is_some_and(|first| !first.text.contains('=')) {
        let keyword = &command.keyword;
        let detail = format!(
            "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
        );
        found.push(at(statement, &LEGACY_PAIR, detail));
    }
}

fn expose(port: &str, statement: &Statement, found: &mut Vec<Finding>) {
    if port.contains('$') {
        return;
    }
    if let Some((_, protocol)) = port.split_once('/')
        && protocol.contains(|c: char| c.is_ascii_uppercase())
    {
        let detail = format!("Defined protocol '{port}' in EXPOSE instruction should be lowercase");
        found.push(at(statement, &EXPOSE_CASING, detail));
    }
    if port.contains(':') {
        let detail = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
        );
        found.push(at(statement, &EXPOSE_FORMAT, detail));
    }
}
