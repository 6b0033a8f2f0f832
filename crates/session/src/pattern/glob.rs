//! One pattern, compiled per path component.
//!
//! Matching works on components from left to right with the set of pattern positions that are still possible;
//! that also answers whether anything below a directory could match, which is what makes pruning possible.

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern \"{0}\"")]
pub struct PatternError(pub String);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Any,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`: any number of directories.
    Directories,
    Tokens(Vec<Token>),
}

/// A compiled pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    components: Vec<Component>,
}

/// Whether a text holds any character that means something in a pattern.
pub fn has_wildcard(text: &str) -> bool {
    text.contains(['*', '?', '[', '\\'])
}

impl Pattern {
    /// Compiles a cleaned pattern (no leading slash, no `.` parts).
    pub fn new(text: &str) -> Result<Pattern, PatternError> {
        let mut components = Vec::new();
        for part in text.split('/').filter(|part| !part.is_empty()) {
            let component = match part {
                "**" => Component::Directories,
                part => Component::Tokens(tokens(part).ok_or_else(|| PatternError(text.to_owned()))?),
            };
            if component == Component::Directories && components.last() == Some(&Component::Directories) {
                continue;
            }
            components.push(component);
        }
        Ok(Pattern { components })
    }

    /// The positions in the pattern from which a path may go on, before its first component.
    pub fn start(&self) -> Vec<usize> {
        self.closure(vec![0])
    }

    /// The positions after one more path component.
    pub fn step(&self, positions: &[usize], name: &str) -> Vec<usize> {
        let mut next = Vec::new();
        for &position in positions {
            match self.components.get(position) {
                Some(Component::Directories) => {
                    next.push(position);
                    // At the end of a pattern it needs at least one component of its own: `a/**` is what lies
                    // below `a`, not `a`.
                    if position + 1 == self.components.len() {
                        next.push(position + 1);
                    }
                }
                Some(Component::Tokens(tokens)) if component_matches(tokens, name) => next.push(position + 1),
                _ => {}
            }
        }
        self.closure(next)
    }

    /// A `**` may stand for no directory at all, unless it ends the pattern.
    fn closure(&self, mut positions: Vec<usize>) -> Vec<usize> {
        let mut index = 0;
        while let Some(&position) = positions.get(index) {
            let last = position + 1 == self.components.len();
            if self.components.get(position) == Some(&Component::Directories) && !last {
                positions.push(position + 1);
            }
            index += 1;
        }
        positions.sort_unstable();
        positions.dedup();
        positions
    }

    /// Whether the path read so far is matched.
    pub fn accepts(&self, positions: &[usize]) -> bool {
        positions.contains(&self.components.len())
    }

    /// Whether something below the path read so far could be matched.
    pub fn alive_below(&self, positions: &[usize]) -> bool {
        positions.iter().any(|&position| position < self.components.len())
    }

    /// Whether the whole of a cleaned path is matched.
    pub fn matches(&self, path: &str) -> bool {
        let names = path.split('/').filter(|part| !part.is_empty());
        let positions = names.fold(self.start(), |positions, name| self.step(&positions, name));
        self.accepts(&positions)
    }
}

/// Compiles one component; `None` if it is broken.
fn tokens(part: &str) -> Option<Vec<Token>> {
    let mut found = Vec::new();
    let mut chars = part.chars().peekable();
    while let Some(c) = chars.next() {
        let token = match c {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => Token::Literal(chars.next()?),
            '[' => {
                let negated = chars.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                loop {
                    let low = match chars.next()? {
                        ']' if !ranges.is_empty() => break,
                        ']' | '-' => return None,
                        '\\' => chars.next()?,
                        c => c,
                    };
                    let high = match chars.next_if_eq(&'-') {
                        None => low,
                        Some(_) => match chars.next()? {
                            ']' | '-' => return None,
                            '\\' => chars.next()?,
                            c => c,
                        },
                    };
                    ranges.push((low, high));
                }
                Token::Class { negated, ranges }
            }
            c => Token::Literal(c),
        };
        if token == Token::Any && found.last() == Some(&Token::Any) {
            continue;
        }
        found.push(token);
    }
    Some(found)
}

/// Whether one name matches one component. Backtracks to the last `*` only, so it is at most quadratic.
fn component_matches(tokens: &[Token], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut index) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        match (tokens.get(index), name.get(at)) {
            (Some(Token::Any), _) => {
                star = Some((index, at));
                index += 1;
                continue;
            }
            (Some(token), Some(&c)) if token_matches(token, c) => {
                index += 1;
                at += 1;
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        match &mut star {
            Some((back, taken)) if *taken < name.len() => {
                *taken += 1;
                at = *taken;
                index = *back + 1;
            }
            _ => return false,
        }
    }
}

fn token_matches(token: &Token, c: char) -> bool {
    match token {
        Token::Literal(wanted) => *wanted == c,
        Token::One => true,
        Token::Any => false,
        Token::Class { negated, ranges } => {
            ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
        }
    }
}
