//! Standard output, which may be gone: whoever reads a report may have seen enough of it.

use std::io::Write as _;

use super::error::CliError;

/// What cannot be written as a document.
pub(super) fn wrong(reason: impl ToString) -> CliError {
    CliError::Io {
        what: "print".to_owned(),
        reason: reason.to_string(),
    }
}

/// The text and the end of its last line.
pub(super) fn line(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|error| CliError::io("standard output", error))
}

/// A document for people and programs.
pub(super) fn document(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(wrong)
}
