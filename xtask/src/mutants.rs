//! `cargo xtask mutants [THREAT…]`: whether the tests of the threat model notice when a barrier is gone.
//!
//! Each mutant (`table`) takes one barrier away from a copy of the last commit, builds, and runs the test that is named for
//! it, which must fail. One that still passes guards nothing. The copy and what is built from it stay in `target/mutants`
//! for the next time.

mod table;

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use table::{ALL, Mutant};

use crate::packages;
use crate::process::{capture, output, root, run};

pub fn execute(wanted: &[String]) -> Result<()> {
    packages::install(&[packages::BUILD, packages::RUN, packages::TEST])?;
    let chosen: Vec<&Mutant> = ALL
        .iter()
        .filter(|mutant| wanted.is_empty() || wanted.iter().any(|word| mutant.threat.contains(word.as_str())))
        .collect();
    ensure!(!chosen.is_empty(), "no threat has a name with these words");
    let copy = root().join("target/mutants/copy");
    make_copy(&copy)?;
    println!("with every barrier in its place");
    for mutant in &chosen {
        let (passed, text) = test(&copy, mutant)?;
        ensure!(passed, "{} fails as it is:\n{text}", mutant.test.1);
    }
    let mut unnoticed = Vec::new();
    println!("\n| barrier taken away | test | |\n|---|---|---|");
    for mutant in chosen {
        take_away(&copy, mutant)?;
        let (passed, text) = test(&copy, mutant)?;
        run(git(&copy).args(["checkout", "--quiet", "."]))?;
        ensure!(
            passed || text.contains("test result: FAILED"),
            "without its barrier against {} the program cannot be built or tested:\n{text}",
            mutant.threat
        );
        let noticed = if passed { "**not noticed**" } else { "noticed" };
        println!("| {} | `{}` | {noticed} |", mutant.threat, mutant.test.1);
        unnoticed.extend(passed.then_some(mutant.threat));
    }
    if !unnoticed.is_empty() {
        bail!("nobody noticed: {}", unnoticed.join(", "));
    }
    Ok(())
}

fn git(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.current_dir(directory);
    git
}

/// The last commit, in a directory of its own.
fn make_copy(copy: &Path) -> Result<()> {
    let commit = capture(git(&root()).args(["rev-parse", "HEAD"]))?;
    if !copy.join(".git").exists() {
        let parent = copy.parent().context("the copy has a parent")?;
        std::fs::create_dir_all(parent)?;
        run(Command::new("git")
            .args(["clone", "--quiet", "--no-checkout"])
            .arg(root())
            .arg(copy))?;
    }
    run(git(copy)
        .args(["fetch", "--quiet"])
        .arg(root())
        .arg(commit.trim()))?;
    run(git(copy).args(["checkout", "--quiet", "--force", commit.trim()]))
}

fn take_away(copy: &Path, mutant: &Mutant) -> Result<()> {
    for (file, words, instead) in mutant.edits {
        let path = copy.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        ensure!(
            text.matches(words).count() == 1,
            "{file} does not say once: {words}"
        );
        std::fs::write(&path, text.replace(words, instead))?;
    }
    Ok(())
}

/// Whether the test passes, and what was said.
fn test(copy: &Path, mutant: &Mutant) -> Result<(bool, String)> {
    let (program, name) = mutant.test;
    let cargo = |args: &[&str]| {
        // Without its barrier a test may leave things behind that outlive every process: not in the host's IPC namespace.
        let mut cargo = Command::new("unshare");
        cargo
            .args(["--ipc", "cargo"])
            .args(args)
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", copy.with_file_name("build"))
            .env("CARGO_PROFILE_DEV_DEBUG", "0");
        output(&mut cargo)
    };
    // Programs that tests start are not all built with them.
    let built = cargo(&["build", "--quiet", "--workspace", "--bins", "--examples"])?;
    let said = |output: &std::process::Output| {
        String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
    };
    if !built.status.success() {
        return Ok((false, said(&built)));
    }
    let tested = cargo(&[
        "test",
        "--quiet",
        "--workspace",
        "--test",
        program,
        "--",
        "--exact",
        name,
    ])?;
    let text = said(&tested);
    ensure!(
        !tested.status.success() || text.contains("1 passed"),
        "there is no test {name} in {program}"
    );
    Ok((tested.status.success(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a mutant takes away is there: code that changes takes its mutant along.
    #[test]
    fn every_barrier_stands_where_its_mutant_looks_for_it() {
        for mutant in ALL {
            for (file, words, instead) in mutant.edits {
                let text = std::fs::read_to_string(root().join(file)).unwrap();
                assert_eq!(
                    text.matches(words).count(),
                    1,
                    "{}: {file}: {words}",
                    mutant.threat
                );
                assert_ne!(words, instead);
            }
        }
    }

    #[test]
    fn every_mutant_is_a_row_of_the_threat_model() {
        let page = std::fs::read_to_string(root().join("docs/threat-model.md")).unwrap();
        for mutant in ALL {
            let row = page
                .lines()
                .find(|line| line.starts_with('|') && line.contains(mutant.threat));
            let row = row.unwrap_or_else(|| panic!("no row for {}", mutant.threat));
            let name = mutant.test.1.rsplit("::").next().unwrap();
            assert!(row.contains(name), "{row} does not name {name}");
        }
    }
}
