//! The second disk: what is tested, at the paths that it was built with.
//!
//!     files/<absolute path>   test programs, examples, the binary, and the test directories of the sources
//!     mounts                  directories of `files` that the machine binds to their own place
//!     tests.<guard>           one line per test of the boot with that security module: test program's name, test, path
//!                             of the program, directory to run it in
//!     patience                seconds that a test may take

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::engine::Scratch;
use crate::process::{capture, root};

use super::image;
use super::machine::Guard;

/// Rooms whose tests ask the kernel.
const ROOMS: &[&str] = &["cgroup", "runtime", "monitor", "network", "volume", "berth"];
/// A test that takes longer hangs. Emulation makes everything some twenty times slower.
const PATIENCE: u32 = 300;

/// What the name of a test has that needs SELinux; it runs in that boot only, and no other test does.
const SELINUX: &str = "selinux";

/// The disk, and how often the machine is booted with it.
pub struct Payload {
    pub disk: PathBuf,
    pub boots: Vec<Guard>,
}

/// A file that cargo made.
struct Artifact {
    /// `crate::target`, where it is a test program.
    test: Option<String>,
    program: PathBuf,
    /// Where cargo would run it.
    directory: PathBuf,
}

/// Builds the tests and makes the disk.
pub fn make(scratch: &Scratch, filter: &[String]) -> Result<Payload> {
    println!("building the tests of {}", ROOMS.join(", "));
    let artifacts = build()?;
    let staging = scratch.join("payload");
    let files = staging.join("files");
    let mut tests: Vec<(Guard, String)> = Vec::new();
    for artifact in &artifacts {
        copy(&artifact.program, &files)?;
        if let Some(name) = &artifact.test {
            let all = capture(Command::new(&artifact.program).args(["--list", "--format", "terse"]))?;
            let wanted = all.lines().filter_map(|line| line.strip_suffix(": test"));
            tests.extend(wanted.filter_map(|test| {
                let guard = chosen(&format!("{name}::{test}"), filter)?;
                let (program, directory) = (artifact.program.display(), artifact.directory.display());
                Some((guard, format!("{name} {test} {program} {directory}\n")))
            }));
        }
    }
    ensure!(
        !tests.is_empty(),
        "no test has a name with {}",
        filter.join(" and ")
    );
    for room in ROOMS {
        let source = root().join("crates").join(room);
        fs::create_dir_all(below(&files, &source))?;
        if source.join("tests").is_dir() {
            copy_tree(&source.join("tests"), &files)?;
        }
    }
    let mut boots = Vec::new();
    for guard in [Guard::AppArmor, Guard::SeLinux] {
        let own = tests.iter().filter(|(needs, _)| *needs == guard);
        let text: String = own.map(|(_, line)| line.as_str()).collect();
        if !text.is_empty() {
            fs::write(staging.join(format!("tests.{}", guard.word())), text)?;
            boots.push(guard);
        }
    }
    fs::write(staging.join("mounts"), mounts(&artifacts))?;
    fs::write(staging.join("patience"), PATIENCE.to_string())?;
    let disk = scratch.join("payload.img");
    image::filesystem(&staging, &disk)?;
    fs::remove_dir_all(&staging)?;
    Ok(Payload { disk, boots })
}

/// The boot that a test runs in, where its name has every word of the filter.
fn chosen(name: &str, filter: &[String]) -> Option<Guard> {
    let guard = if name.contains(SELINUX) {
        Guard::SeLinux
    } else {
        Guard::AppArmor
    };
    filter.iter().all(|word| name.contains(word)).then_some(guard)
}

/// The workspace, and the target directory where it lies elsewhere.
fn mounts(artifacts: &[Artifact]) -> String {
    let workspace = root();
    let mut text = format!("{}\n", workspace.display());
    let mut outside: Vec<&Path> = artifacts
        .iter()
        .filter(|artifact| !artifact.program.starts_with(&workspace))
        .filter_map(|artifact| artifact.program.parent())
        .collect();
    outside.sort_unstable();
    outside.dedup();
    for directory in outside {
        text.push_str(&format!("{}\n", directory.display()));
    }
    text
}

fn build() -> Result<Vec<Artifact>> {
    // All of the workspace, as `cargo xtask test` builds it: some packages alone would have other features, and everything
    // would be built once more.
    let made = Command::new("cargo")
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ])
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    if !made.status.success() {
        bail!("the tests do not build");
    }
    let text = String::from_utf8_lossy(&made.stdout);
    let artifacts: Vec<Artifact> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| artifact(&message))
        .collect();
    if artifacts.is_empty() {
        bail!("cargo named no test program");
    }
    Ok(artifacts)
}

/// An executable of cargo's `compiler-artifact` messages.
fn artifact(message: &Value) -> Option<Artifact> {
    let program = PathBuf::from(message.get("executable")?.as_str()?);
    let directory = Path::new(message.get("manifest_path")?.as_str()?).parent()?;
    let room = directory.file_name()?.to_str()?;
    if !ROOMS.contains(&room) {
        return None;
    }
    let target = message.pointer("/target/name")?.as_str()?;
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    Some(Artifact {
        test: is_test.then(|| format!("{room}::{target}")),
        program,
        directory: directory.to_path_buf(),
    })
}

fn below(files: &Path, path: &Path) -> PathBuf {
    files.join(path.strip_prefix("/").unwrap_or(path))
}

fn copy(path: &Path, files: &Path) -> Result<()> {
    let to = below(files, path);
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(path, &to).with_context(|| format!("cannot copy {}", path.display()))?;
    Ok(())
}

fn copy_tree(directory: &Path, files: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), files)?;
        } else {
            copy(&entry.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_needs_selinux_has_its_boot() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let name = "runtime::selinux::a_label_confines";
        assert_eq!(chosen(name, &words(&["runtime"])), Some(Guard::SeLinux));
        assert_eq!(chosen("runtime::apparmor::x", &words(&[])), Some(Guard::AppArmor));
        assert_eq!(chosen(name, &words(&["runtime", "cgroup"])), None);
    }

    #[test]
    fn test_programs_are_told_from_examples() {
        let message = |test: bool, executable: Value| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": "/w/crates/cgroup/Cargo.toml",
                "target": {"name": "host"},
                "profile": {"test": test},
                "executable": executable,
            })
        };
        let test = artifact(&message(true, "/w/target/debug/deps/host-1".into())).unwrap();
        assert_eq!(test.test.as_deref(), Some("cgroup::host"));
        assert_eq!(test.directory, Path::new("/w/crates/cgroup"));
        assert!(artifact(&message(false, "/x".into())).unwrap().test.is_none());
        let mut other = message(true, "/x".into());
        other["manifest_path"] = "/w/crates/spec/Cargo.toml".into();
        assert!(artifact(&other).is_none());
        assert!(artifact(&message(true, Value::Null)).is_none());
    }
}
