//! The docker client of today with buildx, as the peer's client where building is compared: what people build with now.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::clients;
use crate::process::capture;

/// The client, with a configuration of its own that knows the plugin and nothing else.
pub struct Today {
    docker: PathBuf,
    configuration: PathBuf,
}

impl Today {
    pub fn fetch(scratch: &Path) -> Result<Today> {
        let home = clients::fetched()?;
        let configuration = scratch.join("docker-today");
        let plugins = configuration.join("cli-plugins");
        std::fs::create_dir_all(&plugins)?;
        let plugin = "docker-buildx";
        let program = home.join("usr/libexec/docker/cli-plugins").join(plugin);
        std::os::unix::fs::symlink(&program, plugins.join(plugin))
            .with_context(|| format!("cannot plug in {}", program.display()))?;
        Ok(Today {
            docker: home.join("usr/bin/docker"),
            configuration,
        })
    }

    /// It, speaking to the daemon at `socket`.
    pub fn client(&self, socket: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.docker);
        command
            .args(args)
            .env("DOCKER_HOST", socket)
            .env("DOCKER_CONFIG", &self.configuration)
            .env("BUILDX_CONFIG", self.configuration.join("buildx"))
            .env_remove("DOCKER_BUILDKIT")
            .stdin(Stdio::null());
        command
    }

    /// What the client and its plugin say of themselves.
    pub fn versions(&self) -> Result<[(&'static str, String); 2]> {
        let version = |args: &[&str]| -> Result<String> {
            let said = capture(&mut self.client("unix:///nonexistent", args))?;
            let word = said
                .split_whitespace()
                .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
            Ok(word.unwrap_or_default().trim_end_matches(',').to_owned())
        };
        Ok([
            ("its client", version(&["--version"])?),
            ("buildx", version(&["buildx", "version"])?),
        ])
    }
}
