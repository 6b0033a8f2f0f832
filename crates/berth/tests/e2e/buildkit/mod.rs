//! The real docker client with its plugins, building over BuildKit's protocol.

mod asking;
mod attesting;
mod building;
mod caching;
mod definitions;
mod interchange;
mod leaving;
mod old;
mod ours;
mod projects;
mod remembering;
mod repositories;
mod sending;
mod suspended;
mod together;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{Daemon, build_clients, text};

/// A daemon, and the clients that build on it with a configuration of their own.
pub struct Lab {
    pub daemon: Daemon,
    clients: PathBuf,
}

/// Ends a test that can't run here, with the reason.
macro_rules! lab {
    () => {{
        guard!();
        match $crate::buildkit::Lab::start() {
            Ok(lab) => lab,
            Err(reason) => {
                println!("skipped: {reason}");
                return;
            }
        }
    }};
}
pub(crate) use lab;

/// Gives the client's plugins to its configuration for this daemon.
pub fn plug_in(daemon: &Daemon, clients: &Path) {
    let plugins = daemon.dir.path().join("docker/cli-plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    let home = clients
        .join("usr/libexec/docker/cli-plugins")
        .canonicalize()
        .unwrap();
    for plugin in ["docker-buildx", "docker-compose"] {
        std::os::unix::fs::symlink(home.join(plugin), plugins.join(plugin)).unwrap();
    }
}

/// The docker client for a daemon whose configuration has the plugins.
pub fn command(daemon: &Daemon, clients: &Path) -> Command {
    let mut command = Command::new(clients.join("usr/bin/docker"));
    command
        .env("DOCKER_HOST", daemon.socket())
        .env("DOCKER_CONFIG", daemon.dir.path().join("docker"))
        .env("BUILDX_CONFIG", daemon.dir.path().join("buildx"))
        .env("BUILDKIT_PROGRESS", "plain")
        .env_remove("DOCKER_BUILDKIT")
        .stdin(Stdio::null());
    command
}

impl Lab {
    pub fn start() -> Result<Lab, String> {
        let clients = build_clients()?;
        let daemon = Daemon::start();
        plug_in(&daemon, &clients);
        std::fs::create_dir_all(daemon.dir.path().join("context")).unwrap();
        Ok(Lab { daemon, clients })
    }

    pub fn context(&self) -> PathBuf {
        self.daemon.dir.path().join("context")
    }

    /// Writes a file of the context.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.context().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The docker client in the context's directory, not started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(&self.daemon, &self.clients);
        command.args(args).current_dir(self.context());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints that must succeed: standard output, then standard error.
    pub fn ok(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let log = if output.status.success() {
            String::new()
        } else {
            self.daemon.log()
        };
        assert!(
            output.status.success(),
            "docker {args:?}: {}\n{out}{err}\n{log}",
            output.status
        );
        (out, err)
    }

    /// Exit code and error text of a command that must fail.
    pub fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.run(args);
        assert!(!output.status.success(), "docker {args:?} succeeded");
        (output.status.code().unwrap_or(-1), text(&output.stderr))
    }

    /// What a container of `image` prints.
    pub fn run_image(&self, image: &str, args: &[&str]) -> String {
        let all: Vec<&str> = ["run", "--rm", image].iter().chain(args).copied().collect();
        self.daemon.ok(&all)
    }
}

/// Every regular file below a directory that holds `needle`.
pub fn files_with(root: &Path, needle: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if meta.is_dir() {
                waiting.push(path);
            } else if meta.is_file()
                && std::fs::read(&path)
                    .is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle))
            {
                found.push(path);
            }
        }
    }
    found
}
