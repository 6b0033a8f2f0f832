//! Builds that write a cache, begin with one, or give a file away when the daemon is killed.

use std::path::{Path, PathBuf};

use super::scenarios::{Scenario, build_check, build_clean, context, words};
use crate::support::Daemon;

/// Beside the context.
fn cache(context: &str) -> String {
    format!("{context}.cache")
}

fn cache_to(context: &str) -> Vec<String> {
    let to = format!("type=local,dest={}", cache(context));
    words(&["build", "-q", "-t", "built:1", "--cache-to", &to, context])
}

fn cache_from(context: &str) -> Vec<String> {
    let from = format!("type=local,src={}", cache(context));
    words(&["build", "-q", "-t", "built:1", "--cache-from", &from, context])
}

fn build(daemon: &Daemon, command: &[String]) {
    daemon.ok(&command.iter().map(String::as_str).collect::<Vec<_>>());
}

/// The cache that was told of is all that the next engine needs to have the steps done.
fn cache_to_check(daemon: &Daemon, context: &str, told: bool) {
    build_check(daemon, context, told);
    if !told {
        build(daemon, &cache_to(context));
    }
    build_clean(daemon, context);
    let from = format!("type=local,src={}", cache(context));
    let output = daemon.run(&[
        "build",
        "--progress",
        "plain",
        "-t",
        "built:1",
        "--cache-from",
        &from,
        context,
    ]);
    let shown = crate::support::text(&output.stderr);
    assert!(output.status.success(), "{shown}");
    let cached = shown.lines().filter(|line| line.ends_with(" CACHED")).count();
    assert!(cached >= 2, "{shown}");
    build_check(daemon, context, true);
}

fn cached(daemon: &Daemon) -> String {
    let context = context(daemon);
    build(daemon, &cache_to(&context));
    build_clean(daemon, &context);
    context
}

fn cache_clean(daemon: &Daemon, context: &str) {
    build_clean(daemon, context);
    let _ = std::fs::remove_dir_all(cache(context));
}

fn archive(context: &str) -> PathBuf {
    format!("{context}.tar").into()
}

fn output(context: &str) -> Vec<String> {
    let to = format!("type=tar,dest={}", archive(context).display());
    words(&["build", "-q", "-o", &to, context])
}

/// What is given away is whole, or not there. All of it may have come to a client that has not heard that the build is done.
fn output_check(daemon: &Daemon, context: &str, told: bool) {
    let path = archive(context);
    assert!(!told || path.exists(), "no archive");
    if path.exists() {
        is_whole(&path);
    }
    if !told {
        build(daemon, &output(context));
        is_whole(&path);
    }
}

fn is_whole(archive: &Path) {
    let listed = crate::support::host(&["tar", "-tf", &archive.display().to_string()]);
    for file in ["made", "file"] {
        assert!(
            listed.lines().any(|line| line.trim_start_matches("./") == file),
            "{file} in {listed}"
        );
    }
}

fn output_clean(daemon: &Daemon, context: &str) {
    build_clean(daemon, context);
    let _ = std::fs::remove_file(archive(context));
}

pub const BUILD_CACHE_TO: Scenario =
    Scenario::without_container("build --cache-to", context, cache_to, cache_to_check, cache_clean);
pub const BUILD_CACHE_FROM: Scenario =
    Scenario::without_container("build --cache-from", cached, cache_from, build_check, cache_clean);
pub const BUILD_OUTPUT: Scenario =
    Scenario::without_container("build -o", context, output, output_check, output_clean);
