//! Descriptors that the caller hands on: `--preserve-fds`, and those of socket activation.
//!
//! `LISTEN_FDS` in our own environment counts descriptors from 3 on that the service manager opened; the container's
//! process gets them, and the variables that tell it so, with its own number in `LISTEN_PID`.
//!
//! Source: sd_listen_fds(3).

use std::env;

use super::error::CliError;
use crate::process::LISTEN_PID;

const FIRST: u32 = 3;
/// More than anybody hands on, and few enough to look at each.
const MOST: u32 = 4096;

/// What is handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inherited {
    activated: u32,
    preserved: u32,
}

impl Inherited {
    pub fn count(self) -> u32 {
        self.activated + self.preserved
    }
}

/// Each of the descriptors must be open.
pub(super) fn check(preserved: u32) -> Result<Inherited, CliError> {
    let activated = env::var("LISTEN_FDS").ok().and_then(|text| text.parse().ok());
    let inherited = Inherited {
        activated: activated.unwrap_or(0).min(MOST),
        preserved,
    };
    if preserved > MOST {
        return Err(CliError::Usage(format!(
            "--preserve-fds {preserved}: at most {MOST} descriptors can be handed on"
        )));
    }
    for number in FIRST..FIRST + inherited.count() {
        if !sys::fd::is_open(number) {
            return Err(CliError::Usage(format!(
                "--preserve-fds {preserved}: descriptor {number} is not open"
            )));
        }
    }
    Ok(inherited)
}

/// Tells the process of its activated descriptors.
pub(super) fn tell(inherited: Inherited, env: &mut Vec<String>) {
    if inherited.activated > 0 {
        env.push(format!("LISTEN_FDS={}", inherited.activated));
        env.push(format!("{LISTEN_PID}="));
    }
}
