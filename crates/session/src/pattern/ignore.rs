//! `.dockerignore`: which files of a context do not exist for the build.
//!
//! One pattern per line, `#` comments, `!` takes a path back in, the last line that matches decides. A pattern
//! that matches a directory also covers everything below it. Patterns are anchored at the root of the
//! context. Unlike in Docker, a directory is only walked into when a later `!` line could reach something
//! inside it, so that one exception does not make the walk visit every excluded file.

use super::{Pattern, PatternError, clean};

#[derive(Debug, Clone)]
struct Rule {
    pattern: Pattern,
    /// A `!` line.
    includes: bool,
    /// As it is written.
    text: String,
    /// Where it stands, counted from 1.
    line: usize,
}

/// The rules of one `.dockerignore`.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
}

/// What the rules say about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub ignored: bool,
    /// The path is ignored as a directory and nothing below it can be taken back.
    pub prune: bool,
}

impl Ignore {
    /// Reads the file's text.
    pub fn parse(text: &str) -> Result<Ignore, PatternError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut lines = Vec::new();
        let numbered = text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#'));
        for (line, number) in numbered {
            let line = line.trim();
            let (includes, body) = match line.strip_prefix('!') {
                Some(body) => (true, body.trim()),
                None => (false, line),
            };
            if body.is_empty() {
                if includes {
                    return Err(PatternError("!".to_owned()));
                }
                continue;
            }
            lines.push((includes, body, number));
        }
        Ignore::of(lines)
    }

    /// Rules that exclude what any of `patterns` matches, as `--exclude` gives them.
    pub fn excluding<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Ignore, PatternError> {
        Ignore::of(
            patterns
                .into_iter()
                .zip(1..)
                .map(|(pattern, number)| match pattern.strip_prefix('!') {
                    Some(pattern) => (true, pattern, number),
                    None => (false, pattern, number),
                }),
        )
    }

    fn of<'a>(lines: impl IntoIterator<Item = (bool, &'a str, usize)>) -> Result<Ignore, PatternError> {
        let mut rules = Vec::new();
        for (includes, written, line) in lines {
            let text = clean(written);
            // A lone dot or slash is the context itself, which cannot be ignored.
            if !text.is_empty() {
                rules.push(Rule {
                    pattern: Pattern::new(&text)?,
                    includes,
                    text: format!("{}{written}", if includes { "!" } else { "" }),
                    line,
                });
            }
        }
        Ok(Ignore { rules })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that decides about a path: its line and its text. None does for what no rule matches.
    pub fn decider(&self, path: &str) -> Option<(usize, &str)> {
        let names: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let covers = |rule: &&Rule| {
            let mut positions = rule.pattern.start();
            names.iter().any(|name| {
                positions = rule.pattern.step(&positions, name);
                rule.pattern.accepts(&positions)
            })
        };
        let last = self.rules.iter().rev().find(covers);
        last.map(|rule| (rule.line, rule.text.as_str()))
    }

    /// Judges a path relative to the root of the context, without leading slash.
    pub fn judge(&self, path: &str) -> Verdict {
        let names: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let mut ignored = false;
        let mut can_return = false;
        for rule in &self.rules {
            let mut positions = rule.pattern.start();
            let mut covered = false;
            for name in &names {
                positions = rule.pattern.step(&positions, name);
                // The pattern matches this path or a directory above it.
                covered |= rule.pattern.accepts(&positions);
            }
            if covered {
                ignored = !rule.includes;
                can_return = false;
            } else if rule.includes && rule.pattern.alive_below(&positions) {
                can_return = true;
            }
        }
        Verdict {
            ignored,
            prune: ignored && !can_return,
        }
    }
}
