//! One run of the client: its global flags, its connection, and where it writes.

use crate::client::Client;
use crate::connect::config::Config;
use crate::connect::endpoint::Globals;
use crate::failure::Failure;
use std::cell::OnceCell;
use std::io::Write;

pub struct Session {
    pub globals: Globals,
    pub client: Client,
    pub debug: bool,
    config: OnceCell<Config>,
}

impl Session {
    pub fn new(globals: Globals, debug: bool) -> Session {
        Session {
            client: Client::new(globals.clone()),
            globals,
            debug,
            config: OnceCell::new(),
        }
    }

    /// The client's configuration file, read when first needed.
    pub fn config(&self) -> &Config {
        self.config.get_or_init(|| Config::load(&self.globals.config))
    }
}

/// Writes text to stdout. A reader that went away ends the command quietly, as it ends `yes | head`.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::code(0)),
        Err(error) => Err(Failure::text(format!("write: {error}"))),
    }
}

/// Writes a line to stdout.
pub fn say(text: &str) -> Result<(), Failure> {
    print(&format!("{text}\n"))
}

/// Asks a question of yes or no on the terminal.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    print(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    if matches!(read, Ok(0)) {
        say("")?;
    }
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}
