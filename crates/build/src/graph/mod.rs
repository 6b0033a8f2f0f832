//! Stages: which instructions belong together, which stage needs which, and which are needed at all.
//!
//! This is known from the text alone, with the values of global arguments: nothing is fetched or run for it.
//! A stage that the target does not need is not built and not counted.

use std::sync::Arc;

use crate::error::BuildError;
use crate::instruction::{From, Instruction, Statement, nearest};
use crate::source::{Diagnostic, Source};

/// One stage.
#[derive(Debug, Clone)]
pub struct Stage {
    pub from: From,
    /// The FROM itself.
    pub statement: Statement,
    pub body: Vec<Statement>,
}

/// A Dockerfile as stages.
#[derive(Debug, Clone)]
pub struct Stages {
    /// The ARGs before the first FROM.
    pub global: Vec<Statement>,
    pub stages: Vec<Stage>,
}

/// A mistake at a statement, in the words of a parser.
pub fn mistake(statement: &Statement, message: impl std::fmt::Display, help: Option<String>) -> Diagnostic {
    Diagnostic {
        message: format!(
            "dockerfile parse error on line {}: {message}",
            statement.snippet.line()
        ),
        snippet: Some(statement.snippet.clone()),
        help,
    }
}

impl Stages {
    /// Sorts statements into stages.
    pub fn read(source: &Arc<Source>, statements: Vec<Statement>) -> Result<Stages, Diagnostic> {
        let mut found = Stages {
            global: Vec::new(),
            stages: Vec::new(),
        };
        for statement in statements {
            match (&statement.instruction, found.stages.last_mut()) {
                (Instruction::From(from), _) => {
                    if let Some(name) = &from.name
                        && found
                            .stages
                            .iter()
                            .any(|stage| stage.from.name.as_ref() == Some(name))
                    {
                        let message = format!("duplicate name {name}");
                        return Err(mistake(
                            &statement,
                            message,
                            Some("give the stage another name".into()),
                        ));
                    }
                    found.stages.push(Stage {
                        from: from.clone(),
                        statement,
                        body: Vec::new(),
                    });
                }
                (_, Some(stage)) => stage.body.push(statement),
                (Instruction::Arg(_), None) => found.global.push(statement),
                (_, None) => {
                    return Err(mistake(
                        &statement,
                        "no build stage in current context",
                        Some("only ARG may stand before the first FROM".into()),
                    ));
                }
            }
        }
        if found.stages.is_empty() {
            return Err(Diagnostic {
                message: "no build stage in current context".to_owned(),
                snippet: None,
                help: Some(format!("{} has no FROM", source.name())),
            });
        }
        Ok(found)
    }

    /// The stage that `text` names for something that stands in stage `before`: by name, or by number.
    pub fn find(&self, text: &str, before: usize) -> Option<usize> {
        let lower = text.to_ascii_lowercase();
        let earlier = self.stages.get(..before).unwrap_or_default();
        let named = earlier
            .iter()
            .rposition(|stage| stage.from.name.as_deref() == Some(lower.as_str()));
        named.or_else(|| text.parse().ok().filter(|index| *index < before))
    }

    /// Whether a stage behind `index` has this name.
    pub fn is_later(&self, text: &str, index: usize) -> bool {
        let lower = text.to_ascii_lowercase();
        let mut later = self.stages.iter().skip(index + 1);
        later.any(|stage| stage.from.name.as_deref() == Some(lower.as_str()))
    }

    /// The stage before `before` whose name is nearly `text`.
    pub fn alike(&self, text: &str, before: usize) -> Option<String> {
        let earlier = self.stages.get(..before).unwrap_or_default();
        let names: Vec<&str> = earlier
            .iter()
            .filter_map(|stage| stage.from.name.as_deref())
            .collect();
        nearest(text, &names).map(str::to_owned)
    }

