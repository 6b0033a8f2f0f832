//! Logical lines: physical lines joined at continuations, without comments and empty lines between them, each
//! piece remembering where in the file it came from.

use super::heredoc::Wanted;
use crate::source::{Source, Span};

/// A run of a logical line that is also a run of one physical line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    /// Byte offset in the logical line.
    offset: usize,
    line: usize,
    /// Column of the first character, counted from 1.
    column: usize,
}

/// One instruction's text after joining.
#[derive(Debug, PartialEq, Eq)]
pub struct Logical {
    pub text: String,
    pieces: Vec<Piece>,
    last_line: usize,
}

impl Logical {
    /// A line that stands in no file, such as a trigger stored in an image, reported as being on `line`.
    pub fn detached(text: &str, line: usize) -> Logical {
        Logical {
            text: text.to_owned(),
            pieces: vec![Piece {
                offset: 0,
                line,
                column: 1,
            }],
            last_line: line,
        }
    }

    /// The physical line on which the instruction starts.
    pub fn first_line(&self) -> usize {
        self.pieces.first().map_or(0, |piece| piece.line)
    }

    /// The physical line on which it ends.
    pub fn last_line(&self) -> usize {
        self.last_line
    }

    /// Where in the file `width` bytes from `offset` stand. What runs over the end of a physical line is cut
    /// there.
    pub fn span(&self, offset: usize, width: usize) -> Span {
        let offset = floor_char(&self.text, offset);
        let end = floor_char(&self.text, offset.saturating_add(width));
        let index = self
            .pieces
            .partition_point(|piece| piece.offset <= offset)
            .saturating_sub(1);
        let piece = self.pieces.get(index).copied().unwrap_or(Piece {
            offset: 0,
            line: 1,
            column: 1,
        });
        let stop = self
            .pieces
            .get(index + 1)
            .map_or(self.text.len(), |next| next.offset);
        let chars = |from: usize, to: usize| self.text.get(from..to).map_or(0, |s| s.chars().count());
        Span {
            line: piece.line,
            column: piece.column + chars(piece.offset, offset),
            width: chars(offset, end.min(stop).max(offset)).max(1),
            last_line: self.last_line,
        }
    }
}

fn floor_char(text: &str, offset: usize) -> usize {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Walks over the physical lines of a file.
pub struct Reader<'a> {
    source: &'a Source,
    escape: char,
    /// Index of the next physical line.
    next: usize,
    warnings: Vec<String>,
    empty: Vec<usize>,
}

impl<'a> Reader<'a> {
    /// A reader at the top of `source`.
    pub fn new(source: &'a Source, escape: char) -> Reader<'a> {
        Reader {
            source,
            escape,
            next: 0,
            warnings: Vec::new(),
            empty: Vec::new(),
        }
    }

    /// The number of the physical line read last.
    pub fn line_number(&self) -> usize {
        self.next
    }

    /// What surprises, in words, and the numbers of the empty lines inside continued ones.
    pub fn into_warnings(self) -> (Vec<String>, Vec<usize>) {
        (self.warnings, self.empty)
    }

    /// The next instruction's text, or nothing at the end of the file.
    pub fn next_logical(&mut self) -> Option<Logical> {
        let source = self.source;
        let (mut text, mut pieces) = (String::new(), Vec::new());
        let mut empty_inside = None;
        let mut last_line = 0;
        while let Some(raw) = source.lines().get(self.next) {
            self.next += 1;
            let line = raw.trim_end_matches('\r');
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                if !pieces.is_empty() {
                    empty_inside.get_or_insert(self.next);
                }
                continue;
            }
            // Only the first line loses its indentation; that of the others may matter inside a value.
            let kept = if pieces.is_empty() { trimmed } else { line };
            let indent = line.chars().count() - kept.chars().count();
            let (kept, goes_on) = self.cut_continuation(kept);
            pieces.push(Piece {
                offset: text.len(),
                line: self.next,
                column: indent + 1,
            });
            text.push_str(kept);
            last_line = self.next;
            if !goes_on {
                break;
            }
        }
        if pieces.is_empty() || (text.trim().is_empty()) {
            // A lone continuation character at the end of the file says nothing.
            return if self.next < source.lines().len() {
                self.next_logical_after_blank()
            } else {
                None
            };
        }
        if let Some(line) = empty_inside {
            self.empty.push(line);
            self.warnings.push(format!(
                "[WARNING]: Empty continuation line {line} found in:\n    {}",
                text.trim_end()
            ));
        }
        Some(Logical {
            text,
            pieces,
            last_line,
        })
    }

    /// Goes on after a logical line that turned out to be blank, without growing the stack.
    fn next_logical_after_blank(&mut self) -> Option<Logical> {
        loop {
            let line = self.source.lines().get(self.next)?;
            let trimmed = line.trim();
            let (rest, goes_on) = self.cut_continuation(trimmed);
            if trimmed.is_empty() || trimmed.starts_with('#') || (goes_on && rest.trim().is_empty()) {
                self.next += 1;
                continue;
            }
            return self.next_logical();
        }
    }

    /// The line without a continuation character at its end, and whether there was one.
    fn cut_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let ended = line.trim_end_matches([' ', '\t']);
        match ended.strip_suffix(self.escape) {
            Some(kept) => (kept, true),
            None => (line, false),
        }
    }

    /// Reads the physical lines of a heredoc up to its terminator; `None` when the file ends first.
    pub fn heredoc_lines(&mut self, wanted: &Wanted) -> Option<String> {
        let mut content = String::new();
        while let Some(raw) = self.source.lines().get(self.next) {
            self.next += 1;
            let line = if wanted.chomp {
                raw.trim_start_matches('\t')
            } else {
                raw
            };
            if line.trim_end_matches('\r') == wanted.name {
                return Some(content);
            }
            content.push_str(line);
            content.push('\n');
        }
        None
    }
}
