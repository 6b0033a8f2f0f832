//! Progress of pull, push, load and import (builds: `build`): a stream of JSON messages shown as lines.
//!
//! On a terminal every layer has one line that changes in place (`live`), with a bar (`bar`) where there is room; elsewhere
//! each change of state is a line of its own and counts are left out. Text of the daemon is made printable before it
//! reaches a terminal.

mod bar;
pub mod build;
mod live;

use crate::client::body::Lines;
use crate::failure::Failure;
use crate::format::printable;
use crate::session::print;
use crate::terminal;
use api_types::ProgressMessage;
use live::Live;
use std::io::Write;

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum To {
    Stdout,
    Stderr,
    Nowhere,
}

enum Screen {
    Live(Live<Box<dyn Write>>),
    Plain(To),
}

impl Screen {
    fn of(to: To) -> Screen {
        match to {
            To::Stdout if terminal::stdout_is_terminal() => {
                Screen::Live(Live::new(Box::new(std::io::stdout())))
            }
            To::Stderr if terminal::stderr_is_terminal() => {
                Screen::Live(Live::new(Box::new(std::io::stderr())))
            }
            other => Screen::Plain(other),
        }
    }
}

/// Shows a stream to its end; `aux` documents are handed to the caller. An error message ends it.
pub async fn show(mut lines: Lines, to: To, aux: &mut dyn FnMut(&serde_json::Value)) -> Result<(), Failure> {
    let mut screen = Screen::of(to);
    while let Some(line) = lines.next().await? {
        let message: ProgressMessage = serde_json::from_slice(&line)
            .map_err(|error| Failure::text(format!("cannot read the daemon's progress: {error}")))?;
        if let Some(error) = error_of(&message) {
            return Err(Failure::text(error).with_code(code_of(&message)));
        }
        if let Some(value) = &message.aux {
            aux(&serde_json::to_value(value).unwrap_or_default());
            continue;
        }
        screen.show(&message)?;
    }
    Ok(())
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
        let counted = bar::counted(message);
        match self {
            Screen::Plain(To::Nowhere) => {}
            Screen::Plain(to) => {
                let text = if !message.stream.is_empty() {
                    printable(&message.stream)
                } else if !counted {
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
            Screen::Live(live) if !message.stream.is_empty() => live.say(&printable(&message.stream))?,
            Screen::Live(live) if message.id.is_empty() => live.say(&format!("{}\n", head(message)))?,
            Screen::Live(live) => {
                let size = terminal::size();
                let columns = size.map_or(80, |(_, columns)| usize::from(columns));
                let text = match counted {
                    true => format!("{} {}", head(message), bar::bar(message, columns)),
                    false => head(message),
                };
                live.set(&message.id, &text, size)?;
            }
        }
        Ok(())
    }
}

fn head(message: &ProgressMessage) -> String {
    let id = if message.id.is_empty() {
        String::new()
    } else {
        format!("{}: ", printable(&message.id))
    };
    format!("{id}{}", printable(&message.status))
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
        let message: ProgressMessage =
            serde_json::from_str(r#"{"errorDetail":{"message":"no"},"error":"no"}"#).unwrap();
        assert_eq!(error_of(&message).as_deref(), Some("no"));
        assert_eq!(code_of(&message), 1);
        let message: ProgressMessage =
            serde_json::from_str(r#"{"errorDetail":{"code":7,"message":"no"},"error":"no"}"#).unwrap();
        assert_eq!(code_of(&message), 7);
    }
}
