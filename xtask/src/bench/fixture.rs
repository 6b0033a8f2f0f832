//! What every comparison stands on: the same small root filesystem, and the machine's description.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::engine::{self, Profile, Scratch};
use crate::process::{capture, run as run_command};

/// The program that is measured: the release build, or the one that `BERTH_BENCH_BINARY` names, which may be of another revision.
pub fn binary() -> Result<PathBuf> {
    binary_as(Profile::Release)
}

/// The same where another build than the release may do.
pub fn binary_as(profile: Profile) -> Result<PathBuf> {
    match std::env::var_os("BERTH_BENCH_BINARY") {
        Some(path) => Ok(path.into()),
        None => engine::build_as(profile),
    }
}

/// The machine's shape and the versions of those compared, in one line.
pub fn machine(peers: &[(&str, String)]) -> Result<String> {
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let total = memory
        .lines()
        .next()
        .and_then(|l| l.split_whitespace().nth(1))
        .unwrap_or("0")
        .parse::<u64>()?;
    let kernel = capture(Command::new("uname").arg("-r"))?;
    let mut text = format!(
        "{} processors, {} GiB, Linux {}",
        std::thread::available_parallelism()?,
        total >> 20,
        kernel.trim()
    );
    for (name, version) in peers {
        text.push_str(&format!(", {name} {version}"));
    }
    Ok(text)
}

/// A root filesystem of one static binary and its links.
pub fn root_filesystem(scratch: &Scratch) -> Result<PathBuf> {
    let root = scratch.join("root");
    for dir in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    for applet in ["sh", "true", "sleep", "echo", "cat"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let tar = scratch.join("root.tar");
    run_command(
        Command::new("tar")
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(&root)
            .arg("."),
    )?;
    Ok(tar)
}
