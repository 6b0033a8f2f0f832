//! Variables: used and not set, set and not usable, or holding what nobody should see.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use spec::Reference;

use super::rule::{
    INVALID_DEFAULT, PLATFORM_CONSTANT, REDUNDANT_PLATFORM, SECRETS, UNDEFINED_IN_FROM, UNDEFINED_VAR,
};
use super::{Finding, Subject, at};
use crate::expand::{Variables, expand_word};
use crate::instruction::{From, Instruction, Statement, nearest};
use crate::plan::{PREDEFINED, is_platform_argument};

/// Words that make a name look like that of a secret, as a part of it between underscores.
const TOKENS: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "password",
    "pword",
    "passwd",
    "secret",
    "token",
];

/// Whether a variable of this name probably holds a secret.
pub fn looks_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let mut parts = lower.split(['_', '-']);
    let secret = parts.clone().any(|part| TOKENS.contains(&part));
    secret && !parts.any(|part| part == "public")
}

pub(super) fn check(subject: &Subject<'_>, found: &mut Vec<Finding>) {
    let mut global: BTreeMap<String, Option<String>> = BTreeMap::new();
    let mut stage: Option<usize> = None;
    // What each stage has set at its end, `None` where its base is not known.
    let mut known: Vec<Option<BTreeSet<String>>> = Vec::new();
    for (_, statement) in subject.all() {
        secrets(statement, found);
        match (&statement.instruction, stage) {
            (Instruction::From(from), _) => {
                in_from(from, statement, &global, found);
                let number = known.len();
                stage = Some(number);
                known.push(base_names(subject, from, number, &known));
            }
            (Instruction::Arg(list), None) => {
                for argument in list {
                    let default = argument.default.as_deref().and_then(|text| {
                        let variables = |name: &str| global.get(name).cloned().flatten();
                        expand_word(text, statement.escape, &variables).ok()
                    });
                    global.insert(argument.name.clone(), default);
                }
            }
            (instruction, Some(number)) => {
                if let Some(Some(names)) = known.get(number) {
                    for name in unknown(instruction, statement.escape, names) {
                        let advice = suggestion(&name, names.iter().map(String::as_str), "$");
                        let detail = format!("Usage of undefined variable '${name}'{advice}");
                        found.push(at(statement, &UNDEFINED_VAR, detail));
                    }
                }
                if let Some(Some(names)) = known.get_mut(number) {
                    match instruction {
                        Instruction::Env(pairs) => names.extend(pairs.iter().map(|pair| pair.key.clone())),
                        Instruction::Arg(list) => names.extend(list.iter().map(|arg| arg.name.clone())),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
}

/// The variables a stage starts with.
fn base_names(
    subject: &Subject<'_>,
    from: &From,
    number: usize,
    known: &[Option<BTreeSet<String>>],
) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::from(["PATH".to_owned()]);
    let base = subject
        .stages
        .and_then(|stages| stages.base_stage(&from.base, number));
    if let Some(base) = base {
        return known.get(base).cloned().flatten();
    }
    if from.base != "scratch" {
        let env = subject.environments.get(&number)?;
        names.extend(
            env.iter()
                .filter_map(|entry| Some(entry.split_once('=')?.0.to_owned())),
        );
    }
    Some(names)
}

fn secrets(statement: &Statement, found: &mut Vec<Finding>) {
    let mut report = |keyword: &str, name: &str| {
        if looks_secret(name) {
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({keyword} \"{name}\")");
            found.push(at(statement, &SECRETS, detail));
        }
    };
    match &statement.instruction {
        Instruction::Arg(list) => list.iter().for_each(|argument| report("ARG", &argument.name)),
        Instruction::Env(pairs) => pairs.iter().for_each(|pair| report("ENV", &pair.key)),
        _ => {}
    }
}

fn in_from(
    from: &From,
    statement: &Statement,
    global: &BTreeMap<String, Option<String>>,
    found: &mut Vec<Finding>,
) {
    let declared = |name: &str| global.contains_key(name) || is_platform_argument(name);
    let used = names_in(&from.base, statement.escape);
    let in_platform = from
        .platform
        .as_deref()
        .map(|platform| names_in(platform, statement.escape))
        .unwrap_or_default();
    for name in used.iter().chain(&in_platform).filter(|name| !declared(name)) {
        let names = global
            .keys()
            .map(String::as_str)
            .chain(PREDEFINED.iter().copied());
        let advice = suggestion(name, names, "");
        let detail = format!("FROM argument '{name}' is not declared{advice}");
        found.push(at(statement, &UNDEFINED_IN_FROM, detail));
    }
    let variables = |name: &str| match is_platform_argument(name) {
        true => Some("x".to_owned()),
        false => global.get(name).cloned().flatten(),
    };
    let base = expand_word(&from.base, statement.escape, &variables).unwrap_or_default();
    if !used.is_empty() && Reference::parse_normalized(&base).is_err() {
        for name in used.iter().filter(|name| {
            global
                .get(*name)
                .is_some_and(|value| value.as_deref().unwrap_or_default().is_empty())
        }) {
            let detail = format!("Default value for ARG {name} results in empty or invalid base image name");
            found.push(at(statement, &INVALID_DEFAULT, detail));
        }
    }
    let Some(platform) = &from.platform else {
        return;
    };
    if matches!(platform.as_str(), "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
        let detail = format!(
            "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior"
        );
        found.push(at(statement, &REDUNDANT_PLATFORM, detail));
    }
    // A stage whose name says its platform is one of several to choose from.
    let architecture = platform.split('/').nth(1).unwrap_or(platform);
    let named = from
        .name
        .as_deref()
        .is_some_and(|name| name.contains(architecture));
    if !platform.contains('$') && !named {
        let detail = format!("FROM --platform flag should not use constant value \"{platform}\"");
        found.push(at(statement, &PLATFORM_CONSTANT, detail));
    }
}

/// Hears which variables an expansion asks for; every one is set, so that nothing fails.
struct Recorder {
    asked: RefCell<BTreeSet<String>>,
}

impl Variables for Recorder {
    fn get(&self, name: &str) -> Option<String> {
        self.asked.borrow_mut().insert(name.to_owned());
        Some("x".to_owned())
    }

    /// Who gives a default knows that it may be unset.
    fn get_optional(&self, _name: &str) -> Option<String> {
        None
    }
}

fn names_in(text: &str, escape: char) -> Vec<String> {
    let recorder = Recorder {
        asked: RefCell::default(),
    };
    // What is wrong with the text is told elsewhere.
    let _ = expand_word(text, escape, &recorder);
    recorder.asked.into_inner().into_iter().collect()
}

/// The variables an instruction uses and nobody set.
fn unknown(instruction: &Instruction, escape: char, names: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for text in texts(instruction) {
        for name in names_in(text, escape) {
            if !names.contains(&name) && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    found
}

/// The texts of an instruction in which variables are expanded.
fn texts(instruction: &Instruction) -> Vec<&str> {
    match instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs
            .iter()
            .flat_map(|pair| [pair.key.as_str(), pair.value.as_str()])
            .collect(),
        Instruction::Arg(list) => list
            .iter()
            .filter_map(|argument| argument.default.as_deref())
            .collect(),
        Instruction::Expose(list) | Instruction::Volume(list) => list.iter().map(String::as_str).collect(),
        Instruction::User(text) | Instruction::Workdir(text) | Instruction::Stopsignal(text) => vec![text],
        Instruction::Copy(copy) | Instruction::Add(copy) => {
            let flags = [&copy.chown, &copy.chmod, &copy.checksum].into_iter().flatten();
            let all = copy.sources.iter().chain([&copy.destination]).chain(flags);
            all.map(String::as_str).collect()
        }
        _ => Vec::new(),
    }
}

fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>, sign: &str) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(name, &known) {
        Some(near) => format!(" (did you mean {sign}{near}?)"),
        None => String::new(),
    }
}
