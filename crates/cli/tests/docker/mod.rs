//! The real docker client, as tests look for it: today's, which `cargo xtask test` fetches, and otherwise the machine's own.
//!
//! The machine's own may be years old, so whoever compares words says from which version on.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The first version whose words are ours; older ones print other things.
pub const RECENT: u32 = 28;

/// Where `cargo xtask test` unpacks clients.
pub fn fetched() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients")
}

/// The program, of this major version or a later one; else why there is none.
pub fn client(least: u32) -> Result<PathBuf, String> {
    let mut why = "needs the docker client, which cargo xtask test fetches (or package docker.io)".to_owned();
    for program in [fetched().join("usr/bin/docker"), PathBuf::from("docker")] {
        let Some((major, version)) = version(&program) else {
            continue;
        };
        if major >= least {
            return Ok(program);
        }
        why = format!("the docker client is {version}, and {least} is compared with");
    }
    Err(why)
}

fn version(program: &Path) -> Option<(u32, String)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().nth(2)?.trim_end_matches(',');
    let major = version.split(['.', '+']).next()?.parse().ok()?;
    Some((major, version.to_owned()))
}
