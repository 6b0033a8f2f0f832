//! What a command tells beside its output.
//!
//! The error that ends it goes to standard error as a sentence, and with `--log` to that file as a line, where engines read
//! it. Warnings are lines as well: in the file, or without one on standard error. One line is written in one piece, so that
//! commands may share a file. A log that cannot be written changes nothing about a command's own outcome.
//!
//! Lines are made where the events are, without a library that filters and formats: a command lives some milliseconds, and
//! most have nothing to tell. Events come from the caller alone; inside a container the file's path would be another.

use std::fmt::Debug;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::arguments::LogFormat;

#[derive(Debug, Clone)]
pub(super) struct Log {
    file: Option<PathBuf>,
    format: LogFormat,
    most: LevelFilter,
}

impl Log {
    pub fn new(file: Option<PathBuf>, format: LogFormat, debug: bool) -> Log {
        let most = if debug {
            LevelFilter::DEBUG
        } else {
            LevelFilter::WARN
        };
        Log { file, format, most }
    }

    /// Takes the events of the whole program from now on.
    pub fn listen(&self) {
        // Somebody who listens already goes on.
        let _ = tracing::subscriber::set_global_default(self.clone());
    }

    /// Tells why the command has failed.
    pub fn fail(&self, sentence: &str) {
        // Where even that cannot be told, nothing can.
        let _ = writeln!(std::io::stderr(), "berth runtime: {sentence}");
        if self.file.is_some() {
            self.write("error", sentence);
        }
    }

    fn write(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        let Some(path) = &self.file else {
            let _ = std::io::stderr().write_all(line.as_bytes());
            return;
        };
        let file = OpenOptions::new().create(true).append(true).open(path);
        if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
            let path = path.display();
            let _ = writeln!(std::io::stderr(), "berth runtime: log {path}: {error}");
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        let time = jiff::Timestamp::now();
        match self.format {
            LogFormat::Json => {
                let line = serde_json::json!({"level": level, "msg": message, "time": time.to_string()});
                format!("{line}\n")
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn event(&self, event: &Event<'_>) {
        let mut sentence = Sentence::default();
        event.record(&mut sentence);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            Level::INFO => "info",
            _ => "debug",
        };
        self.write(level, &format!("{}{}", sentence.message, sentence.fields));
    }

    // Nothing of a command is divided into spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// An event's words, and its fields as `name=value` behind them.
#[derive(Default)]
struct Sentence {
    message: String,
    fields: String,
}

impl Visit for Sentence {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.fields.push_str(&format!(" {name}={value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_become_lines_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let told = |format: LogFormat, debug: bool| {
            let log = Log::new(Some(path.clone()), format, debug);
            tracing::subscriber::with_default(log, || {
                tracing::warn!(count = 2, "there are {}", "things");
                tracing::debug!("a trifle");
            });
            let text = std::fs::read_to_string(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            text
        };
        let text = told(LogFormat::Text, false);
        assert!(
            text.ends_with(" level=warning msg=\"there are things count=2\"\n"),
            "{text}"
        );
        assert_eq!(text.lines().count(), 1, "{text}");
        let text = told(LogFormat::Json, true);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["level"], "warning");
        assert_eq!(lines[0]["msg"], "there are things count=2");
        assert_eq!(lines[1]["level"], "debug");
    }
}
