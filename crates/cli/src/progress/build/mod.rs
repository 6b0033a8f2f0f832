//! Progress of builds, as BuildKit tells it: steps that begin, speak, and end, several at a time.
//!
//! ```text
//!   Status messages ──> Steps (what is known of each) ──┬── tty    one block that changes in place
//!                                                       ├── plain  lines with the step's number in front
//!                                                       ├── raw    the messages themselves, as JSON
//!                                                       └── quiet  nothing, unless the build fails
//! ```
//!
//! All of it goes to the standard error; texts of the engine and of commands are made printable first.

mod plain;
mod raw;
mod steps;
mod tty;

use crate::terminal;
use bollard_buildkit_proto::moby::buildkit::v1::StatusResponse;
use plain::Plain;
use std::io::Write;
use steps::Steps;
use tty::Tty;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Tty,
    Plain,
    Raw,
    Quiet,
}

impl Mode {
    /// What `--progress` asks for; `auto` looks at the terminal.
    pub fn of(text: &str) -> Result<Mode, String> {
        match text {
            "auto" if terminal::stderr_is_terminal() => Ok(Mode::Tty),
            "auto" | "plain" => Ok(Mode::Plain),
            "tty" if !terminal::stderr_is_terminal() => {
                Err("failed to get console: the standard error is no terminal".to_owned())
            }
            "tty" => Ok(Mode::Tty),
            "rawjson" => Ok(Mode::Raw),
            "quiet" | "none" => Ok(Mode::Quiet),
            other => Err(format!(
                "invalid progress mode {other}: use auto, plain, tty, rawjson or quiet"
            )),
        }
    }
}

/// Checks `--progress`.
pub fn check(text: &str) -> Result<(), String> {
    match text {
        "tty" => Ok(()),
        text => Mode::of(text).map(|_| ()),
    }
}

/// Where a build is shown.
pub struct Screen {
    steps: Steps,
    view: View,
    out: Box<dyn Write>,
}

enum View {
    Tty(Tty),
    Plain(Plain),
    Raw,
    /// What would have been shown.
    Quiet(Plain, Vec<u8>),
}

impl Screen {
    pub fn new(mode: Mode) -> Screen {
        Screen::on(mode, Box::new(std::io::stderr()))
    }

    fn on(mode: Mode, out: Box<dyn Write>) -> Screen {
        Screen {
            steps: Steps::default(),
            view: match mode {
                Mode::Tty => View::Tty(Tty::default()),
                Mode::Plain => View::Plain(Plain::default()),
                Mode::Raw => View::Raw,
                Mode::Quiet => View::Quiet(Plain::default(), Vec::new()),
            },
            out,
        }
    }

    /// Takes what is told. Somebody who no longer looks does not end the build.
    pub fn take(&mut self, status: &StatusResponse) {
        let news = self.steps.take(status);
        let _ = match &mut self.view {
            View::Tty(_) => Ok(()),
            View::Plain(plain) => plain.show(&self.steps, &news, &mut self.out),
            View::Raw => self.out.write_all(raw::line(status).as_bytes()),
            View::Quiet(plain, kept) => plain.show(&self.steps, &news, kept),
        };
    }

    /// Draws anew what changes by itself.
    pub fn draw(&mut self) {
        if let View::Tty(tty) = &mut self.view {
            let _ = tty.draw(&self.steps, terminal::size(), &mut self.out);
        }
    }

    /// The build has gone well.
    pub fn finish(&mut self) {
        self.draw();
        let _ = match &self.view {
            View::Tty(_) | View::Plain(_) => self.out.write_all(self.steps.warnings().as_bytes()),
            View::Raw | View::Quiet(..) => Ok(()),
        };
    }

    /// The build has failed: what the failed steps said is opened.
    pub fn fail(&mut self) {
        self.draw();
        let _ = match &self.view {
            View::Tty(_) => self.out.write_all(self.steps.failed_logs().as_bytes()),
            View::Quiet(_, kept) => self.out.write_all(kept),
            View::Plain(_) | View::Raw => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests;
