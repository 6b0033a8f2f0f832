//! Parser directives: comments of the form `# name=value` at the very top of the file.
//!
//! `syntax` is accepted and needs nothing fetched: this parser is the only front end. `check` is accepted,
//! since there is nothing for it to switch off. Any other comment, empty line or instruction ends the search.

use std::sync::Arc;

use super::diagnose_line;
use crate::source::{Diagnostic, Source};

/// The directives of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The character that continues a line and takes away the meaning of the one after it.
    pub escape: char,
    pub syntax: Option<String>,
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Directives {
        Directives {
            escape: '\\',
            syntax: None,
            check: None,
        }
    }
}

impl Directives {
    /// Reads the directives at the top of `source`.
    pub fn read(source: &Arc<Source>) -> Result<Directives, Diagnostic> {
        let mut found = Directives::default();
        let mut seen: Vec<String> = Vec::new();
        for (index, line) in source.lines().iter().enumerate() {
            let Some((name, value)) = directive(line) else {
                break;
            };
            let number = index + 1;
            if seen.contains(&name) {
                let message = format!("only one {name} parser directive can be used");
                return Err(diagnose_line(source, number, &message, None));
            }
            match name.as_str() {
                "escape" => {
                    found.escape = match value {
                        "\\" => '\\',
                        "`" => '`',
                        other => {
                            let message = format!("invalid escape token '{other}' does not match ` or \\");
                            return Err(diagnose_line(source, number, &message, None));
                        }
                    }
                }
                "syntax" => found.syntax = Some(value.to_owned()),
                "check" => found.check = Some(value.to_owned()),
                _ => break,
            }
            seen.push(name);
        }
        Ok(found)
    }
}

/// Name in lower case and value, if the line has the shape of a directive.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let well = starts_well && name.chars().all(|c| c.is_ascii_alphanumeric()) && !value.is_empty();
    well.then(|| (name.to_ascii_lowercase(), value))
}
