//! Shell patterns for names of images, as Go's `path.Match` reads them: `*` and `?` do not match a slash, `[a-c]` and `[^a-c]` are
//! one of a class, `\` takes the meaning from what follows.
//!
//! A pattern is matched in time that is no more than its length times the name's.

enum Token {
    /// Any number of characters but slashes.
    Any,
    /// One that is no slash.
    One,
    Char(char),
    Class {
        excluded: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern that can be matched against names.
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    /// `None` where it is none: a class that does not end, a backslash with nothing behind it.
    pub(super) fn read(text: &str) -> Option<Pattern> {
        let mut rest = text.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(char) = rest.next() {
            tokens.push(match char {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => Token::Char(rest.next()?),
                '[' => {
                    let excluded = rest.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
                        let first = of_class(&mut rest)?;
                        let last = match rest.next_if_eq(&'-') {
                            Some(_) => of_class(&mut rest)?,
                            None => first,
                        };
                        ranges.push((first, last));
                    }
                    Token::Class { excluded, ranges }
                }
                other => Token::Char(other),
            });
        }
        Some(Pattern(tokens))
    }

    /// Whether it matches the whole name.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        // Whether what was read of the pattern matches the first so many characters.
        let mut reached = vec![false; name.len() + 1];
        if let Some(nothing) = reached.first_mut() {
            *nothing = true;
        }
        for token in &self.0 {
            let mut next = vec![false; name.len() + 1];
            let mut open = false;
            for (at, before) in reached.iter().enumerate() {
                let char = name.get(at).copied();
                match token {
                    Token::Any => {
                        open |= *before;
                        if let Some(slot) = next.get_mut(at) {
                            *slot = open;
                        }
                        open &= char != Some('/');
                    }
                    _ => {
                        let fits = char.is_some_and(|char| token.fits(char));
                        if let Some(slot) = next.get_mut(at + 1) {
                            *slot = *before && fits;
                        }
                    }
                }
            }
            reached = next;
        }
        reached.last().copied().unwrap_or(false)
    }
}

impl Token {
    fn fits(&self, char: char) -> bool {
        match self {
            Token::Any => false,
            Token::One => char != '/',
            Token::Char(own) => *own == char,
            Token::Class { excluded, ranges } => {
                ranges
                    .iter()
                    .any(|(first, last)| (*first..=*last).contains(&char))
                    != *excluded
            }
        }
    }
}

/// A character of a class, at either end of a range.
fn of_class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        char => Some(char),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_go_matches_them() {
        for (pattern, name, matches) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "aäb", true),
            ("a???b", "aäb", false),
            ("a[^a]b", "aäb", true),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
        ] {
            let read = Pattern::read(pattern).unwrap();
            assert_eq!(read.matches(name), matches, "{pattern} and {name}");
        }
        for bad in [
            "[]a]", "[-]", "[x-]", "[-x]", "[", "[^", "[^bc", "a[", "a\\", "[a-b-c]",
        ] {
            assert!(Pattern::read(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn many_stars_cost_nothing() {
        let pattern = Pattern::read(&"*a".repeat(2000)).unwrap();
        assert!(!pattern.matches(&"a".repeat(1999)));
        assert!(pattern.matches(&"a".repeat(2000)));
    }
}
