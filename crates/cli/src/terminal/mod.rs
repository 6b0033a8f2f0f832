//! The user's terminal: raw mode, its size, the keys that detach, and the copying between it and a container.
//!
//! Raw mode is a guard: whatever way a command ends, dropping it restores the terminal.

pub mod keys;
pub mod pump;
pub mod signals;

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{stderr, stdin, stdout};

pub fn stdin_is_terminal() -> bool {
    isatty(stdin())
}
pub fn stdout_is_terminal() -> bool {
    isatty(stdout())
}
pub fn stderr_is_terminal() -> bool {
    isatty(stderr())
}

/// Rows and columns of the terminal on stdout, if there is one with a size.
pub fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(stdout()).or_else(|_| tcgetwinsize(stdin())).ok()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
}

/// Columns of the terminal, 80 where unknown.
pub fn width() -> usize {
    size().map_or(80, |(_, columns)| usize::from(columns))
}

/// Raw mode of the terminal on stdin while it lives.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// `None` when stdin is no terminal.
    pub fn enter() -> Option<Raw> {
        let before = tcgetattr(stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}
