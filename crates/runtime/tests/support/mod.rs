//! Bundles from the static busybox of the machine, run by the library, and what their processes print.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cli;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use runtime::{Created, Launch, LaunchError, RootFs, Stdio};
use spec::runtime::Spec;
use sys::process::Exit;

/// False, with the reason printed, where the kernel tests cannot run.
pub fn possible() -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return false;
    }
    if !Path::new("/bin/busybox").exists() {
        println!("skipped: needs /bin/busybox (package busybox-static)");
        return false;
    }
    true
}

pub struct Bundle {
    directory: tempfile::TempDir,
    pub spec: Spec,
}

impl Bundle {
    pub fn new() -> Bundle {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("rootfs");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "ls", "mount", "id", "hostname", "env", "stat", "readlink", "sleep", "kill",
            "touch", "mkdir", "echo", "stty", "pwd", "test", "true", "false", "chroot", "unshare", "grep",
            "ps", "tty", "tr", "sort", "umount", "date", "mknod", "head", "find", "wc", "nc", "ip",
        ] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        fs::write(
            root.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n",
        )
        .unwrap();
        let mut spec = runtime::template::spec();
        let process = spec.process.as_mut().unwrap();
        process.terminal = false;
        Bundle { directory, spec }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn root(&self) -> PathBuf {
        self.directory.path().join("rootfs")
    }

    pub fn process(&mut self) -> &mut spec::runtime::Process {
        self.spec.process.as_mut().unwrap()
    }

    pub fn linux(&mut self) -> &mut spec::runtime::Linux {
        self.spec.linux.as_mut().unwrap()
    }

    pub fn args(&mut self, args: &[&str]) -> &mut Bundle {
        self.process().args = args.iter().map(|arg| (*arg).to_owned()).collect();
        self
    }

    pub fn shell(&mut self, script: &str) -> &mut Bundle {
        self.args(&["sh", "-c", script])
    }

    pub fn create(&self, stdio: Stdio) -> Result<Created, LaunchError> {
        let root = self.root();
        runtime::create(Launch::new(
            "test",
            self.path(),
            &self.spec,
            RootFs::Path(&root),
            stdio,
        ))
    }

    /// Runs to the end: everything printed, and how it ended.
    pub fn run(&self) -> Result<(String, Exit), LaunchError> {
        let (stdio, output) = captured();
        let running = self.create(stdio)?.start()?;
        Ok(finish(running.pidfd, output))
    }

    pub fn output(&self) -> String {
        let (text, exit) = self.run().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(exit, Exit::Code(0), "{text}");
        text
    }

    pub fn shell_output(&mut self, script: &str) -> String {
        self.shell(script).output()
    }

    pub fn write_config(&self) {
        let bytes = serde_json::to_vec_pretty(&self.spec).unwrap();
        fs::write(self.path().join("config.json"), bytes).unwrap();
    }
}

/// Streams whose output can be read: standard output and error together.
pub fn captured() -> (Stdio, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let stderr = write.try_clone().unwrap();
    (
        Stdio::Streams {
            stdin,
            stdout: write,
            stderr,
        },
        read,
    )
}

pub fn finish(pidfd: OwnedFd, output: OwnedFd) -> (String, Exit) {
    let mut text = String::new();
    fs::File::from(output).read_to_string(&mut text).unwrap();
    (text, sys::process::wait(pidfd.as_fd()).unwrap())
}
