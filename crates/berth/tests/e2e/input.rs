//! Input that must be refused, with its code and its words.

use std::process::Command;

use crate::support::{BERTH, Daemon};

#[test]
fn bad_input_is_refused_with_the_right_code() {
    guard!();
    let daemon = Daemon::start();
    let (code, text) = daemon.fails(&["run", "--rm", "box:1", "nosuch"]);
    assert_eq!(code, 127, "{text}");
    assert!(text.contains("executable file not found in $PATH"), "{text}");
    assert_eq!(daemon.fails(&["run", "--rm", "box:1", "/etc/passwd"]).0, 126);
    assert_eq!(
        daemon
            .fails(&["run", "--rm", "--pull", "never", "nosuch:1", "true"])
            .0,
        125
    );
    assert!(
        daemon
            .fails(&["rm", "nosuch"])
            .1
            .contains("No such container: nosuch")
    );
    assert!(
        daemon
            .fails(&["volume", "rm", "nosuch"])
            .1
            .contains("no such volume")
    );
    assert!(
        daemon
            .fails(&["network", "rm", "nosuch"])
            .1
            .contains("network nosuch not found")
    );
    daemon.ok(&["create", "--name", "taken", "box:1", "true"]);
    assert!(
        daemon
            .fails(&["create", "--name", "taken", "box:1", "true"])
            .1
            .contains("is already in use by container")
    );
    assert_eq!(
        daemon.ok(&["ps", "-aq"]).lines().count(),
        1,
        "failures leave nothing behind"
    );
    // A second daemon on the same root is told who has it.
    let second = Command::new(BERTH)
        .args(["daemon", "--data-root"])
        .arg(daemon.dir.path().join("root"))
        .arg("--exec-root")
        .arg(daemon.dir.path().join("run2"))
        .output()
        .unwrap();
    assert!(!second.status.success());
}
