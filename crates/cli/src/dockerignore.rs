//! `.dockerignore`: which files of a directory are not sent to the builder.
//!
//! Rules, one a line: `#` starts a comment, `!` takes files back in, the last rule that matches wins; `*` and `?` stay
//! within one name, `**` spans directories, `[a-z]` is a class, `\` takes a character literally; leading and trailing
//! slashes and dots mean nothing. A rule that matches a directory matches everything below.
//!
//! [`Rules::below`] tells whether anything under an excluded directory could be taken back in; if not, the walk need not
//! enter it. Paths are relative, with `/`. Source: Docker's build reference, ".dockerignore files".

/// The rules of one file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
struct Rule {
    /// `!`
    keep: bool,
    names: Vec<Name>,
    /// Where it stands, counted from 1; `None` for one that no file holds.
    line: Option<usize>,
    text: String,
}

/// One component of a pattern.
#[derive(Clone, Debug, PartialEq)]
enum Name {
    /// `**` alone: any number of components.
    Any,
    Pattern(Vec<Token>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Char(char),
    One,
    Many,
    Class { not: bool, ranges: Vec<(char, char)> },
}

/// A line that is no pattern.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("syntax error in pattern on line {line}: {text:?}")]
pub struct PatternError {
    pub line: usize,
    pub text: String,
}

impl Rules {
    pub fn parse(text: &str) -> Result<Rules, PatternError> {
        let mut rules = Vec::new();
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let bad = || PatternError {
                line: index + 1,
                text: line.to_owned(),
            };
            let (keep, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            if pattern.is_empty() {
                return Err(bad());
            }
            let names = names(pattern).ok_or_else(bad)?;
            if !names.is_empty() {
                rules.push(Rule {
                    keep,
                    names,
                    line: Some(index + 1),
                    text: line.to_owned(),
                });
            }
        }
        Ok(Rules { rules })
    }

    /// Adds a rule that takes one path back in, whatever the file says.
    pub fn always_keep(&mut self, path: &str) {
        let literal = |name: &str| Name::Pattern(name.chars().map(Token::Char).collect());
        let names = components(path).map(literal).collect();
        self.rules.push(Rule {
            keep: true,
            names,
            line: None,
            text: "the builder needs it".to_owned(),
        });
    }

    /// Whether a path is left out.
    pub fn excludes(&self, path: &str) -> bool {
        let parts: Vec<Vec<char>> = components(path).map(|part| part.chars().collect()).collect();
        let mut excluded = false;
        for rule in &self.rules {
            // Only a rule that would change the answer need be tried.
            if rule.keep == excluded
                && (1..=parts.len()).any(|end| matches(&rule.names, parts.get(..end).unwrap_or_default()))
            {
                excluded = !excluded;
            }
        }
        excluded
    }

    /// The rule that decides about a path: its line (`None` for one that no file holds) and its text.
    pub fn decider(&self, path: &str) -> Option<(Option<usize>, &str)> {
        let parts: Vec<Vec<char>> = components(path).map(|part| part.chars().collect()).collect();
        let covers = |rule: &&Rule| {
            (1..=parts.len()).any(|end| matches(&rule.names, parts.get(..end).unwrap_or_default()))
        };
        let last = self.rules.iter().rev().find(covers);
        last.map(|rule| (rule.line, rule.text.as_str()))
    }

