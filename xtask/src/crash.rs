//! `cargo xtask crash [FILTER]`: the whole crash matrix. Daemon and monitors are killed before every operation of
//! everything that they do (`crates/berth/tests/e2e/crash`).
//!
//! The same tests kill at some operations of each row when they run with all others. `BERTH_CRASH_POINTS=NUMBER` tries so
//! many of each row here, too.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::packages;
use crate::process::root;

pub fn run(args: &[String]) -> Result<()> {
    packages::install(&[packages::BUILD, packages::RUN, packages::TEST])?;
    let points = std::env::var("BERTH_CRASH_POINTS").unwrap_or_else(|_| "all".to_owned());
    let filter = args.first().map_or("crash::", String::as_str);
    let mut command = Command::new("cargo");
    command
        .args([
            "test",
            "--quiet",
            "--workspace",
            "--test",
            "e2e",
            "--",
            filter,
            "--nocapture",
        ])
        .env("BERTH_CRASH_POINTS", points)
        .current_dir(root())
        .stdout(Stdio::piped());
    let mut child = command.spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut rows = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        rows.extend(row(&line));
    }
    let status = child.wait()?;
    println!("\n| while | killed | operations | kills |\n|---|---|---|---|");
    rows.sort();
    for (what, victim, kills, operations) in &rows {
        println!("| {what} | {victim} | {operations} | {kills} |");
    }
    let kills: usize = rows.iter().map(|(_, _, kills, _)| kills).sum();
    println!("\n{kills} kills");
    ensure!(status.success(), "something was lost or left: see above");
    Ok(())
}

/// What a test says at its end: `WHAT: VICTIM killed at KILLS of OPERATIONS operations`.
fn row(line: &str) -> Option<(String, String, usize, usize)> {
    // The test program's own dots may stand before it.
    let (what, rest) = line.trim_start_matches('.').split_once(": ")?;
    let (victim, rest) = rest.split_once(" killed at ")?;
    let (kills, rest) = rest.split_once(" of ")?;
    let operations = rest.strip_suffix(" operations")?;
    Some((
        what.to_owned(),
        victim.to_lowercase(),
        kills.parse().ok()?,
        operations.parse().ok()?,
    ))
}
