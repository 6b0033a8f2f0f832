//! From the bytes of a Dockerfile to commands: keyword, flags, the rest of the line, heredocs.
//!
//! Nothing here knows what an instruction means; [`crate::instruction`] does. Every token can be traced to its
//! line and column, also through line continuations. Never panics and never loops on any input: the file is
//! bounded by [`MAX_SIZE`], every step consumes input.
//!
//! Source of the rules: the Dockerfile reference (format, parser directives, escape, here-documents).

mod command;
mod directive;
mod heredoc;
mod line;
mod words;

use std::sync::Arc;

pub use command::{Command, Flag};
pub use directive::Directives;
pub use heredoc::{Heredoc, announce};
pub use line::Logical;
pub use words::{Word, json_strings, pair_words, whitespace_words};

use crate::source::{Diagnostic, Snippet, Source, Span};

/// The largest Dockerfile that is read.
pub const MAX_SIZE: usize = 16 << 20;

/// A fault at a byte range of a logical line, before it is known which line of the file that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub message: String,
    pub offset: usize,
    pub width: usize,
    pub help: Option<String>,
}

impl Fault {
    /// A fault at `word`.
    pub fn at(word: &Word, message: impl Into<String>) -> Fault {
        Fault {
            message: message.into(),
            offset: word.offset,
            width: word.width,
            help: None,
        }
    }

    /// The same fault with advice.
    pub fn help(mut self, help: impl Into<String>) -> Fault {
        self.help = Some(help.into());
        self
    }
}

/// A Dockerfile taken apart, commands in the order of the file.
#[derive(Debug)]
pub struct Dockerfile {
    pub source: Arc<Source>,
    pub directives: Directives,
    pub commands: Vec<Command>,
    /// Things that work but will surprise, one sentence each.
    pub warnings: Vec<String>,
    /// Empty lines inside continued ones, counted from 1.
    pub empty_continuations: Vec<usize>,
}

/// Takes a Dockerfile apart. `name` is what messages call the file.
pub fn parse(name: &str, bytes: &[u8]) -> Result<Dockerfile, Diagnostic> {
    if bytes.len() > MAX_SIZE {
        return Err(Diagnostic {
            message: format!(
                "dockerfile {name} is too large: {} bytes, at most {MAX_SIZE}",
                bytes.len()
            ),
            snippet: None,
            help: None,
        });
    }
    let source = Source::new(name, bytes);
    let directives = Directives::read(&source)?;
    let mut reader = line::Reader::new(&source, directives.escape);
    let mut commands = Vec::new();
    while let Some(logical) = reader.next_logical() {
        let logical = Arc::new(logical);
        let mut command = Command::split(&source, logical.clone(), directives.escape)
            .map_err(|fault| diagnose(&source, &logical, fault))?;
        if command.takes_heredocs() {
            for wanted in heredoc::wanted(&command.rest, directives.escape) {
                let read = heredoc::read(&mut reader, wanted)
                    .map_err(|fault| diagnose(&source, &logical, shift(fault, command.rest_offset)))?;
                command.heredocs.push(read);
            }
            command.last_line = command.last_line.max(reader.line_number());
        }
        commands.push(command);
    }
    if commands.is_empty() {
        return Err(Diagnostic {
            message: "file with no instructions".to_owned(),
            snippet: None,
            help: Some(format!("{name} must contain at least one FROM instruction")),
        });
    }
    let (warnings, empty_continuations) = reader.into_warnings();
    Ok(Dockerfile {
        warnings,
        empty_continuations,
        source,
        directives,
        commands,
    })
}

/// Reads one command that stands in no file, such as the trigger of an image, with its heredocs. Messages say it
/// is on `line`.
pub fn parse_text(text: &str, escape: char, line: usize) -> Result<Command, Fault> {
    let whole = |message: &str| Fault {
        message: message.to_owned(),
        offset: 0,
        width: text.len(),
        help: None,
    };
    let source = Source::new("ONBUILD", text.as_bytes());
    let mut reader = line::Reader::new(&source, escape);
    let Some(logical) = reader.next_logical() else {
        return Err(whole("empty instruction"));
    };
    let logical = Arc::new(Logical::detached(&logical.text, line));
    let mut command = Command::split(&source, logical, escape)?;
    if command.takes_heredocs() {
        for wanted in heredoc::wanted(&command.rest, escape) {
            let read =
                heredoc::read(&mut reader, wanted).map_err(|fault| shift(fault, command.rest_offset))?;
            command.heredocs.push(read);
        }
    }
    match reader.next_logical() {
        Some(_) => Err(whole("more than one instruction")),
        None => Ok(command),
    }
}

fn shift(mut fault: Fault, by: usize) -> Fault {
    fault.offset += by;
    fault
}

/// Turns a fault into the message users read.
pub fn diagnose(source: &Arc<Source>, logical: &Logical, fault: Fault) -> Diagnostic {
    let span = logical.span(fault.offset, fault.width);
    Diagnostic {
        message: format!(
            "dockerfile parse error on line {}: {}",
            logical.first_line(),
            fault.message
        ),
        snippet: Some(Snippet::new(source, span)),
        help: fault.help,
    }
}

/// The message for a fault of a whole physical line, outside of any command.
fn diagnose_line(source: &Arc<Source>, line: usize, message: &str, help: Option<String>) -> Diagnostic {
    Diagnostic {
        message: format!("dockerfile parse error on line {line}: {message}"),
        snippet: Some(Snippet::new(source, Span::of_line(source, line))),
        help,
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
