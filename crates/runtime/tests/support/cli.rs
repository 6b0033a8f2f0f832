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

    /// A command that is still to be run.
    pub fn call(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(self.state.path()).args(args);
        command
    }

    pub fn command(&self, args: &[&str]) -> Output {
        self.call(args).output().unwrap()
    }

    /// One whose container lives on, and would keep the ends of pipes.
    pub fn quietly(&self, args: &[&str]) {
        let done = self
            .call(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(done.success(), "{args:?}");
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
        self.quietly(&["run", "--detach", "--bundle", bundle.to_str().unwrap(), id]);
    }
}

/// A container that waits, or does what its bundle says, until the test ends.
pub struct Container {
    pub cli: Cli,
    pub bundle: Bundle,
    pub id: String,
}

impl Container {
    /// `prepare` changes the bundle of one that sleeps.
    pub fn run(name: &str, prepare: impl FnOnce(&mut Bundle)) -> Option<Container> {
        let container = Container::new(name, prepare)?;
        container.cli.run_detached(container.bundle.path(), &container.id);
        Some(container)
    }

    /// One that is not started.
    pub fn create(name: &str, prepare: impl FnOnce(&mut Bundle)) -> Option<Container> {
        let container = Container::new(name, prepare)?;
        let path = container.bundle.path().to_str().unwrap();
        container
            .cli
            .quietly(&["create", "--bundle", path, &container.id]);
        Some(container)
    }

    fn new(name: &str, prepare: impl FnOnce(&mut Bundle)) -> Option<Container> {
        let (cli, mut bundle, id) = prepared(name)?;
        bundle.shell("sleep 1000");
        prepare(&mut bundle);
        bundle.write_config();
        Some(Container { cli, bundle, id })
    }

    /// What a further process prints.
    pub fn exec(&self, flags: &[&str], command: &[&str]) -> String {
        self.cli.ok(&self.exec_call(flags, command))
    }

    pub fn exec_call<'a>(&'a self, flags: &[&'a str], command: &[&'a str]) -> Vec<&'a str> {
        [&["exec"], flags, &[self.id.as_str()], command].concat()
    }

    pub fn state(&self) -> serde_json::Value {
        serde_json::from_str(&self.cli.ok(&["state", &self.id])).unwrap()
    }

    pub fn group(&self) -> cgroup::Cgroup {
        cgroup::Cgroup::open("/", &self.id).unwrap()
    }

    /// What a limit's file holds, by its controller and names in both versions.
    pub fn limit(&self, controller: &str, v1: &str, v2: &str) -> String {
        let group = self.group();
        let paths = group.paths();
        let of = |path: &&cgroup::ControllerPath| path.controllers.iter().any(|name| name == controller);
        let file = match paths.iter().find(of) {
            Some(path) => path.directory.join(v1),
            None => paths[0].directory.join(v2),
        };
        fs::read_to_string(&file).unwrap().trim().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.cli.command(&["delete", "--force", &self.id]);
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
