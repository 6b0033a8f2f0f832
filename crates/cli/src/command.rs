//! What a command is, as data: names, usage, flags, how many arguments, and what runs it.

use crate::failure::Outcome;
use crate::flags::{Flag, Matches};
use crate::session::Session;
use std::future::Future;
use std::pin::Pin;

/// A command under way.
pub type Task<'a> = Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// Runs a command.
pub type Run = for<'a> fn(&'a Session, &'a Matches) -> Task<'a>;

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Arity {
    Exactly(usize),
    AtLeast(usize),
    AtMost(usize),
    Between(usize, usize),
}

pub struct Command {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    pub about: &'static str,
    /// Behind the command's name, e.g. `[OPTIONS] CONTAINER`.
    pub usage: &'static str,
    pub flags: &'static [&'static [Flag]],
    pub arity: Arity,
    /// Flags may follow arguments.
    pub interspersed: bool,
    /// Failures are reported as `run` and `create` do: with the program's name, and code 125.
    pub refuses: bool,
    pub run: Run,
}

/// Commands under one word (`image`, `volume`), and the ones without.
pub struct Group {
    pub name: &'static str,
    pub about: &'static str,
    pub commands: Vec<&'static Command>,
}

impl Command {
    pub const fn new(
        name: &'static str,
        about: &'static str,
        usage: &'static str,
        arity: Arity,
        run: Run,
    ) -> Command {
        Command {
            name,
            aliases: &[],
            about,
            usage,
            flags: &[],
            arity,
            interspersed: true,
            refuses: false,
            run,
        }
    }
    pub const fn aliases(mut self, aliases: &'static [&'static str]) -> Command {
        self.aliases = aliases;
        self
    }
    pub const fn flags(mut self, flags: &'static [&'static [Flag]]) -> Command {
        self.flags = flags;
        self
    }
    pub const fn flags_first(mut self) -> Command {
        self.interspersed = false;
        self
    }
    pub const fn refuses(mut self) -> Command {
        self.refuses = true;
        self
    }

    pub fn answers_to(&self, word: &str) -> bool {
        self.name == word || self.aliases.contains(&word)
    }
}

impl Arity {
    /// Checks a count; the error is the text behind `berth: 'berth run' `.
    pub fn check(self, count: usize) -> Result<(), String> {
        let plural = |count: usize| if count == 1 { "argument" } else { "arguments" };
        match self {
            Arity::Exactly(0) if count > 0 => Err("accepts no arguments".into()),
            Arity::Exactly(wanted) if count != wanted => Err(format!("requires {wanted} {}", plural(wanted))),
            Arity::AtLeast(least) if count < least => {
                Err(format!("requires at least {least} {}", plural(least)))
            }
            Arity::AtMost(most) if count > most => Err(format!("requires at most {most} {}", plural(most))),
            Arity::Between(least, most) if !(least..=most).contains(&count) => Err(format!(
                "requires at least {least} and at most {most} {}",
                plural(most)
            )),
            _ => Ok(()),
        }
    }
}
