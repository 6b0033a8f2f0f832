//! Layers against the kernel: what overlayfs makes of a tar that was applied, what a layer read back holds, and
//! what hostile archives can't do. Needs root; skipped with a reason without.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod apply;
mod beneath;
mod broken;
mod bytes;
mod diff;
mod gnu_tar;
mod hostile;
mod picture;
mod roots;

use std::path::{Path, PathBuf};

/// Whether the machine can run these tests; prints the reason when not.
fn able() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: devices and trusted attributes need root");
    }
    root
}

/// A fresh directory with the named directories in it.
fn place(names: &[&str]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = names.iter().map(|name| dir.path().join(name)).collect();
    for path in &paths {
        std::fs::create_dir(path).unwrap();
    }
    (dir, paths)
}

fn apply(tar: &[u8], dest: &Path, lowers: &[PathBuf]) -> Result<(), image::layer::LayerError> {
    image::layer::apply(tar, dest, lowers).map(|_| ())
}
