//! The client: Docker's command line over the Engine API.
//!
//! `main` reads the global flags, finds the command, reads its flags and runs it on a single-threaded runtime that is
//! made only when a command talks to a daemon. stdout carries data, stderr messages. Exit codes: see [`failure`].
//!
//! Rooms: `flags` and `command` describe the command line as data, `commands` holds what each command does, `grammar`
//! reads values, `client` and `connect` speak HTTP, `answer` reads what is long, `terminal` deals with the user's terminal, `template` and `format`
//! with what is shown, `pack` with what `cp` sends.

mod answer;
mod auth;
mod client;
mod command;
mod commands;
mod connect;
mod dispatch;
mod extract;
mod failure;
mod flags;
mod format;
mod grammar;
mod json;
mod output;
mod pack;
mod progress;
mod session;
mod template;
mod terminal;

use std::ffi::OsString;

/// Runs the client. `args` are the process's arguments without the program's name; the answer is the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    dispatch::main(args)
}
