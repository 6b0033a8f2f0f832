//! The text of a Dockerfile and places in it, so that every message about it can show the line and point at
//! the words that are meant, as a compiler does.
//!
//! Columns count characters, lines count from 1. Long lines are shown shortened around the place that is
//! meant; control characters are shown as spaces, because the text is foreign and ends on a terminal.

use std::fmt;
use std::sync::Arc;

/// The widest piece of a source line that a message shows.
const SHOWN_WIDTH: usize = 160;

/// A Dockerfile's name and lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    name: String,
    lines: Vec<String>,
}

impl Source {
    /// Takes the text apart into lines. Bytes that are not UTF-8 become replacement characters: they can only
    /// matter inside comments and values, and refusing the file would help nobody.
    pub fn new(name: &str, bytes: &[u8]) -> Arc<Source> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
        if lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Arc::new(Source {
            name: name.to_owned(),
            lines,
        })
    }

    /// The name the file was asked for by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lines without their line feed; a carriage return at the end is still there.
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Line `number`, counted from 1, without a carriage return; empty where there is no such line.
    pub fn line(&self, number: usize) -> &str {
        let line = number.checked_sub(1).and_then(|index| self.lines.get(index));
        line.map_or("", |line| line.trim_end_matches('\r'))
    }
}

/// A place in a Dockerfile: `width` characters from `column` of `line`; the statement it belongs to ends on
/// `last_line`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub line: usize,
    pub column: usize,
    pub width: usize,
    pub last_line: usize,
}

impl Span {
    /// The whole of `line`, from its first visible character.
    pub fn of_line(source: &Source, line: usize) -> Span {
        let text = source.line(line);
        let indent = text.chars().take_while(|c| c.is_whitespace()).count();
        let width = text.trim().chars().count();
        Span {
            line,
            column: indent + 1,
            width: width.max(1),
            last_line: line,
        }
    }
}

/// A place together with the text it lies in; displays as the lines below a compiler's message.
#[derive(Clone, PartialEq, Eq)]
pub struct Snippet {
    source: Arc<Source>,
    span: Span,
}

impl Snippet {
    /// A snippet that shows `span` of `source`.
    pub fn new(source: &Arc<Source>, span: Span) -> Snippet {
        Snippet {
            source: source.clone(),
            span,
        }
    }

    /// The line the place is on, counted from 1.
    pub fn line(&self) -> usize {
        self.span.line
    }

    /// The last line of the statement, counted from 1.
    pub fn last_line(&self) -> usize {
        self.span.last_line.max(self.span.line)
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let mut text = self.source.lines().join("\n");
        text.push('\n');
        text
    }

    /// The name of the Dockerfile.
    pub fn file(&self) -> &str {
        self.source.name()
    }
}

impl fmt::Debug for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}",
            self.source.name(),
            self.span.line,
            self.span.column
        )
    }
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Span {
            line, column, width, ..
        } = self.span;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{gutter}--> {}:{line}:{column}", self.source.name())?;
        writeln!(f, "{gutter} |")?;
        let text: Vec<char> = self
            .source
            .line(line)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let start = column.saturating_sub(1).min(text.len());
        // A line that does not fit is shown from a little before the place that is meant.
        let from = if text.len() <= SHOWN_WIDTH {
            0
        } else {
            start.saturating_sub(40)
        };
        let shown: String = text.iter().skip(from).take(SHOWN_WIDTH).collect();
        let (lead, tail) = (
            if from > 0 { "…" } else { "" },
            if text.len() > from + SHOWN_WIDTH {
                "…"
            } else {
                ""
            },
        );
        writeln!(f, "{number} | {lead}{}{tail}", shown.trim_end())?;
        let room = text.len().saturating_sub(start).clamp(1, SHOWN_WIDTH);
        let marks = "^".repeat(width.clamp(1, room));
        write!(
            f,
            "{gutter} | {}{marks}",
            " ".repeat(lead.chars().count() + start - from.min(start))
        )
    }
}

/// A message about a place in a Dockerfile: the sentence, the line, a caret, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The whole first line.
    pub message: String,
    pub snippet: Option<Snippet>,
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(snippet) = &self.snippet {
            write!(f, "\n{snippet}")?;
        }
        match &self.help {
            Some(help) => write!(f, "\n  = help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str, span: Span) -> String {
        Snippet::new(&Source::new("Dockerfile", text.as_bytes()), span).to_string()
    }

    #[test]
    fn points_at_the_words() {
        let span = Span {
            line: 2,
            column: 5,
            width: 3,
            last_line: 2,
        };
        assert_eq!(
            show("FROM a\nRUN foo bar\n", span),
            " --> Dockerfile:2:5\n  |\n2 | RUN foo bar\n  |     ^^^"
        );
    }

    #[test]
    fn never_points_past_the_line() {
        let span = Span {
            line: 1,
            column: 50,
            width: 900,
            last_line: 1,
        };
        assert_eq!(
            show("FROM", span),
            " --> Dockerfile:1:50\n  |\n1 | FROM\n  |     ^"
        );
        let span = Span {
            line: 9,
            column: 1,
            width: 1,
            last_line: 9,
        };
        assert_eq!(show("FROM", span), " --> Dockerfile:9:1\n  |\n9 | \n  | ^");
    }

    #[test]
    fn shortens_long_lines_and_hides_control_characters() {
        let text = format!("RUN {}\u{1b}[31mX", "a".repeat(500));
        let shown = show(
            &text,
            Span {
                line: 1,
                column: 505,
                width: 1,
                last_line: 1,
            },
        );
        assert!(shown.lines().all(|line| line.chars().count() < 180), "{shown}");
        assert!(!shown.contains('\u{1b}'));
    }
}
