//! `cargo xtask soak [SECONDS]`: random work by many clients with kills of the daemon, for as long as it is given.
//!
//! The same test runs for some seconds with all others; here nothing ends it early.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::packages;
use crate::process::{root, run};

const TEST: &str = "soak::random_work_and_kills_leave_nothing";

pub fn run_for(args: &[String]) -> Result<()> {
    let seconds: u64 = match args {
        [] => 600,
        [text] => text
            .parse()
            .with_context(|| format!("{text:?} is no number of seconds"))?,
        _ => bail!("usage: cargo xtask soak [SECONDS]"),
    };
    packages::install(&[packages::BUILD, packages::RUN, packages::TEST])?;
    let mut command = Command::new("cargo");
    command
        .args([
            "test",
            "--quiet",
            "--workspace",
            "--test",
            "e2e",
            "--",
            "--exact",
            TEST,
            "--nocapture",
        ])
        .env("BERTH_SOAK_SECONDS", seconds.to_string())
        .current_dir(root());
    run(&mut command)
}
