//! Format and lints, as CI wants them.

use std::process::Command;

use anyhow::Result;

use crate::process;

/// Fails on the first file that is not formatted or the first warning.
pub fn run() -> Result<()> {
    format()?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])
}

/// Fails on the first file that is not formatted.
pub fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])
}

fn cargo(args: &[&str]) -> Result<()> {
    process::run(Command::new("cargo").args(args).current_dir(process::root()))
}