    /// The stage to build: the one asked for, or the last.
    pub fn target(&self, wanted: Option<&str>) -> Result<usize, BuildError> {
        let count = self.stages.len();
        match wanted.filter(|wanted| !wanted.is_empty()) {
            None => Ok(count - 1),
            Some(text) => self.find(text, count).ok_or_else(|| BuildError::NoTarget {
                target: text.to_owned(),
                known: self
                    .stages
                    .iter()
                    .filter_map(|stage| stage.from.name.clone())
                    .collect(),
            }),
        }
    }

    /// Which stages `target` needs. `bases` are the expanded bases of all stages.
    pub fn needed(&self, target: usize, bases: &[String]) -> Vec<bool> {
        let mut needed = vec![false; self.stages.len()];
        let mut waiting = vec![target];
        while let Some(index) = waiting.pop() {
            let Some(mark) = needed.get_mut(index).filter(|mark| !**mark) else {
                continue;
            };
            *mark = true;
            if let Some(base) = bases.get(index) {
                waiting.extend(self.base_stage(base, index));
            }
            let body = self
                .stages
                .get(index)
                .map(|stage| stage.body.as_slice())
                .unwrap_or_default();
            for name in body.iter().flat_map(sources) {
                waiting.extend(self.find(name, index));
            }
        }
        needed
    }

    /// The stage that a base names; numbers mean images there.
    pub fn base_stage(&self, base: &str, before: usize) -> Option<usize> {
        self.find(base, before).filter(|_| base.parse::<usize>().is_err())
    }
}

/// The stages or images that an instruction takes files from.
pub fn sources(statement: &Statement) -> Vec<&str> {
    match &statement.instruction {
        Instruction::Copy(copy) => copy.from.as_deref().into_iter().collect(),
        Instruction::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| mount.from.as_deref())
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction::read_all;
    use crate::parse::parse;

    fn stages(text: &str) -> Result<Stages, Diagnostic> {
        let file = parse("Dockerfile", text.as_bytes())?;
        Stages::read(&file.source, read_all(&file)?)
    }

    fn needed(text: &str, target: Option<&str>) -> Vec<bool> {
        let stages = stages(text).unwrap();
        let bases: Vec<String> = stages
            .stages
            .iter()
            .map(|stage| stage.from.base.clone())
            .collect();
        stages.needed(stages.target(target).unwrap(), &bases)
    }

    const MANY: &str = "ARG X\nFROM a AS one\nRUN x\nFROM b AS two\nFROM one AS three\nCOPY --from=two /a /b\n\
                        FROM c AS four\nRUN --mount=from=0,target=/x y\n";

    #[test]
    fn only_what_the_target_needs() {
        assert_eq!(needed(MANY, None), [true, false, false, true]);
        assert_eq!(needed(MANY, Some("three")), [true, true, true, false]);
        assert_eq!(needed(MANY, Some("TWO")), [false, true, false, false]);
        assert_eq!(needed(MANY, Some("0")), [true, false, false, false]);
    }

    #[test]
    fn mistakes() {
        assert!(
            stages("RUN x\n")
                .unwrap_err()
                .to_string()
                .contains("no build stage in current context")
        );
        assert!(
            stages("ARG x\n")
                .unwrap_err()
                .to_string()
                .contains("no build stage in current context")
        );
        assert!(
            stages("FROM a AS x\nFROM b AS X\n")
                .unwrap_err()
                .to_string()
                .contains("duplicate name x")
        );
        let error = stages(MANY).unwrap().target(Some("nine")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "failed to reach build target nine in Dockerfile"
        );
    }

    #[test]
    fn a_stage_sees_only_earlier_ones() {
        let stages = stages("FROM b AS a\nFROM a AS b\n").unwrap();
        assert_eq!(stages.find("b", 0), None);
        assert_eq!(stages.find("a", 1), Some(0));
        assert_eq!(stages.find("1", 1), None);
        assert_eq!(stages.base_stage("0", 1), None);
    }
}
