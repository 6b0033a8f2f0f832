//! Progress of pull, push, load and import: a stream of JSON messages shown as lines.
//!
//! On a terminal every layer has one line that changes in place; elsewhere each change of state is a line of its own and
//! bars are left out. Text of the daemon is made printable before it reaches a terminal.

use crate::client::body::{Lines, Sent};
use crate::failure::Failure;
use crate::format::{printable, size};
use crate::session::print;
use crate::terminal;
use api_types::ProgressMessage;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::Write;

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    Stdout,
    Stderr,
    Nowhere,
}

enum Screen {
    Live {
        all: MultiProgress,
        lines: HashMap<String, ProgressBar>,
    },
    Plain(To),
}

/// Shows a stream to its end; `aux` documents are handed to the caller. An error message ends it.
pub async fn show(mut lines: Lines, to: To, aux: &mut dyn FnMut(&serde_json::Value)) -> Result<(), Failure> {
    let live = match to {
        To::Stdout => terminal::stdout_is_terminal().then(ProgressDrawTarget::stdout),
        To::Stderr => terminal::stderr_is_terminal().then(ProgressDrawTarget::stderr),
        To::Nowhere => None,
    };
    let mut screen = match live {
        Some(target) => Screen::Live {
            all: MultiProgress::with_draw_target(target),
            lines: HashMap::new(),
        },
        None => Screen::Plain(to),
    };
    while let Some(line) = lines.next().await? {
        let message: ProgressMessage = serde_json::from_slice(&line)
            .map_err(|error| Failure::text(format!("cannot read the daemon's progress: {error}")))?;
        if let Some(error) = error_of(&message) {
            screen.finish();
            return Err(Failure::text(error).with_code(code_of(&message)));
        }
        if let Some(value) = &message.aux {
            aux(&serde_json::to_value(value).unwrap_or_default());
            continue;
        }
        screen.show(&message)?;
    }
    screen.finish();
    Ok(())
}

/// Says how much of a body was sent while `work` goes on: on a terminal again and again in one line, elsewhere once.
pub async fn sending<T>(
    what: &str,
    sent: &Sent,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let live = terminal::stdout_is_terminal();
    let line = || format!("{what}  {}", size::decimal(sent.bytes() as f64));
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(100));
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick(), if live => print(&format!("\r{}", line()))?,
        }
    };
    print(&format!("{}{}\n", if live { "\r" } else { "" }, line()))?;
    done
}

fn error_of(message: &ProgressMessage) -> Option<String> {
    let detail = message.error_detail.as_ref().map(|detail| detail.message.clone());
    detail
        .filter(|text| !text.is_empty())
        .or_else(|| Some(message.error.clone()).filter(|text| !text.is_empty()))
}

/// Builds end with the code of the command that failed; other failures carry none.
pub fn code_of(message: &ProgressMessage) -> i32 {
    let code = message.error_detail.as_ref().map_or(0, |detail| detail.code);
    i32::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1)
}

impl Screen {
    fn show(&mut self, message: &ProgressMessage) -> Result<(), Failure> {
        let bar = bar(message);
        match self {
            Screen::Plain(To::Nowhere) => {}
            Screen::Plain(to) => {
                let text = if !message.stream.is_empty() {
                    printable(&message.stream)
                } else if bar.is_empty() {
                    format!("{}\n", head(message))
                } else {
                    return Ok(());
                };
                match to {
                    To::Stderr => {
                        let _ = std::io::stderr().write_all(text.as_bytes());
                    }
                    _ => print(&text)?,
                }
            }
            Screen::Live { all, lines } => {
                let text = if message.stream.is_empty() {
                    head(message)
                } else {
                    printable(message.stream.trim_end())
                };
                let text = if bar.is_empty() {
                    text
                } else {
                    format!("{text} {bar}")
                };
                let line = if message.id.is_empty() {
                    add(all)
                } else {
                    lines
                        .entry(message.id.clone())
                        .or_insert_with(|| add(all))
                        .clone()
                };
                line.set_message(text);
                if message.id.is_empty() {
                    line.abandon();
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        if let Screen::Live { lines, .. } = self {
            lines.values().for_each(ProgressBar::abandon);
        }
    }
}

fn add(all: &MultiProgress) -> ProgressBar {
    let line = all.add(ProgressBar::no_length());
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        line.set_style(style);
    }
    line
}

fn head(message: &ProgressMessage) -> String {
    let id = if message.id.is_empty() {
        String::new()
    } else {
        format!("{}: ", printable(&message.id))
    };
    format!("{id}{}", printable(&message.status))
}

/// "[=====>     ]  1.2MB/3.4MB", or only the count when the whole is not known.
fn bar(message: &ProgressMessage) -> String {
    let Some(detail) = &message.progress_detail else {
        return String::new();
    };
    let (current, total) = (detail.current.max(0) as f64, detail.total.max(0) as f64);
    if current <= 0.0 && total <= 0.0 {
        return String::new();
    }
    let now = size::decimal(current);
    if total <= 0.0 || current > total {
        return format!("{now:>8}");
    }
    let width = 50.0;
    let done = (current / total * width) as usize;
    let arrow = if done < 50 { ">" } else { "" };
    let rest = 50usize.saturating_sub(done + 1);
    let whole = size::decimal(total);
    let counts = format!("{now:>8}/{whole}");
    let bar = format!("[{}{arrow}{}]", "=".repeat(done), " ".repeat(rest));
    if terminal::width() > 110 {
        format!("{bar} {counts}")
    } else {
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_messages() {
        let message: ProgressMessage = serde_json::from_str(
            r#"{"status":"Downloading","progressDetail":{"current":500000,"total":1000000},"id":"abc"}"#,
        )
        .unwrap();
        assert_eq!(head(&message), "abc: Downloading");
        assert!(bar(&message).ends_with("   500kB/1MB"), "{}", bar(&message));
        let message: ProgressMessage =
            serde_json::from_str(r#"{"errorDetail":{"message":"no"},"error":"no"}"#).unwrap();
        assert_eq!(error_of(&message).as_deref(), Some("no"));
        assert_eq!(code_of(&message), 1);
        let message: ProgressMessage =
            serde_json::from_str(r#"{"errorDetail":{"code":7,"message":"no"},"error":"no"}"#).unwrap();
        assert_eq!(code_of(&message), 7);
    }
}
