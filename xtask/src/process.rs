//! Running other programs: inherit, capture, or fail with what they said.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::interrupt::{self, Watched};

/// The workspace's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap_or_else(|_| PathBuf::from("."))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs with our own output; an exit code other than 0 is an error.
pub fn run(command: &mut Command) -> Result<()> {
    let text = shown(command);
    interrupt::check()?;
    let mut child = command.spawn().with_context(|| format!("cannot run {text}"))?;
    let watched = Watched::new(&child);
    let status = child.wait()?;
    drop(watched);
    interrupt::check()?;
    if !status.success() {
        bail!("{text}: {status}");
    }
    Ok(())
}

/// Runs and gives what it printed; on failure the error carries both streams.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{}: {}\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs and gives everything, whatever the exit code.
pub fn output(command: &mut Command) -> Result<Output> {
    let text = shown(command);
    interrupt::check()?;
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {text}"))?;
    let watched = Watched::new(&child);
    let output = child.wait_with_output()?;
    drop(watched);
    interrupt::check()?;
    Ok(output)
}

/// Whether a program is on the path.
pub fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .any(|dir| dir.join(program).is_file())
}

/// Whether we are root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}
