//! Here-documents of RUN, COPY and ADD: `<<NAME`, `<<-NAME` (leading tabs removed), `<<"NAME"` (nothing
//! expanded), several in one line, read in order.

use super::{Fault, line::Reader};

/// A here-document with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// File descriptor before the `<<`, 0 where none is written.
    pub descriptor: u32,
    /// Whether variables in the content are expanded: the name was not quoted.
    pub expand: bool,
    pub chomp: bool,
    pub content: String,
}

/// A here-document that a line announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: String,
    pub descriptor: u32,
    pub expand: bool,
    pub chomp: bool,
    pub offset: usize,
    pub width: usize,
}

/// The here-documents that the text of a line announces, in order.
pub fn wanted(text: &str, escape: char) -> Vec<Wanted> {
    let mut found = Vec::new();
    for (offset, word) in shell_words(text, escape) {
        if let Some(mut wanted) = announce(word) {
            wanted.offset = offset;
            wanted.width = word.len();
            found.push(wanted);
        }
    }
    found
}

/// Reads one word as `[N]<<[-]NAME`.
pub fn announce(word: &str) -> Option<Wanted> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = word.split_at_checked(digits)?;
    let descriptor = if number.is_empty() {
        0
    } else {
        number.parse().ok()?
    };
    let rest = rest.strip_prefix("<<")?;
    let (chomp, quoted) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if quoted.is_empty() || quoted.contains(['<', ' ', '\t']) {
        return None;
    }
    let name: String = quoted.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let expand = name.len() == quoted.len();
    if name.is_empty() {
        return None;
    }
    Some(Wanted {
        name,
        descriptor,
        expand,
        chomp,
        offset: 0,
        width: 0,
    })
}

/// Words of a shell line with their offsets: blanks separate, quotes and the escape character protect.
fn shell_words(text: &str, escape: char) -> Vec<(usize, &str)> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some(open) => {
                if c == open {
                    quote = None;
                } else if c == escape && open == '"' {
                    chars.next();
                }
            }
            None if c.is_whitespace() => {
                if let Some(from) = start.take() {
                    words.push((from, &text[from..at]));
                }
            }
            None => {
                start.get_or_insert(at);
                if c == '"' || c == '\'' {
                    quote = Some(c);
                } else if c == escape {
                    chars.next();
                }
            }
        }
    }
    if let Some(from) = start {
        words.push((from, &text[from..]));
    }
    words
}

/// Reads the content of `wanted` from the lines that follow.
pub fn read(reader: &mut Reader<'_>, wanted: Wanted) -> Result<Heredoc, Fault> {
    let Some(content) = reader.heredoc_lines(&wanted) else {
        return Err(Fault {
            message: "unterminated heredoc".to_owned(),
            offset: wanted.offset,
            width: wanted.width,
            help: Some(format!(
                "end it with a line that holds nothing but {}",
                wanted.name
            )),
        });
    };
    let Wanted {
        name,
        descriptor,
        expand,
        chomp,
        ..
    } = wanted;
    Ok(Heredoc {
        name,
        descriptor,
        expand,
        chomp,
        content,
    })
}
