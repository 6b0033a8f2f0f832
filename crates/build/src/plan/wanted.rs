//! The images a build needs, as far as the text and the global arguments say: what can be fetched at the same
//! time, before planning goes through the stages one by one.

use spec::Platform;

use super::bases::Wanted;
use super::{Arguments, fault, mistake};
use crate::error::BuildError;
use crate::expand::expand_word;
use crate::graph::{Stage, Stages, sources};
use crate::instruction::Statement;
use crate::request::NamedContext;
use crate::step::Build;
use crate::transcript::StepNumber;

/// The images that the needed stages start from or take files from, as far as the text says.
pub fn wanted_images(
    build: &Build,
    stages: &Stages,
    bases: &[String],
    needed: &[bool],
    arguments: &Arguments,
    first: usize,
) -> Result<Vec<Wanted>, BuildError> {
    let mut wanted = Vec::new();
    let mut number = first;
    let asked = build.request.platform.clone();
    let contexts = &build.request.named_contexts;
    for (index, stage) in stages.stages.iter().enumerate() {
        if !needed.get(index).copied().unwrap_or(false) {
            continue;
        }
        let mut want = |name: &str, platform: &Option<Platform>, number: usize, statement: &Statement| {
            wanted.push(Wanted {
                name: name.to_owned(),
                platform: platform.clone(),
                number: StepNumber(number),
                statement: statement.clone(),
                alike: stages.alike(name, index),
            });
        };
        let base = bases.get(index).map(String::as_str).unwrap_or_default();
        if let Some(named) = contexts.get(&context_name(base)) {
            if let NamedContext::Image(image) = named {
                let platform = platform_of(stage, arguments, asked.as_ref())?;
                want(image, &platform, number, &stage.statement);
            }
        } else if base != "scratch" && stages.base_stage(base, index).is_none() {
            let platform = platform_of(stage, arguments, asked.as_ref())?;
            want(base, &platform, number, &stage.statement);
        }
        number += 1;
        for statement in &stage.body {
            let own = stage.from.name.as_deref();
            for name in sources(statement) {
                match contexts.get(&context_name(name)) {
                    Some(NamedContext::Image(image)) => {
                        want(image, &asked, number, statement);
                        continue;
                    }
                    Some(_) => continue,
                    None => {}
                }
                let is_stage = stages.find(name, index).is_some() || own == Some(&name.to_ascii_lowercase());
                if name != "scratch" && !is_stage && !name.contains('$') {
                    want(name, &asked, number, statement);
                }
            }
            number += 1;
        }
    }
    Ok(wanted)
}

/// By what a named context is known: the name as it stands, or the full name where it is an image's.
pub fn context_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.contains(['/', ':', '.']) {
        true => spec::Reference::parse_normalized(&lower)
            .map_or(lower, |reference| reference.or_latest().familiar()),
        false => lower,
    }
}

/// Expands a text of a FROM.
pub fn expand_global(arguments: &Arguments, text: &str, statement: &Statement) -> Result<String, BuildError> {
    let variables = |name: &str| arguments.global(name);
    expand_word(text, statement.escape, &variables).map_err(|error| fault(statement, &error))
}

/// The platform that the FROM of a stage, or else the request, asks for.
pub fn platform_of(
    stage: &Stage,
    arguments: &Arguments,
    asked: Option<&Platform>,
) -> Result<Option<Platform>, BuildError> {
    let Some(text) = &stage.from.platform else {
        return Ok(asked.cloned());
    };
    let text = expand_global(arguments, text, &stage.statement)?;
    let platform = text.parse().map_err(|error| {
        mistake(
            &stage.statement,
            format!("failed to parse platform {text}: {error}"),
        )
    })?;
    Ok(Some(platform))
}
