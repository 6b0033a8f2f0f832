//! `completion`: prints a completion script for a shell.

use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flags::{Matches, completion};
use crate::session::{Session, print};

pub const COMMAND: Command = Command::new(
    "completion",
    "Print the completion script of a shell (bash, zsh or fish)",
    "SHELL",
    Arity::Exactly(1),
    |session, matches| Box::pin(run(session, matches)),
);

async fn run(_: &Session, matches: &Matches) -> Outcome {
    let groups: Vec<_> = super::GROUPS
        .iter()
        .filter_map(|(name, _, _)| super::group(name))
        .collect();
    let groups: Vec<_> = groups.iter().collect();
    let commands: Vec<_> = super::alone().collect();
    match completion::script(matches.arg(0), &groups, &commands) {
        Some(script) => print(&script).map(|()| 0),
        None => Err(Failure::text(format!(
            "no completion for the shell {:?}: choose bash, zsh or fish",
            matches.arg(0)
        ))),
    }
}
