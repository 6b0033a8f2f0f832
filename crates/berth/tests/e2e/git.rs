//! Repositories of the tests, made by the machine's git.

use std::path::Path;
use std::process::Command;

use crate::support::host;

/// False, with the reason printed, where there is no git.
pub fn has_git() -> bool {
    let there = Command::new("git").arg("--version").output().is_ok();
    if !there {
        println!("skipped: needs git (package git)");
    }
    there
}

/// Runs git in a directory, as somebody who may commit; it must succeed.
pub fn git(dir: &Path, args: &[&str]) {
    let dir = dir.display().to_string();
    let who = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@t",
        "-c",
        "init.defaultBranch=main",
    ];
    host(&[&["git", "-C", &dir], &who[..], args].concat());
}
