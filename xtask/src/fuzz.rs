//! `cargo xtask fuzz [SECONDS [FILTER]]`: the fuzz targets, each for so long (a minute unless said), several at once.
//!
//! They are the tests whose names begin with `fuzz_`, which `cargo xtask test` runs for two seconds each; `fuzz` (the crate)
//! tells how they go on and where an input that fails is kept.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::root;

/// Where nobody says.
const MINUTE: u64 = 60;

pub fn run(args: &[String]) -> Result<()> {
    let (seconds, filter) = match args {
        [] => (MINUTE, ""),
        [seconds] => (number(seconds)?, ""),
        [seconds, filter] => (number(seconds)?, filter.as_str()),
        _ => bail!("usage: cargo xtask fuzz [SECONDS [FILTER]]"),
    };
    let mut tests = "test(/(^|::)fuzz_/)".to_owned();
    if !filter.is_empty() {
        tests += &format!(" & test({filter})");
    }
    let ran = Command::new("cargo")
        .args([
            "nextest",
            "run",
            "--workspace",
            "--profile",
            "long",
            "--success-output",
            "final",
        ])
        .args(["-E", &tests])
        .env("BERTH_FUZZ_SECONDS", seconds.to_string())
        .current_dir(root())
        .status()
        .context("cannot run cargo nextest")?;
    if !ran.success() {
        bail!("a target failed; the input is told above, and kept where the next run begins with it");
    }
    Ok(())
}

fn number(text: &str) -> Result<u64> {
    text.parse()
        .with_context(|| format!("{text} is no number of seconds"))
}
