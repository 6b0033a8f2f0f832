//! Tokens of a template: text outside `{{ }}`, and words, numbers, strings and marks inside.
//!
//! Trim markers (`{{- ` and ` -}}`) are applied here. Every token knows its byte offset, which errors report.

use super::TemplateError;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Text(String),
    Open,
    Close,
    /// `.Name`
    Field(String),
    /// A dot alone.
    Dot,
    /// `$` or `$name`
    Variable(String),
    /// A bare word: a keyword or a function.
    Word(String),
    Int(i64),
    Float(f64),
    Str(String),
    Char(char),
    Pipe,
    ParenOpen,
    ParenClose,
    Comma,
    Declare,
    Assign,
    /// White space between operands (it separates `.a .b` from `.a.b`).
    Space,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    pub at: usize,
}

/// The line of a byte offset, from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    1 + text
        .as_bytes()
        .iter()
        .take(at)
        .filter(|byte| **byte == b'\n')
        .count()
}

/// The column of a byte offset within its line, as Go counts it (from 0 on the first line).
pub(super) fn column_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    match before.iter().rposition(|byte| *byte == b'\n') {
        Some(newline) => at - newline - 1,
        None => at,
    }
}

fn error(text: &str, at: usize, message: impl Into<String>) -> TemplateError {
    TemplateError::Parse {
        line: line_of(text, at),
        message: message.into(),
    }
}

pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut out = Vec::new();
    let mut at = 0;
    let mut trim_next = false;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let open = rest.find("{{");
        let mut chunk = rest.get(..open.unwrap_or(rest.len())).unwrap_or_default();
        if trim_next {
            chunk = chunk.trim_start();
        }
        let Some(open) = open else {
            if !chunk.is_empty() {
                out.push(Token {
                    kind: Kind::Text(chunk.to_owned()),
                    at,
                });
            }
            break;
        };
        let inner = at + open + 2;
        let after = text.get(inner..).unwrap_or_default();
        let mut body = inner;
        if after.starts_with('-')
            && after
                .get(1..)
                .is_some_and(|next| next.starts_with([' ', '\t', '\r', '\n']))
        {
            chunk = chunk.trim_end();
            body += 1;
        }
        if !chunk.is_empty() {
            out.push(Token {
                kind: Kind::Text(chunk.to_owned()),
                at,
            });
        }
        let (end, trim) = action(text, body, at + open, &mut out)?;
        at = end;
        trim_next = trim;
    }
    Ok(out)
}

/// Reads one action from `at` (behind `{{`); answers where the text goes on and whether it is trimmed there.
fn action(
    text: &str,
    mut at: usize,
    open: usize,
    out: &mut Vec<Token>,
) -> Result<(usize, bool), TemplateError> {
    let comment = text.get(at..).unwrap_or_default().trim_start();
    if comment.starts_with("/*") {
        let start = text.len() - comment.len();
        let Some(end) = comment.find("*/") else {
            return Err(error(text, open, "unclosed comment"));
        };
        let tail = text.get(start + end + 2..).unwrap_or_default();
        let space = tail.len() - tail.trim_start().len();
        let trimmed = tail.trim_start();
        return if tail.starts_with("}}") {
            Ok((start + end + 4, false))
        } else if space > 0 && trimmed.starts_with("-}}") {
            Ok((start + end + 2 + space + 3, true))
        } else {
            Err(error(text, open, "comment ends before closing delimiter"))
        };
    }
    out.push(Token {
        kind: Kind::Open,
        at: open,
    });
    let mut parens = 0usize;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(first) = rest.chars().next() else {
            return Err(error(text, open, "unclosed action"));
        };
        let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let space = rest.len() - trimmed.len();
        if space > 0 {
            if trimmed.starts_with("-}}") {
                out.push(Token {
                    kind: Kind::Close,
                    at: at + space,
                });
                return Ok((at + space + 3, true));
            }
            out.push(Token {
                kind: Kind::Space,
                at,
            });
            at += space;
            continue;
        }
        if rest.starts_with("}}") {
            if parens > 0 {
                return Err(error(text, at, "unclosed left paren"));
            }
            out.push(Token {
                kind: Kind::Close,
                at,
            });
            return Ok((at + 2, false));
        }
        let (kind, length) = match first {
            '|' => (Kind::Pipe, 1),
            '(' => {
                parens += 1;
                (Kind::ParenOpen, 1)
            }
            ')' => {
                if parens == 0 {
                    return Err(error(text, at, "unexpected right paren"));
                }
                parens -= 1;
                (Kind::ParenClose, 1)
            }
            ',' => (Kind::Comma, 1),
            '=' => (Kind::Assign, 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            ':' => return Err(error(text, at, "expected :=")),
            '"' => quoted(text, rest, at)?,
            '`' => match rest.get(1..).and_then(|body| body.find('`')) {
                Some(end) => (
                    Kind::Str(rest.get(1..=end).unwrap_or_default().to_owned()),
                    end + 2,
                ),
                None => return Err(error(text, at, "unterminated raw quoted string")),
            },
            '\'' => character(text, rest, at)?,
            '$' => {
                let name = word(rest.get(1..).unwrap_or_default());
                (Kind::Variable(format!("${name}")), 1 + name.len())
            }
            '.' if rest
                .get(1..)
                .is_some_and(|next| next.starts_with(|c: char| c.is_ascii_digit())) =>
            {
                number(text, rest, at)?
            }
            '.' => {
                let name = word(rest.get(1..).unwrap_or_default());
                let kind = if name.is_empty() {
                    Kind::Dot
                } else {
                    Kind::Field(name.to_owned())
                };
                (kind, 1 + name.len())
            }
            '+' | '-' | '0'..='9' => number(text, rest, at)?,
            letter if letter.is_alphabetic() || letter == '_' => {
                let name = word(rest);
                (Kind::Word(name.to_owned()), name.len())
            }
            other => {
                return Err(error(
                    text,
                    at,
                    format!(
                        "unexpected unrecognized character in action: U+{:04X} '{other}'",
                        other as u32
                    ),
                ));
            }
        };
        out.push(Token { kind, at });
        at += length;
    }
}

