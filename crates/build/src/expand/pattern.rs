//! Shell patterns of `${v#p}` and `${v/p/r}`: `*` any text, `?` any character, everything else itself.
//!
//! Matching keeps the set of reachable positions of the pattern, so that it takes at most value × pattern
//! steps per starting point, whatever the pattern.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    One,
    Any,
}

/// A compiled pattern.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

impl Glob {
    /// Adds a character; `literal` takes away the meaning of `*` and `?`.
    pub fn push(&mut self, c: char, literal: bool) {
        let token = match c {
            '*' if !literal => Token::Any,
            '?' if !literal => Token::One,
            c => Token::Literal(c),
        };
        if token == Token::Any && self.tokens.last() == Some(&Token::Any) {
            return;
        }
        self.tokens.push(token);
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// How many bytes at the start of `text` the pattern can match: the shortest or the longest way.
    fn match_start(&self, text: &str, longest: bool) -> Option<usize> {
        let goal = self.tokens.len();
        let mut reached = vec![false; goal + 1];
        reached[0] = true;
        self.skip_any(&mut reached);
        let mut best = reached[goal].then_some(0);
        for (at, c) in text.char_indices() {
            if best.is_some() && !longest {
                return best;
            }
            let mut next = vec![false; goal + 1];
            let mut alive = false;
            for (index, token) in self.tokens.iter().enumerate() {
                if !reached[index] {
                    continue;
                }
                match token {
                    Token::Any => next[index] = true,
                    Token::One => next[index + 1] = true,
                    Token::Literal(wanted) if *wanted == c => next[index + 1] = true,
                    Token::Literal(_) => continue,
                }
                alive = true;
            }
            if !alive {
                return best;
            }
            self.skip_any(&mut next);
            reached = next;
            if reached[goal] {
                best = Some(at + c.len_utf8());
            }
        }
        best
    }

    /// A `*` may match nothing.
    fn skip_any(&self, reached: &mut [bool]) {
        for (index, token) in self.tokens.iter().enumerate() {
            if reached[index] && *token == Token::Any {
                reached[index + 1] = true;
            }
        }
    }

    fn reversed(&self) -> Glob {
        Glob {
            tokens: self.tokens.iter().rev().copied().collect(),
        }
    }

    /// `text` without what the pattern matches at its start.
    pub fn strip_prefix<'t>(&self, text: &'t str, longest: bool) -> &'t str {
        let cut = self.match_start(text, longest).unwrap_or(0);
        text.get(cut..).unwrap_or_default()
    }

    /// `text` without what the pattern matches at its end.
    pub fn strip_suffix<'t>(&self, text: &'t str, longest: bool) -> &'t str {
        let backwards: String = text.chars().rev().collect();
        let cut = self.reversed().match_start(&backwards, longest).unwrap_or(0);
        text.get(..text.len() - cut).unwrap_or_default()
    }

    /// `text` with the first match, or all of them, replaced; `None` if that grows beyond `limit` bytes.
    pub fn replace(&self, text: &str, by: &str, all: bool, limit: usize) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        let mut replaced = false;
        while !rest.is_empty() {
            let found = if replaced && !all {
                None
            } else {
                self.match_start(rest, true)
            };
            match found.filter(|length| *length > 0) {
                Some(length) => {
                    out.push_str(by);
                    rest = rest.get(length..).unwrap_or_default();
                    replaced = true;
                }
                None if replaced && !all => {
                    out.push_str(rest);
                    rest = "";
                }
                None => {
                    let mut chars = rest.chars();
                    out.extend(chars.next());
                    rest = chars.as_str();
                }
            }
            if out.len() > limit {
                return None;
            }
        }
        Some(out)
    }
}
