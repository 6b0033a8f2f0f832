//! Comments that describe the stage or the argument below them.

use super::rule::INVALID_DESCRIPTION;
use super::{Finding, Subject, at};
use crate::instruction::{Instruction, Statement};
use crate::parse::{Dockerfile, whitespace_words};

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Finding>) {
    for (command, statement) in subject.all() {
        let Some(comment) = comment_above(subject.file, statement) else {
            continue;
        };
        let (what, name) = match &statement.instruction {
            Instruction::From(_) => {
                let words = whitespace_words(&command.rest, 0);
                match words.get(2) {
                    Some(name) => ("build stage", name.text.clone()),
                    None => continue,
                }
            }
            Instruction::Arg(list) => match list.first() {
                Some(argument) => ("argument", argument.name.clone()),
                None => continue,
            },
            _ => continue,
        };
        if describes(&comment, &name).is_none() {
            let detail = format!("Comment for {what} should follow the format: `# {name} <description>`");
            found.push(at(statement, &INVALID_DESCRIPTION, detail));
        }
    }
}

/// What the comment above a statement says about `name`.
pub(super) fn description(file: &Dockerfile, statement: &Statement, name: &str) -> Option<String> {
    comment_above(file, statement).and_then(|comment| describes(&comment, name))
}

fn describes(comment: &str, name: &str) -> Option<String> {
    let (first, rest) = comment.split_once(char::is_whitespace)?;
    (first.eq_ignore_ascii_case(name) && !rest.trim().is_empty()).then(|| rest.trim().to_owned())
}

/// The comment on the line directly above, unless it is a directive.
fn comment_above(file: &Dockerfile, statement: &Statement) -> Option<String> {
    let above = statement.snippet.line().checked_sub(1).filter(|line| *line > 0)?;
    let text = file.source.line(above).trim().strip_prefix('#')?.trim();
    let directive = ["syntax", "escape", "check"].iter().any(|name| {
        let rest = text.to_ascii_lowercase();
        rest.strip_prefix(name)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    });
    (!directive && !text.is_empty()).then(|| text.to_owned())
}
