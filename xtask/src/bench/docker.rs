//! The peer: Debian's dockerd with a network namespace, a root and a socket of its own, so that the host's rules and
//! bridges stay untouched.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::interrupt::Cleaning;
use crate::process::{capture, output, run as run_command};

const PREFIX: &str = "berth-bench-";

/// The network namespace of this process's peer.
pub fn netns() -> String {
    format!("{PREFIX}{}", std::process::id())
}

/// Removes namespaces of runs that were killed.
fn remove_left() -> Result<()> {
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            output(Command::new("ip").args(["netns", "del", &name]))?;
        }
    }
    Ok(())
}

/// Debian's dockerd in a network namespace of its own.
pub struct Peer {
    child: Child,
    pub dir: PathBuf,
    pub docker: PathBuf,
    /// Last, for the daemon lives in it.
    netns: Netns,
}

/// Starts dockerd on this directory, in this network namespace, with further arguments.
fn spawn(dir: &Path, netns: &Netns, args: &[&str]) -> Result<Child> {
    let mut log = std::fs::OpenOptions::new();
    let log = log.create(true).append(true).open(dir.join("dockerd.log"))?;
    // nsenter, not `ip netns exec`: the latter hides the control groups behind a /sys of its own.
    Command::new("nsenter")
        .arg(format!("--net=/run/netns/{}", netns.0))
        .arg("dockerd")
        .args(["--host", &format!("unix://{}", dir.join("docker.sock").display())])
        .arg("--data-root")
        .arg(dir.join("root"))
        .arg("--exec-root")
        .arg(dir.join("exec"))
        .arg("--pidfile")
        .arg(dir.join("docker.pid"))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start dockerd")
}

struct Netns(String);

impl Netns {
    fn make() -> Result<Netns> {
        let name = netns();
        run_command(Command::new("ip").args(["netns", "add", &name]))?;
        let made = Netns(name);
        run_command(Command::new("ip").args(["-n", &made.0, "link", "set", "lo", "up"]))?;
        Ok(made)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _cleaning = Cleaning::begin();
        let _ = output(Command::new("ip").args(["netns", "del", &self.0]));
    }
}

impl Peer {
    pub fn start(scratch: &Path) -> Result<Peer> {
        let dir = scratch.join("peer");
        std::fs::create_dir_all(&dir)?;
        remove_left()?;
        let netns = Netns::make()?;
        let child = spawn(&dir, &netns, &[])?;
        // The client of the same package where there is one: it builds with BuildKit without a plugin.
        let packaged = PathBuf::from("/usr/bin/docker");
        let docker = if packaged.exists() {
            packaged
        } else {
            PathBuf::from("docker")
        };
        let peer = Peer {
            child,
            dir,
            docker,
            netns,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !output(&mut peer.client(&["version"]))?.status.success() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(peer.dir.join("dockerd.log")).unwrap_or_default();
                bail!("dockerd did not come up:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(peer)
    }

    /// Ends the daemon and starts the next one with these further arguments; how long it took until that had given `answers`.
    pub fn restart(&mut self, args: &[&str], answers: impl FnOnce() -> Result<()>) -> Result<Duration> {
        run_command(Command::new("kill").arg(self.pid()?.to_string()))?;
        self.child.wait()?;
        let start = Instant::now();
        self.child = spawn(&self.dir, &self.netns, args)?;
        answers()?;
        Ok(start.elapsed())
    }

    pub fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.docker);
        command
            .args(args)
            .env("DOCKER_HOST", self.socket())
            .env("DOCKER_BUILDKIT", "1")
            .stdin(Stdio::null());
        command
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.dir.join("docker.sock").display())
    }

    pub fn version(&self) -> Result<String> {
        let text = capture(&mut self.client(&["version", "--format", "{{.Server.Version}}"]))?;
        Ok(text.trim().to_owned())
    }

    pub fn pid(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.dir.join("docker.pid"))?;
        text.trim().parse().context("dockerd's pid file has no number")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _cleaning = Cleaning::begin();
        // Each step goes on whatever the one before came to: this is the end of a run, good or bad.
        let ids =
            output(&mut self.client(&["ps", "-aq"])).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
        for id in ids.unwrap_or_default().split_whitespace() {
            let _ = output(&mut self.client(&["rm", "-f", id]));
        }
        if let Ok(pid) = self.pid() {
            let _ = output(Command::new("kill").arg(pid.to_string()));
        }
        let _ = self.child.wait();
        // It keeps its root mounted upon itself when its containers may have outlived it.
        let _ = output(Command::new("umount").arg(self.dir.join("root")));
    }
}
