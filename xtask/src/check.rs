//! Format and lints, as CI wants them.

use std::process::Command;

use anyhow::Result;

use crate::process;

/// Fails on the first file that is not formatted or the first warning.
pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])
}

fn cargo(args: &[&str]) -> Result<()> {
    process::run(Command::new("cargo").args(args).current_dir(process::root()))
}
