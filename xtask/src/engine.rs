//! A daemon of our own for a demonstration or a benchmark: root, socket and names of its own, gone at the end.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::interrupt::{self, Cleaning};
use crate::process;

/// How the binary is built.
#[derive(Clone, Copy)]
pub enum Profile {
    Release,
    /// As tests have it.
    Development,
}

/// Builds the release binary and gives its path.
pub fn build() -> Result<PathBuf> {
    build_as(Profile::Release)
}

/// Builds the binary and gives its path.
pub fn build_as(profile: Profile) -> Result<PathBuf> {
    let (arguments, directory): (&[&str], _) = match profile {
        Profile::Release => (&["build", "--release", "--package", "berth"], "release"),
        // Beside the tests that use it: then it is built already.
        Profile::Development => (
            &["build", "--workspace", "--bin", "berth", "--test", "e2e"],
            "debug",
        ),
    };
    process::run(Command::new("cargo").args(arguments).current_dir(process::root()))?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| process::root().join("target"), PathBuf::from);
    let host = process::capture(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let binary = target.join(host.trim()).join(directory).join("berth");
    if !binary.exists() {
        bail!("the build left no {}", binary.display());
    }
    Ok(binary)
}

/// A directory that is removed with everything in it.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Result<Scratch> {
        Scratch::at(std::env::temp_dir().join(format!("{name}-{}", std::process::id())))
    }

    pub fn at(path: PathBuf) -> Result<Scratch> {
        std::fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Scratch(path))
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {error}", self.0.display());
        }
    }
}

/// A running daemon of ours.
pub struct Daemon {
    child: Child,
    binary: PathBuf,
    dir: PathBuf,
    args: Vec<String>,
    pub socket: String,
    log: PathBuf,
}

fn spawn(binary: &Path, dir: &Path, socket: &str, args: &[String], log: &Path) -> Result<Child> {
    let mut options = std::fs::OpenOptions::new();
    Command::new(binary)
        .arg("daemon")
        .arg("--data-root")
        .arg(dir.join("root"))
        .arg("--exec-root")
        .arg(dir.join("run"))
        .args(["--host", socket])
        .args(args)
        // What it starts is known by it, too.
        .env("TMPDIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(options.create(true).append(true).open(log)?)
        .process_group(0)
        .spawn()
        .context("cannot start the daemon")
}

impl Daemon {
    pub fn start(binary: &Path, dir: &Path) -> Result<Daemon> {
        Daemon::start_with(binary, dir, &[])
    }

    /// With further arguments of `berth daemon`.
    pub fn start_with(binary: &Path, dir: &Path, args: &[&str]) -> Result<Daemon> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let log = dir.join("daemon.log");
        let socket = format!("unix://{}", dir.join("run/berth.sock").display());
        let mut daemon = Daemon {
            child: spawn(binary, dir, &socket, &args, &log)?,
            binary: binary.to_owned(),
            dir: dir.to_owned(),
            args,
            socket,
            log,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Ends the daemon and starts the next one; how long it took until that had given `answers`.
    pub fn restart(&mut self, answers: impl FnOnce() -> Result<()>) -> Result<Duration> {
        self.stop()?;
        let start = Instant::now();
        self.child = spawn(&self.binary, &self.dir, &self.socket, &self.args, &self.log)?;
        self.wait_until_ready()?;
        answers()?;
        Ok(start.elapsed())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let path = self.socket.trim_start_matches("unix://").to_owned();
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&path).is_err() {
            interrupt::check()?;
            if self.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!(
                    "the daemon did not come up:\n{}",
                    std::fs::read_to_string(&self.log).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Our client, talking to this daemon.
    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(args)
            .env("DOCKER_HOST", &self.socket)
            .stdin(Stdio::null());
        command
    }

    /// Removes every container, network, volume and image, and ends the daemon.
    pub fn clean_up(mut self) -> Result<()> {
        let ids = process::capture(&mut self.client(&["ps", "-aq"]))?;
        for id in ids.split_whitespace() {
            process::capture(&mut self.client(&["rm", "-f", "-v", id]))?;
        }
        process::capture(&mut self.client(&["system", "prune", "-a", "-f", "--volumes"]))?;
        process::capture(&mut self.client(&["volume", "prune", "-a", "-f"]))?;
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        process::run(Command::new("kill").arg(self.child.id().to_string()))?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _cleaning = Cleaning::begin();
        if matches!(self.child.try_wait(), Ok(None)) {
            let ids = process::capture(&mut self.client(&["ps", "-aq"])).unwrap_or_default();
            for id in ids.split_whitespace() {
                // Whatever can be removed is removed; the failure that brought us here is the one to tell.
                let _ = process::capture(&mut self.client(&["rm", "-f", "-v", id]));
            }
            let _ = self.stop();
        }
    }
}
