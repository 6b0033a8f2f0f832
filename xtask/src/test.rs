//! `cargo xtask test`: installs what the tests need, runs them all, and counts.
//!
//! The rings: plain unit tests; tests that need root and the kernel, which print `skipped: <reason>` where they
//! can't run; end-to-end tests of the binary, with our client and the real docker client. A skipped test is
//! counted as skipped, not as passed. What the tests leave on the machine is a failure, too ([`leftovers`]).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::{exists, root};
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

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Passed at the second try.
    flaky: u64,
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
    let mut counts = Counts::default();
    let mut in_output = false;
    let succeeded = watch(&mut command, leftovers, |line| {
        let text = line.trim_start();
        let told = told(text);
        let status = told.is_some();
        if status || text.starts_with("Summary [") {
            in_output = false;
        }
        if let Some(reason) = text.strip_prefix("skipped:") {
            counts.skipped += 1;
            println!("        skipped:{reason}");
            return false;
        }
        if let Some(summary) = text.strip_prefix("Summary [") {
            counts.passed = number_before(summary, " passed");
            counts.flaky = number_before(summary, " flaky");
            counts.failed = number_before(summary, " failed") + number_before(summary, " timed out");
        }
        if told == Some("PASS") {
            in_output = true;
            return true;
        }
        // What passing tests print is noise; what failing ones print is the news.
        !in_output
    })?;
    counts.passed = counts.passed.saturating_sub(counts.skipped);
    if !succeeded && counts.failed == 0 {
        bail!("cargo nextest failed before the tests ended");
    }
    Ok(counts)
}

/// How a test ended, in a line that says so: `PASS [`, `SIGSEGV [`, and of another try `TRY 2 FAIL [`.
fn told(line: &str) -> Option<&str> {
    let (head, _) = line.split_once(" [")?;
    let word = head.rsplit(' ').find(|word| !word.is_empty())?;
    let is_status = |text: &str| {
        text.bytes()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'-' | b' '))
    };
    (word != "Summary" && is_status(head)).then_some(word)
}

fn number_before(text: &str, word: &str) -> u64 {
    let Some(at) = text.find(word) else { return 0 };
    text[..at]
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .and_then(|n| n.parse().ok())
        .unwrap_or(0)
}

fn with_cargo(filter: &[String], leftovers: &leftovers::Run) -> Result<Counts> {
    let mut command = Command::new("cargo");
    command
        .args(["test", "--workspace", "--no-fail-fast", "--"])
        .args(filter)
        .args(["--nocapture", "--test-threads", "2"]);
    let mut counts = Counts::default();
    let succeeded = watch(&mut command, leftovers, |line| {
        if line.trim_start().starts_with("skipped:") {
            counts.skipped += 1;
        }
        if line.starts_with("test result:") {
            counts.passed += number_before(line, " passed");
            counts.failed += number_before(line, " failed");
        }
        true
    })?;
    counts.passed = counts.passed.saturating_sub(counts.skipped);
    if !succeeded && counts.failed == 0 {
        bail!("cargo test failed before the tests ended");
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::{number_before, told};

    #[test]
    fn ends_are_told_from_output() {
        for (line, end) in [
            ("PASS [   0.008s] (1/2) store::kill x", Some("PASS")),
            ("TRY 1 FAIL [  11.424s] (───) berth::e2e x", Some("FAIL")),
            ("TRY 2 SIGSEGV [   0.1s] x", Some("SIGSEGV")),
            ("SIGKILL [   0.1s] x", Some("SIGKILL")),
            ("Summary [  12.3s] 120 tests run", None),
            ("left: [1, 2]", None),
            ("thread 'x' [1]", None),
        ] {
            assert_eq!(told(line), end, "{line}");
        }
    }

    #[test]
    fn reads_summaries() {
        let text = "  12.3s] 120 tests run: 118 passed (1 slow), 2 failed, 0 skipped";
        assert_eq!(number_before(text, " passed"), 118);
        assert_eq!(number_before(text, " failed"), 2);
        assert_eq!(
            number_before("test result: ok. 7 passed; 0 failed;", " passed"),
            7
        );
        let flaky = "  12.3s] 120 tests run: 120 passed (1 slow, 3 flaky), 0 skipped";
        assert_eq!(number_before(flaky, " flaky"), 3);
        assert_eq!(number_before("nothing", " passed"), 0);
    }
}
