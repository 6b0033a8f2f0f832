//! Debian's dockerd beside our daemon, with a client of its own release: another engine's opinion of what we write, and its
//! own things for us to read.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{left_out, text};

/// dockerd with a root and a socket of its own, and no bridge and no rules.
pub struct Peer {
    child: Child,
    dir: tempfile::TempDir,
    client: PathBuf,
}

impl Peer {
    /// Nothing, with the reason printed, where there can be none.
    pub fn start() -> Option<Peer> {
        Peer::try_start()
            .inspect_err(|reason| println!("skipped: {reason}"))
            .ok()
    }

    /// The same where only a part of a test needs it.
    pub fn for_a_part() -> Option<Peer> {
        Peer::try_start().inspect_err(|reason| left_out(reason)).ok()
    }

    /// `Err`: why there is none.
    fn try_start() -> Result<Peer, String> {
        let old = crate::docker::fetched().join("old/usr/bin/docker");
        if !old.is_file() {
            return Err(
                "needs a docker client of before version 23, which cargo xtask test fetches".to_owned(),
            );
        }
        // The socket's path is short, and nothing of it is on a filesystem in memory, which overlays may lack.
        let dir = tempfile::Builder::new()
            .prefix("peer-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let socket = dir.path().join("docker.sock");
        let child = Command::new("dockerd")
            .args(["--host", &format!("unix://{}", socket.display())])
            .arg("--data-root")
            .arg(dir.path().join("root"))
            .arg("--exec-root")
            .arg(dir.path().join("exec"))
            .arg("--pidfile")
            .arg(dir.path().join("pid"))
            .args([
                "--bridge",
                "none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = child.map_err(|error| format!("needs dockerd (docker.io): {error}"))?;
        let peer = Peer {
            child,
            dir,
            client: old,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !peer.docker(&["version"]).status.success() {
            if Instant::now() > deadline {
                let log = std::fs::read_to_string(peer.dir.path().join("log")).unwrap_or_default();
                return Err(format!("needs a dockerd that comes up:\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(peer)
    }

    /// What its client does.
    pub fn docker(&self, args: &[&str]) -> Output {
        Command::new(&self.client)
            .args(args)
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.dir.path().join("docker.sock").display()),
            )
            .env("DOCKER_CONFIG", self.dir.path().join("config"))
            .env("DOCKER_BUILDKIT", "1")
            .env("BUILDKIT_PROGRESS", "plain")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// What it shows of something that must succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.docker(args);
        let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {shown}");
        shown
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
