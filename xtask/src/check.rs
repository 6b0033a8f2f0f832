//! Format and lints, as CI wants them.

use std::process::Command;

use anyhow::Result;

use crate::process;

/// Fails on the first file that is not formatted or the first warning.
pub fn run() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
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

/// Whether the toolchain has formatter and lints; a minimal one comes without.
pub fn installed() -> bool {
    ["fmt", "clippy"].iter().all(|component| {
        let version = process::output(Command::new("cargo").args([component, "--version"]));
        version.is_ok_and(|output| output.status.success())
    })
}

fn cargo(args: &[&str]) -> Result<()> {
    process::run(Command::new("cargo").args(args).current_dir(process::root()))
}
