//! A test that runs itself as a child under strace, which kills it with SIGKILL as it enters the n-th system call of a
//! kind: every call by which something is made to last is a point where a machine may stop.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support"
)]

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use spec::Digest;
use store::Store;

/// Whether there is strace; prints the reason when not.
pub fn able() -> bool {
    let able = Command::new("strace").arg("-V").output().is_ok();
    if !able {
        println!("skipped: needs strace (package strace)");
    }
    able
}

/// Runs the test `child` of this program with more in its environment; whether it was killed at system call `count` of
/// these.
pub fn killed(environment: &[(&str, &OsStr)], calls: &str, count: usize) -> bool {
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &format!("trace={calls}"),
            "-e",
        ])
        .arg(format!("inject={calls}:signal=SIGKILL:when={count}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1", "--nocapture"])
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    !status.success()
}

/// What the child was told is done, line by line; it survives the child.
pub struct Told(fs::File);

impl Told {
    pub fn open(root: &Path) -> Told {
        let mut options = fs::OpenOptions::new();
        Told(options.append(true).create(true).open(root.join("told")).unwrap())
    }

    pub fn line(&mut self, line: &str) {
        writeln!(self.0, "{line}").unwrap();
    }

    pub fn read(root: &Path) -> String {
        fs::read_to_string(root.join("told")).unwrap_or_default()
    }

    pub fn forget(root: &Path) {
        fs::remove_file(root.join("told")).ok();
    }
}

/// Every directory has its row and every row its directory; every blob is what its name says.
pub fn assert_whole(store: &Store, at: &str) {
    let snapshots = store.snapshots();
    let rows: Vec<_> = snapshots.list().unwrap().iter().map(|row| row.id).collect();
    for entry in fs::read_dir(store.root().join("snapshots")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            rows.iter().any(|row| row.to_string() == name) || name.parse::<u64>().is_err(),
            "{at}: snapshot {name} has no row"
        );
    }
    for row in rows {
        assert!(
            snapshots.fs(row).is_dir(),
            "{at}: snapshot {row} has no directory"
        );
    }
    for (digest, size) in store.content().list().unwrap() {
        let bytes = store.content().read(&digest, size).unwrap();
        assert_eq!(Digest::sha256(&bytes), digest, "{at}: a torn blob");
    }
}
