//! The command line, as engines and people use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{Bundle, possible};

/// The example program of this crate, which is built with the tests.
pub fn program() -> Option<PathBuf> {
    let path = std::env::current_exe()
        .ok()?
        .parent()?
        .parent()?
        .join("examples/berth_runtime");
    if path.exists() {
        return Some(path);
    }
    println!(
        "skipped: {} is not built (cargo build -p runtime --examples)",
        path.display()
    );
    None
}

/// The command line with a root of its own.
pub struct Cli {
    pub program: PathBuf,
    pub state: tempfile::TempDir,
}

impl Cli {
    pub fn new() -> Option<Cli> {
        Some(Cli {
            program: program()?,
            state: tempfile::tempdir().unwrap(),
        })
    }

    pub fn command(&self, args: &[&str]) -> Output {
        Command::new(&self.program)
            .arg("--root")
            .arg(self.state.path())
            .args(args)
            .output()
            .unwrap()
    }

    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// What a command complains of that must fail.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// A container that goes on after the command has ended.
    pub fn run_detached(&self, bundle: &Path, id: &str) {
        let done = Command::new(&self.program)
            .arg("--root")
            .arg(self.state.path())
            .args(["run", "--detach", "--bundle"])
            .args([bundle, Path::new(id)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success());
    }
}

/// A name that no other run of the tests has.
pub fn id(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

/// The command line and a bundle whose cgroup is `/<name>`.
pub fn prepared(name: &str) -> Option<(Cli, Bundle, String)> {
    if !possible() {
        return None;
    }
    let cli = Cli::new()?;
    let mut bundle = Bundle::new();
    let id = id(name);
    bundle.linux().cgroups_path = Some(format!("/{id}"));
    bundle.linux().resources = None;
    Some((cli, bundle, id))
}

/// A run that ended, well or not, leaves neither state nor cgroup.
pub fn nothing_is_left(cli: &Cli, id: &str) {
    assert_eq!(fs::read_dir(cli.state.path()).map_or(0, Iterator::count), 0);
    assert!(!cgroup::Cgroup::open("/", id).is_ok_and(|cgroup| cgroup.exists()));
}
