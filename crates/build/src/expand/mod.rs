//! Expansion of variables, quotes and escapes in words of a Dockerfile.
//!
//! Forms: `$v`, `${v}`, `${v-w}` `${v:-w}` `${v+w}` `${v:+w}` `${v?w}` `${v:?w}`, `${v#p}` `${v##p}` `${v%p}`
//! `${v%%p}`, `${v/p/r}` `${v//p/r}`; the word after an operator is itself expanded. Single quotes protect
//! everything, double quotes protect blanks, the escape character protects the next character.
//!
//! A value may not grow beyond [`MAX_VALUE`] bytes and braces may not nest deeper than [`MAX_DEPTH`], because
//! a few lines that double a variable would otherwise fill the memory.
//!
//! Source of the rules: the Dockerfile reference, "Environment replacement".

mod pattern;

/// The largest value that an expansion may yield.
pub const MAX_VALUE: usize = 1 << 20;
/// How deep `${…}` may stand inside each other.
pub const MAX_DEPTH: usize = 32;

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    #[error("syntax error: missing '}}'")]
    Brace,
    #[error("bad substitution: ${{{0}")]
    Bad(String),
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    #[error("{name}: {message}")]
    Unset { name: String, message: String },
    #[error("the value of a variable grows beyond {MAX_VALUE} bytes")]
    TooLarge,
    #[error("substitutions are nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

/// The variables that an expansion sees.
pub trait Variables {
    /// The variable's value, if it is set.
    fn get(&self, name: &str) -> Option<String>;

    /// The variable's value where the text says itself what holds without one.
    fn get_optional(&self, name: &str) -> Option<String> {
        self.get(name)
    }
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// Expands `text` as one word: quotes vanish, blanks stay.
pub fn expand_word(text: &str, escape: char, variables: &dyn Variables) -> Result<String, ExpandError> {
    let mut lexer = Lexer::new(text, escape, variables);
    let mut out = Output::default();
    lexer.run(None, &mut out, 0)?;
    Ok(out.text)
}

/// Expands `text` as words: blanks outside quotes separate, also those that come out of unquoted variables.
pub fn expand_words(text: &str, escape: char, variables: &dyn Variables) -> Result<Vec<String>, ExpandError> {
    let mut lexer = Lexer::new(text, escape, variables);
    let mut out = Output {
        words: Some(Words::default()),
        ..Output::default()
    };
    lexer.run(None, &mut out, 0)?;
    let words = out.words.unwrap_or_default();
    Ok(words.finish())
}

/// Expands variables in the content of a heredoc: quotes mean nothing there, only `$` and the escape
/// character before `$`, a backquote or itself do.
pub fn expand_document(text: &str, escape: char, variables: &dyn Variables) -> Result<String, ExpandError> {
    let mut lexer = Lexer::new(text, escape, variables);
    let mut out = Output::default();
    while let Some(c) = lexer.peek() {
        if c == '$' {
            let value = lexer.dollar(0)?;
            out.push_value(&value, true)?;
        } else if c == escape {
            lexer.next();
            match lexer.peek() {
                Some(next) if next == '$' || next == '`' || next == escape => {
                    lexer.next();
                    out.push(next)?;
                }
                _ => out.push(escape)?,
            }
        } else {
            lexer.next();
            out.push(c)?;
        }
    }
    Ok(out.text)
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    /// A word has begun, perhaps an empty one in quotes.
    open: bool,
}

impl Words {
    fn finish(mut self) -> Vec<String> {
        self.close();
        self.done
    }

    fn close(&mut self) {
        if self.open {
            self.done.push(std::mem::take(&mut self.current));
            self.open = false;
        }
    }
}

#[derive(Default)]
struct Output {
    text: String,
    words: Option<Words>,
}

impl Output {
    fn room(&self, more: usize) -> Result<(), ExpandError> {
        if self.text.len() + more > MAX_VALUE {
            return Err(ExpandError::TooLarge);
        }
        Ok(())
    }

