//! The log file that an engine reads a failed command's message from.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use super::arguments::LogFormat;

/// Appends one line. A log that cannot be written changes nothing about the command's own outcome.
pub(super) fn write(path: &Path, format: LogFormat, message: &str) {
    let time = jiff::Timestamp::now();
    let line = match format {
        LogFormat::Json => {
            serde_json::json!({"level": "error", "msg": message, "time": time.to_string()}).to_string()
        }
        LogFormat::Text => format!("time=\"{time}\" level=error msg={message:?}"),
    };
    let file = OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| writeln!(file, "{line}"));
    if let Err(error) = written {
        eprintln!("berth runtime: log {}: {error}", path.display());
    }
}
