//! `cargo xtask test`: installs what the tests need, runs them all, and counts.
//!
//! The rings: plain unit tests; tests that need root and the kernel, which print `skipped: <reason>` where they
//! can't run; end-to-end tests of the binary, with our client and the real docker client. A skipped test is
//! counted as skipped, not as passed ([`crate::tally`]). What the tests leave on the machine is a failure, too ([`leftovers`]).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::{exists, root};
use crate::tally::{Counts, Tally};
use crate::{check, clients, leftovers, packages};

pub fn run(filter: &[String]) -> Result<()> {
    packages::install(&[packages::BUILD, packages::RUN, packages::TEST])?;
    clients::fetch()?;
    if filter.is_empty() {
        if check::installed() {
            println!("checking format and lints");
            check::run()?;
        } else {
            println!("format and lints are not checked: the toolchain has no rustfmt or clippy");
        }
    }
    let nextest = exists("cargo-nextest")
        || Command::new("cargo")
            .args(["nextest", "--version"])
            .output()
            .is_ok_and(|o| o.status.success());
    let leftovers = leftovers::Run::begin()?;
    let counts = if nextest {
        with_nextest(filter, &leftovers)
    } else {
        with_cargo(filter, &leftovers)
    };
    let left = leftovers.end()?;
    let counts = counts?;
    let left = left.join("\n  ");
    // A try that failed or was ended in the middle takes nothing back; the second one says whether all is well.
    if counts.flaky > 0 && !left.is_empty() {
        println!("a test that was run a second time may have left on this machine:\n  {left}");
    }
    if counts.in_part > 0 {
        println!("{} of those that passed were skipped in part", counts.in_part);
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    if counts.failed > 0 || counts.passed == 0 {
        bail!("the tests did not pass");
    }
    if counts.flaky == 0 && !left.is_empty() {
        bail!("the tests left on this machine:\n  {left}");
    }
    Ok(())
}

/// Runs a command, shows its lines, and hands each to `look`.
fn watch(
    command: &mut Command,
    leftovers: &leftovers::Run,
    mut look: impl FnMut(&str) -> bool,
) -> Result<bool> {
    let (reader, writer) = std::io::pipe()?;
    let errors = writer.try_clone()?;
    let (name, directory) = leftovers.environment();
    let mut child = command
        .current_dir(root())
        .env(name, directory)
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(errors)
        .spawn()
        .context("cannot run cargo")?;
    // The command still holds our ends of the pipe, which would keep it open for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for line in BufReader::new(reader).lines() {
        let line = line.unwrap_or_default();
        if look(&line) {
            println!("{line}");
        }
    }
    Ok(child.wait()?.success())
}

fn with_nextest(filter: &[String], leftovers: &leftovers::Run) -> Result<Counts> {
    let mut command = Command::new("cargo");
    command.args([
        "nextest",
        "run",
        "--workspace",
        "--no-fail-fast",
        "--color",
        "never",
    ]);
    // The output of tests that passed is where those that skipped themselves say so.
    command
        .args(["--success-output", "immediate", "--status-level", "pass"])
        .args(filter);
    let mut tally = Tally::default();
    let succeeded = watch(&mut command, leftovers, |line| tally.nextest(line))?;
    ended(tally, succeeded, "cargo nextest")
}

fn with_cargo(filter: &[String], leftovers: &leftovers::Run) -> Result<Counts> {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--workspace", "--no-fail-fast", "--"])
        .args(filter)
        .args(["--show-output", "--test-threads", "2"]);
    let mut tally = Tally::default();
    let succeeded = watch(&mut command, leftovers, |line| tally.libtest(line))?;
    ended(tally, succeeded, "cargo test")
}

fn ended(tally: Tally, succeeded: bool, runner: &str) -> Result<Counts> {
    let counts = tally.end();
    if !succeeded && counts.failed == 0 {
        bail!("{runner} failed before the tests ended");
    }
    Ok(counts)
}