    /// Adds a character as it is, never a separator.
    fn push(&mut self, c: char) -> Result<(), ExpandError> {
        self.room(c.len_utf8())?;
        self.text.push(c);
        if let Some(words) = &mut self.words {
            words.open = true;
            words.current.push(c);
        }
        Ok(())
    }

    /// Adds a character that separates words if it is a blank.
    fn push_plain(&mut self, c: char) -> Result<(), ExpandError> {
        if !c.is_whitespace() {
            return self.push(c);
        }
        self.room(c.len_utf8())?;
        self.text.push(c);
        if let Some(words) = &mut self.words {
            words.close();
        }
        Ok(())
    }

    fn push_value(&mut self, value: &str, quoted: bool) -> Result<(), ExpandError> {
        self.room(value.len())?;
        value
            .chars()
            .try_for_each(|c| if quoted { self.push(c) } else { self.push_plain(c) })
    }

    /// Notes that a word exists even if nothing is in it.
    fn open(&mut self) {
        if let Some(words) = &mut self.words {
            words.open = true;
        }
    }
}

struct Lexer<'a> {
    chars: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    variables: &'a dyn Variables,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, variables: &'a dyn Variables) -> Lexer<'a> {
        Lexer {
            chars: text.chars().peekable(),
            escape,
            variables,
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        self.chars.next()
    }

    /// Expands up to `stop` (which is consumed) or the end.
    fn run(&mut self, stop: Option<char>, out: &mut Output, depth: usize) -> Result<(), ExpandError> {
        loop {
            let Some(c) = self.peek() else {
                return if stop.is_some() {
                    Err(ExpandError::Brace)
                } else {
                    Ok(())
                };
            };
            if Some(c) == stop {
                self.next();
                return Ok(());
            }
            match c {
                '\'' => self.single_quote(out)?,
                '"' => self.double_quote(out, depth)?,
                '$' => {
                    let value = self.dollar(depth)?;
                    out.push_value(&value, false)?;
                }
                c if c == self.escape => {
                    self.next();
                    if let Some(next) = self.next() {
                        out.push(next)?;
                    }
                }
                c => {
                    self.next();
                    out.push_plain(c)?;
                }
            }
        }
    }

    fn single_quote(&mut self, out: &mut Output) -> Result<(), ExpandError> {
        self.next();
        out.open();
        loop {
            match self.next() {
                None => return Err(ExpandError::SingleQuote),
                Some('\'') => return Ok(()),
                Some(c) => out.push(c)?,
            }
        }
    }

    fn double_quote(&mut self, out: &mut Output, depth: usize) -> Result<(), ExpandError> {
        self.next();
        out.open();
        loop {
            match self.peek() {
                None => return Err(ExpandError::DoubleQuote),
                Some('"') => {
                    self.next();
                    return Ok(());
                }
                Some('$') => {
                    let value = self.dollar(depth)?;
                    out.push_value(&value, true)?;
                }
                Some(c) if c == self.escape => {
                    self.next();
                    match self.next() {
                        None => return Err(ExpandError::DoubleQuote),
                        Some(next) if next == '"' || next == '$' || next == self.escape => out.push(next)?,
                        Some(next) => {
                            out.push(c)?;
                            out.push(next)?;
                        }
                    }
                }
                Some(c) => {
                    self.next();
                    out.push(c)?;
                }
            }
        }
    }

    fn dollar(&mut self, depth: usize) -> Result<String, ExpandError> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(self.variables.get(&name).unwrap_or_default());
        }
        if depth >= MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        self.next();
        match self.peek() {
            None => return Err(ExpandError::Brace),
            Some(c @ ('{' | '}' | ':')) => {
                self.next();
                return Err(ExpandError::Bad(if c == '}' {
                    "}".to_owned()
                } else {
                    c.to_string()
                }));
            }
            Some(_) => {}
        }
        let name = self.name();
        if name.is_empty() {
            let c = self.next().map(String::from).unwrap_or_default();
            return Err(ExpandError::Bad(c));
        }
        match self.next() {
            None => Err(ExpandError::Brace),
            Some('}') => Ok(self.variables.get(&name).unwrap_or_default()),
            Some(operator) => self.operate(&name, operator, depth + 1),
        }
    }

    /// Applies the operator after a name inside braces.
    fn operate(&mut self, name: &str, operator: char, depth: usize) -> Result<String, ExpandError> {
        let value = match operator {
            ':' | '-' | '+' | '?' => self.variables.get_optional(name),
            _ => self.variables.get(name),
        };
        match operator {
            ':' => match self.next() {
                None => Err(ExpandError::Brace),
                Some(kind @ ('-' | '+' | '?')) => {
                    let word = self.word('}', depth)?;
                    let full = value.filter(|value| !value.is_empty());
                    choose(name, kind, full, word, "not allowed to be unset or empty")
                }
                Some(other) => Err(ExpandError::Modifier(format!(":{other}"))),
            },
            '-' | '+' | '?' => {
                let word = self.word('}', depth)?;
                choose(name, operator, value, word, "not allowed to be unset")
            }
            '#' | '%' => {
                let longest = self.peek() == Some(operator);
                if longest {
                    self.next();
                }
                let glob = self.pattern('}', depth)?;
                let value = value.unwrap_or_default();
                Ok(match operator {
                    '#' => glob.strip_prefix(&value, longest),
                    _ => glob.strip_suffix(&value, longest),
                }
                .to_owned())
            }
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.next();
                }
                let glob = self.pattern('/', depth)?;
                let replacement = self.word('}', depth)?;
                let value = value.unwrap_or_default();
                glob.replace(&value, &replacement, all, MAX_VALUE)
                    .ok_or(ExpandError::TooLarge)
            }
            other => Err(ExpandError::Modifier(other.to_string())),
        }
    }

    fn word(&mut self, stop: char, depth: usize) -> Result<String, ExpandError> {
        let mut out = Output::default();
        self.run(Some(stop), &mut out, depth)?;
        Ok(out.text)
    }

    /// Reads a pattern up to `stop`: variables in it are expanded, an escape makes the next character literal.
    fn pattern(&mut self, stop: char, depth: usize) -> Result<pattern::Glob, ExpandError> {
        let mut glob = pattern::Glob::default();
        loop {
            match self.peek() {
                None => return Err(ExpandError::Brace),
                Some(c) if c == stop => {
                    self.next();
                    return Ok(glob);
                }
                Some('$') => {
                    let value = self.dollar(depth)?;
                    value.chars().for_each(|c| glob.push(c, false));
                }
                Some(c) if c == self.escape => {
                    self.next();
                    match self.next() {
                        None => return Err(ExpandError::Brace),
                        Some(next) => glob.push(next, true),
                    }
                }
                Some(c) => {
                    self.next();
                    glob.push(c, false);
                }
            }
            if glob.len() > MAX_VALUE {
                return Err(ExpandError::TooLarge);
            }
        }
    }

    /// A variable's name: letters, digits and underscores, all digits, or one of the shell's special ones.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.peek() {
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                    self.next();
                }
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.peek().filter(char::is_ascii_digit) {
                    name.push(c);
                    self.next();
                }
            }
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                name.push(c);
                self.next();
            }
            _ => {}
        }
        name
    }
}

fn choose(
    name: &str,
    kind: char,
    value: Option<String>,
    word: String,
    complaint: &str,
) -> Result<String, ExpandError> {
    match (kind, value) {
        ('-', Some(value)) | ('?', Some(value)) => Ok(value),
        ('-', None) => Ok(word),
        ('+', Some(_)) => Ok(word),
        ('+', None) => Ok(String::new()),
        _ => {
            let message = if word.is_empty() {
                complaint.to_owned()
            } else {
                word
            };
            Err(ExpandError::Unset {
                name: name.to_owned(),
                message,
            })
        }
    }
}

#[cfg(test)]
mod tests;
