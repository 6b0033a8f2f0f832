//! The real docker client, as tests look for it: today's, which `cargo xtask test` fetches, and otherwise the machine's own.
//!
//! The machine's own may be years old, so whoever compares words says from which version on.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The first version whose words are ours; older ones print other things.
pub const RECENT: u32 = 28;

/// Where `cargo xtask test` unpacks clients.
pub fn fetched() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/clients")
}

/// The program, of this major version or a later one; else why there is none.
pub fn client(least: u32) -> Result<PathBuf, String> {
    // Each is asked once for its version, since there are tests that call it for every case.
    static THERE: OnceLock<Vec<(PathBuf, u32, String)>> = OnceLock::new();
    let there = THERE.get_or_init(|| {
        let programs = [fetched().join("usr/bin/docker"), PathBuf::from("docker")];
        let versions = programs.into_iter().filter_map(|program| {
            let (major, version) = version(&program)?;
            Some((program, major, version))
        });
        versions.collect()
    });
    let enough = there.iter().find(|(_, major, _)| *major >= least);
    match (enough, there.last()) {
        (Some((program, _, _)), _) => Ok(program.clone()),
        (None, Some((_, _, version))) => Err(format!(
            "the docker client is {version}, and {least} is compared with"
        )),
        (None, None) => {
            Err("needs the docker client, which cargo xtask test fetches (or package docker.io)".to_owned())
        }
    }
}

fn version(program: &Path) -> Option<(u32, String)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().nth(2)?.trim_end_matches(',');
    let major = version.split(['.', '+']).next()?.parse().ok()?;
    Some((major, version.to_owned()))
}
