//! What instructions take from the context.

use super::rule::COPY_IGNORED;
use super::{Finding, Subject, at};
use crate::instruction::Instruction;
use crate::pattern::{clean, has_wildcard};
use crate::remote::{is_git, is_url};

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Finding>) {
    for (command, statement) in subject.all() {
        let (Instruction::Copy(copy) | Instruction::Add(copy)) = &statement.instruction else {
            continue;
        };
        if copy.from.is_some() {
            continue;
        }
        for source in &copy.sources {
            let plain = !has_wildcard(source) && !source.contains('$') && !is_url(source) && !is_git(source);
            // Where an exception may take something below it back, the directory is not gone.
            if plain && subject.ignore.judge(&clean(source)).prune {
                let verb = if command.keyword == "ADD" { "Add" } else { "Copy" };
                let detail =
                    format!("Attempting to {verb} file \"{source}\" that is excluded by .dockerignore");
                found.push(at(statement, &COPY_IGNORED, detail));
            }
        }
    }
}
