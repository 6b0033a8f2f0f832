//! One command: keyword, flags, and the rest of the line.

use std::sync::Arc;

use super::{Fault, Heredoc, Logical};
use crate::source::{Snippet, Source};

/// A flag such as `--from=base`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    pub name: String,
    /// What stands behind the equals sign; `None` without one.
    pub value: Option<String>,
    pub offset: usize,
    pub width: usize,
}

/// A command as written, with its keyword in capitals.
#[derive(Debug, Clone)]
pub struct Command {
    pub keyword: String,
    /// The keyword as it was written.
    pub written: String,
    pub keyword_offset: usize,
    pub flags: Vec<Flag>,
    /// The rest of the line behind the flags, without blanks around it.
    pub rest: String,
    /// Where the rest starts in the logical line.
    pub rest_offset: usize,
    pub heredocs: Vec<Heredoc>,
    pub logical: Arc<Logical>,
    pub last_line: usize,
    pub source: Arc<Source>,
    pub escape: char,
}

impl Command {
    /// Takes a logical line apart.
    pub fn split(source: &Arc<Source>, logical: Arc<Logical>, escape: char) -> Result<Command, Fault> {
        let text = logical.text.as_str();
        let start = text.len() - text.trim_start().len();
        let body = &text[start..];
        let end = start + body.find(char::is_whitespace).unwrap_or(body.len());
        let written = text[start..end].to_owned();
        let (flags, from) = flags(text, end, escape)?;
        let rest = text.get(from..).unwrap_or_default();
        let indent = rest.len() - rest.trim_start().len();
        Ok(Command {
            keyword: written.to_ascii_uppercase(),
            written,
            keyword_offset: start,
            flags,
            rest: rest.trim().to_owned(),
            rest_offset: from + indent,
            heredocs: Vec::new(),
            last_line: logical.last_line(),
            logical: logical.clone(),
            source: source.clone(),
            escape,
        })
    }

    /// Whether lines after this one may belong to it as here-documents.
    pub fn takes_heredocs(&self) -> bool {
        match self.keyword.as_str() {
            "RUN" | "COPY" | "ADD" => true,
            "ONBUILD" => {
                let inner = self.rest.split_whitespace().next().unwrap_or_default();
                matches!(inner.to_ascii_uppercase().as_str(), "RUN" | "COPY" | "ADD")
            }
            _ => false,
        }
    }

    /// The line as users wrote it, for the progress display.
    pub fn code(&self) -> &str {
        self.logical.text.trim()
    }

    /// The place of the keyword.
    pub fn snippet(&self) -> Snippet {
        let text = &self.logical.text;
        let width = text.trim().len();
        let mut span = self.logical.span(self.keyword_offset, width);
        span.last_line = self.last_line;
        Snippet::new(&self.source, span)
    }

    /// A fault at the keyword.
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault {
            message: message.into(),
            offset: self.keyword_offset,
            width: self.written.len(),
            help: None,
        }
    }

    /// A fault at the arguments, or at the keyword where there are none.
    pub fn rest_fault(&self, message: impl Into<String>) -> Fault {
        if self.rest.is_empty() {
            return self.fault(message);
        }
        Fault {
            message: message.into(),
            offset: self.rest_offset,
            width: self.rest.len(),
            help: None,
        }
    }
}

/// Reads words that start with `--` from `from` on; gives them and where the rest starts. Quotes and escapes
/// inside a flag protect blanks and vanish; a lone `--` ends the flags and vanishes too.
fn flags(text: &str, from: usize, escape: char) -> Result<(Vec<Flag>, usize), Fault> {
    let mut found = Vec::new();
    let mut at = from;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let start = at + (rest.len() - rest.trim_start().len());
        let Some(word) = text.get(start..).filter(|word| word.starts_with("--")) else {
            return Ok((found, start));
        };
        let (unquoted, width) = unquote(word, escape);
        at = start + width;
        if unquoted == "--" {
            return Ok((found, at));
        }
        let body = unquoted.strip_prefix("--").unwrap_or_default();
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name.is_empty() {
            let message = format!("unknown flag: {unquoted}");
            return Err(Fault {
                message,
                offset: start,
                width,
                help: None,
            });
        }
        found.push(Flag {
            name: name.to_owned(),
            value,
            offset: start,
            width,
        });
    }
}

/// The first word of `text` without quotes and escapes, and how many bytes it took.
fn unquote(text: &str, escape: char) -> (String, usize) {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            return (out, at);
        }
        if quote == Some(c) {
            quote = None;
        } else if quote.is_none() && (c == '"' || c == '\'') {
            quote = Some(c);
        } else if c == escape {
            if let Some((_, next)) = chars.next() {
                out.push(next);
            }
        } else {
            out.push(c);
        }
    }
    (out, text.len())
}
