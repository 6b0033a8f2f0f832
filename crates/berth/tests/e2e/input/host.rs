//! Hosts that lack what containers need: the daemon says what, and does nothing else.

use std::process::{Command, Stdio};

use crate::support::{BERTH, text};

/// Runs a daemon in a mount namespace that `prepare` (a shell script) has changed; it must refuse to start.
fn refused(prepare: &str) -> String {
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    let script = format!("{prepare} && exec \"$@\"");
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh", BERTH, "daemon", "--data-root"])
        .arg(dir.path().join("root"))
        .arg("--exec-root")
        .arg(dir.path().join("run"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        !dir.path().join("root").exists(),
        "a refused daemon made its root"
    );
    said
}

#[test]
fn a_kernel_without_a_needed_feature_is_named() {
    guard!();
    let said = refused("umount -R /sys/fs/cgroup");
    assert!(
        said.contains("control groups") && said.contains("/sys/fs/cgroup"),
        "{said}"
    );
}
