//! How instructions and stages are named.

use super::rule::{
    CONSISTENT_CASING, DUPLICATE_STAGE, EMPTY_CONTINUATION, FROM_AS_CASING, RESERVED_STAGE, STAGE_CASING,
};
use super::{Finding, Subject, at};
use crate::instruction::{Instruction, Statement};
use crate::parse::{Command, whitespace_words};
use crate::source::{Snippet, Span};

const RESERVED: [&str; 2] = ["scratch", "context"];

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Finding>) {
    casing(subject, found);
    let mut seen: Vec<String> = Vec::new();
    for (command, statement) in subject.all() {
        if let Instruction::From(_) = &statement.instruction {
            stage(command, statement, &mut seen, found);
        }
    }
    for &line in &subject.file.empty_continuations {
        found.push(Finding {
            rule: &EMPTY_CONTINUATION,
            detail: "Empty continuation line".to_owned(),
            at: Snippet::new(&subject.file.source, Span::of_line(&subject.file.source, line)),
        });
    }
}

fn is_upper(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_lowercase())
}

fn is_lower(word: &str) -> bool {
    !word.contains(|c: char| c.is_ascii_uppercase())
}

/// The case that most instructions have is the file's.
fn casing(subject: &Subject<'_>, found: &mut Vec<Finding>) {
    let all = || subject.all().map(|(command, _)| command.written.as_str());
    let upper = all().filter(|word| is_upper(word)).count();
    let lower = all().filter(|word| is_lower(word)).count();
    let (name, fits): (&str, fn(&str) -> bool) = match lower > upper {
        true => ("lowercase", is_lower),
        false => ("uppercase", is_upper),
    };
    for (command, statement) in subject.all() {
        if !fits(&command.written) {
            let detail = format!(
                "Command '{}' should match the case of the command majority ({name})",
                command.written
            );
            found.push(at(statement, &CONSISTENT_CASING, detail));
        }
    }
}

fn stage(command: &Command, statement: &Statement, seen: &mut Vec<String>, found: &mut Vec<Finding>) {
    let words = whitespace_words(&command.rest, 0);
    let [_, r#as, name] = words.as_slice() else {
        return;
    };
    let (from_upper, from_lower) = (is_upper(&command.written), is_lower(&command.written));
    let differs = (from_upper && !is_upper(&r#as.text)) || (from_lower && !is_lower(&r#as.text));
    if differs {
        let detail = format!(
            "'{}' and '{}' keywords' casing do not match",
            r#as.text, command.written
        );
        found.push(at(statement, &FROM_AS_CASING, detail));
    }
    if !is_lower(&name.text) {
        let detail = format!("Stage name '{}' should be lowercase", name.text);
        found.push(at(statement, &STAGE_CASING, detail));
    }
    let lower = name.text.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) {
        let detail = format!("Stage name should not use the same name as reserved stage \"{lower}\"");
        found.push(at(statement, &RESERVED_STAGE, detail));
    }
    if seen.contains(&lower) {
        let detail = format!("Duplicate stage name \"{lower}\", stage names should be unique");
        found.push(at(statement, &DUPLICATE_STAGE, detail));
    }
    seen.push(lower);
}
