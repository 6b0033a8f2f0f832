//! What works in a Dockerfile and is better written otherwise: the 21 rules that BuildKit's clients know by name.
//!
//! ```text
//!   commands, statements, stages ──> rules by topic ──> findings, in the order of the file
//!                                    naming, usage, values, context, describe
//! ```
//!
//! A rule looks at texts only; nothing is fetched or run for it. What images bring along is told by the caller
//! ([`Subject::environments`]), and a rule that would need what is not known says nothing: a false alarm is worse than a
//! missed one. `# check=` in the file switches rules off, makes findings fatal, or switches the experimental ones on.

mod context;
mod describe;
mod naming;
mod outline;
pub mod report;
mod rule;
#[cfg(test)]
mod tests;
mod usage;
mod values;

use std::collections::{BTreeMap, BTreeSet};

use image::Images;
use spec::Platform;

use crate::graph::Stages;
use crate::instruction::Statement;
use crate::parse::{Command, Directives, Dockerfile};
use crate::pattern::Ignore;
use crate::source::{Diagnostic, Snippet, Span};

pub use outline::{Outline, OutlineArgument, OutlineItem, Target, outline, targets};
pub use rule::{RULES, Rule};
pub use values::looks_secret;

/// The build argument that takes the place of `# check=`.
const ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Something a rule found.
#[derive(Debug, Clone)]
pub struct Finding {
    pub rule: &'static Rule,
    /// What is meant here, in one line.
    pub detail: String,
    pub at: Snippet,
}

/// What is looked at.
pub struct Subject<'a> {
    pub file: &'a Dockerfile,
    pub statements: &'a [Statement],
    /// `None` where the file cannot be sorted into stages.
    pub stages: Option<&'a Stages>,
    pub ignore: &'a Ignore,
    pub build_args: &'a BTreeMap<String, Option<String>>,
    pub platform: Platform,
    /// The environment that the image of a stage brings along, by the stage's number, where it is known.
    pub environments: BTreeMap<usize, Vec<String>>,
}

impl<'a> Subject<'a> {
    /// The commands with what they say.
    fn all(&self) -> impl Iterator<Item = (&'a Command, &'a Statement)> + use<'a> {
        self.file.commands.iter().zip(self.statements)
    }
}

/// What `# check=` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    skip: BTreeSet<String>,
    experimental: BTreeSet<String>,
    /// Findings fail the build.
    pub error: bool,
}

impl Settings {
    /// Reads `skip=RULE,RULE;experimental=RULE;error=BOOL`; `all` stands for every rule.
    pub fn read(directives: &Directives, file: &Dockerfile) -> Result<Settings, Diagnostic> {
        let text = directives.check.as_deref().unwrap_or_default();
        Settings::parse(text).map_err(|message| {
            let is_check = |line: &&String| line.to_ascii_lowercase().contains("check");
            let line = file
                .source
                .lines()
                .iter()
                .position(|line| is_check(&line))
                .unwrap_or(0)
                + 1;
            Diagnostic {
                message: format!("dockerfile parse error on line {line}: {message}"),
                snippet: Some(Snippet::new(&file.source, Span::of_line(&file.source, line))),
                help: Some("write it as # check=skip=RULE,RULE;error=true".to_owned()),
            }
        })
    }

    /// What counts for a build: the argument `BUILDKIT_DOCKERFILE_CHECK`, else what the file says.
    pub fn of_build(
        file: &Dockerfile,
        build_args: &BTreeMap<String, Option<String>>,
    ) -> Result<Settings, Diagnostic> {
        match build_args.get(ARGUMENT) {
            Some(Some(text)) => Settings::parse(text).map_err(|message| Diagnostic {
                message: format!("{ARGUMENT}: {message}"),
                snippet: None,
                help: Some("write it as skip=RULE,RULE;error=true".to_owned()),
            }),
            _ => Settings::read(&file.directives, file),
        }
    }

    fn parse(text: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option \"{part}\""));
            };
            let names = || {
                value
                    .split(',')
                    .map(|name| name.trim().to_ascii_lowercase())
                    .filter(|name| !name.is_empty())
            };
            match key.trim().to_ascii_lowercase().as_str() {
                "skip" => settings.skip.extend(names()),
                "experimental" => settings.experimental.extend(names()),
                "error" => {
                    settings.error = value
                        .trim()
                        .parse()
                        .map_err(|_| format!("invalid value for check option \"error\": {value}"))?;
                }
                _ => return Err(format!("invalid check option \"{}\"", key.trim())),
            }
        }
        Ok(settings)
    }

    fn wants(&self, rule: &Rule) -> bool {
        let named =
            |set: &BTreeSet<String>| set.contains("all") || set.contains(&rule.name.to_ascii_lowercase());
        (!rule.experimental || named(&self.experimental)) && !named(&self.skip)
    }
}

/// Everything the rules have to say.
pub fn check(subject: &Subject<'_>, settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    naming::check(subject, &mut found);
    usage::check(subject, &mut found);
    values::check(subject, &mut found);
    context::check(subject, &mut found);
    describe::check(subject, &mut found);
    found.retain(|finding| settings.wants(finding.rule));
    found.sort_by_key(|finding| finding.at.line());
    found
}

/// What the images that are here set for the stages that start from them.
pub fn environments(images: &Images, stages: &Stages) -> BTreeMap<usize, Vec<String>> {
    let bases = stages.stages.iter().map(|stage| stage.from.base.as_str());
    let known = bases
        .enumerate()
        .filter_map(|(number, base)| Some((number, images.config(base).ok()?.config.env)));
    known.collect()
}

/// Why a file with findings is not built where it says that it must not be; the first of them is shown.
pub fn violation(findings: &[Finding]) -> Option<Diagnostic> {
    let first = findings.first()?;
    let rules: BTreeSet<&str> = findings.iter().map(|finding| finding.rule.name).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    Some(Diagnostic {
        message: format!("lint violation found for rules: {}", rules.join(", ")),
        snippet: Some(first.at.clone()),
        help: Some(format!("{}: {}", first.rule.description, first.detail)),
    })
}

/// A finding at a whole statement.
fn at(statement: &Statement, rule: &'static Rule, detail: impl Into<String>) -> Finding {
    Finding {
        rule,
        detail: detail.into(),
        at: statement.snippet.clone(),
    }
}