fn word(text: &str) -> &str {
    let end = text
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    text.get(..end).unwrap_or_default()
}

fn number(text: &str, rest: &str, at: usize) -> Result<(Kind, usize), TemplateError> {
    let end = rest
        .char_indices()
        .find(|(index, c)| {
            let sign_of_exponent = (*c == '+' || *c == '-')
                && (*index == 0 || rest.get(..*index).is_some_and(|b| b.ends_with(['e', 'E'])));
            !(c.is_ascii_alphanumeric() || *c == '.' || *c == '_' || sign_of_exponent)
        })
        .map_or(rest.len(), |(index, _)| index);
    let digits = rest.get(..end).unwrap_or_default();
    let plain = digits.replace('_', "");
    let bare = plain.trim_start_matches(['+', '-']);
    let radix = match bare.get(..2) {
        Some("0x" | "0X") => Some(16),
        Some("0b" | "0B") => Some(2),
        Some("0o" | "0O") => Some(8),
        _ => None,
    };
    let int = match radix {
        Some(radix) => i64::from_str_radix(bare.get(2..).unwrap_or_default(), radix)
            .ok()
            .map(|value| if plain.starts_with('-') { -value } else { value }),
        None => plain.parse::<i64>().ok(),
    };
    if let Some(int) = int {
        return Ok((Kind::Int(int), end));
    }
    match plain.parse::<f64>() {
        Ok(float) => Ok((Kind::Float(float), end)),
        Err(_) => Err(error(text, at, format!("bad number syntax: \"{digits}\""))),
    }
}

fn character(text: &str, rest: &str, at: usize) -> Result<(Kind, usize), TemplateError> {
    let bad = || error(text, at, "unterminated character constant");
    let mut length = 1;
    let mut inner = String::new();
    let mut escaped = false;
    for c in rest.chars().skip(1) {
        length += c.len_utf8();
        if !escaped && c == '\'' {
            let mut letters = unquote(&inner).ok_or_else(bad)?.chars().collect::<Vec<_>>();
            return match (letters.pop(), letters.is_empty()) {
                (Some(letter), true) => Ok((Kind::Char(letter), length)),
                _ => Err(error(
                    text,
                    at,
                    format!("malformed character constant: '{inner}'"),
                )),
            };
        }
        escaped = !escaped && c == '\\';
        inner.push(c);
    }
    Err(bad())
}

fn quoted(text: &str, rest: &str, at: usize) -> Result<(Kind, usize), TemplateError> {
    let mut length = 1;
    let mut inner = String::new();
    let mut escaped = false;
    for c in rest.chars().skip(1) {
        length += c.len_utf8();
        if c == '\n' {
            break;
        }
        if !escaped && c == '"' {
            let value = unquote(&inner).ok_or_else(|| error(text, at, "invalid syntax"))?;
            return Ok((Kind::Str(value), length));
        }
        escaped = !escaped && c == '\\';
        inner.push(c);
    }
    Err(error(text, at, "unterminated quoted string"))
}

/// Go's escapes inside an interpreted string.
fn unquote(inner: &str) -> Option<String> {
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let next = chars.next()?;
        let mut code = |count: usize| {
            let digits: String = chars.by_ref().take(count).collect();
            u32::from_str_radix(&digits, 16)
                .ok()
                .filter(|_| digits.len() == count)
                .and_then(char::from_u32)
        };
        out.push(match next {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' => '\\',
            '"' => '"',
            '\'' => '\'',
            'x' => code(2)?,
            'u' => code(4)?,
            'U' => code(8)?,
            _ => return None,
        });
    }
    Some(out)
}