    /// Whether a rule could take something back in below an excluded directory.
    pub fn below(&self, directory: &str) -> bool {
        let parts: Vec<Vec<char>> = components(directory).map(|part| part.chars().collect()).collect();
        self.rules
            .iter()
            .any(|rule| rule.keep && reaches(&rule.names, &parts))
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

/// The components of a pattern, `..` resolved; `None` when it is malformed.
fn names(pattern: &str) -> Option<Vec<Name>> {
    let mut out: Vec<Name> = Vec::new();
    for part in components(pattern) {
        match part {
            "**" => {
                if out.last() != Some(&Name::Any) {
                    out.push(Name::Any);
                }
            }
            ".." => {
                out.pop();
            }
            part => out.push(Name::Pattern(tokens(part)?)),
        }
    }
    Some(out)
}

fn tokens(part: &str) -> Option<Vec<Token>> {
    let mut out = Vec::new();
    let mut chars = part.chars().peekable();
    while let Some(c) = chars.next() {
        out.push(match c {
            '*' => {
                while chars.next_if_eq(&'*').is_some() {}
                Token::Many
            }
            '?' => Token::One,
            '\\' => Token::Char(chars.next()?),
            '[' => {
                let not = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let mut next = || match chars.next()? {
                        '\\' => chars.next().map(|c| (c, false)),
                        c => Some((c, c == ']')),
                    };
                    let (low, end) = next()?;
                    if end && !ranges.is_empty() {
                        break;
                    }
                    if end {
                        return None;
                    }
                    let high = if chars.next_if_eq(&'-').is_some() {
                        match chars.next()? {
                            '\\' => chars.next()?,
                            ']' => return None,
                            c => c,
                        }
                    } else {
                        low
                    };
                    ranges.push((low, high));
                }
                Token::Class { not, ranges }
            }
            c => Token::Char(c),
        });
    }
    Some(out)
}

/// Whether the pattern matches exactly these components.
fn matches(names: &[Name], parts: &[Vec<char>]) -> bool {
    match names.split_first() {
        None => parts.is_empty(),
        // At the end `**` needs something below; elsewhere it may stand for nothing.
        Some((Name::Any, [])) => !parts.is_empty(),
        Some((Name::Any, rest)) => {
            (0..=parts.len()).any(|skip| matches(rest, parts.get(skip..).unwrap_or_default()))
        }
        Some((Name::Pattern(tokens), rest)) => match parts.split_first() {
            Some((part, more)) => component(tokens, part) && matches(rest, more),
            None => false,
        },
    }
}

/// Whether the pattern could match something strictly below these components.
fn reaches(names: &[Name], parts: &[Vec<char>]) -> bool {
    match (names.split_first(), parts.split_first()) {
        (None, _) => false,
        (Some((Name::Any, _)), _) => true,
        (Some(_), None) => true,
        (Some((Name::Pattern(tokens), rest)), Some((part, more))) => {
            component(tokens, part) && reaches(rest, more)
        }
    }
}

fn component(tokens: &[Token], text: &[char]) -> bool {
    // Iterative glob with one point to go back to, so that hostile patterns stay linear.
    let (mut token, mut at) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < text.len() {
        let c = text.get(at).copied().unwrap_or_default();
        let step = match tokens.get(token) {
            Some(Token::Many) => {
                back = Some((token, at));
                token += 1;
                continue;
            }
            Some(Token::Char(wanted)) => *wanted == c,
            Some(Token::One) => true,
            Some(Token::Class { not, ranges }) => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *not
            }
            None => false,
        };
        if step {
            token += 1;
            at += 1;
        } else if let Some((many, from)) = back {
            token = many + 1;
            at = from + 1;
            back = Some((many, at));
        } else {
            return false;
        }
    }
    tokens
        .get(token..)
        .unwrap_or_default()
        .iter()
        .all(|token| *token == Token::Many)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(rules: &str, path: &str) -> bool {
        Rules::parse(rules).unwrap().excludes(path)
    }

    #[test]
    fn patterns() {
        for (rules, path, want) in [
            ("*.md", "README.md", true),
            ("*.md", "docs/README.md", false),
            ("**/*.md", "docs/a/README.md", true),
            ("**/*.md", "README.md", true),
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "x/node_modules", false),
            ("**/node_modules", "x/node_modules/y", true),
            ("/foo/", "foo/bar", true),
            ("./foo/../bar", "bar", true),
            ("foo/**", "foo", false),
            ("foo/**", "foo/a/b", true),
            ("foo/**/bar", "foo/bar", true),
            ("foo/**/bar", "foo/x/y/bar", true),
            ("*\n!keep", "keep", false),
            ("*\n!keep", "other", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true),
            ("*.md\n!README*.md\nREADME-secret.md", "README-x.md", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("# no\n\\#yes", "#yes", true),
            ("a*b*c", "aXbYbZc", true),
            ("**", "x", true),
            ("temp?", "tempa/x", true),
            ("dir\n!dir/keep", "dir/keep/file", false),
            ("dir\n!dir/keep", "dir/other", true),
            (".git\n*.log", ".git/HEAD", true),
        ] {
            assert_eq!(excluded(rules, path), want, "{rules:?} {path}");
        }
        assert!(Rules::parse("[a").is_err() && Rules::parse("!").is_err());
    }

    #[test]
    fn directories_that_need_no_visit() {
        let rules = Rules::parse("dir\nother\n!dir/keep/x\n").unwrap();
        assert!(
            rules.below("dir") && rules.below("dir/keep") && !rules.below("dir/no") && !rules.below("other")
        );
        assert!(Rules::parse("a\n!**/x").unwrap().below("a/b"));
        assert!(!Rules::parse("a\nb").unwrap().below("a"));
        let mut rules = Rules::parse("*").unwrap();
        rules.always_keep("Dockerfile");
        assert!(!rules.excludes("Dockerfile") && rules.excludes("x"));
    }
}
