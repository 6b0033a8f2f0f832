//! `--userns keep-id`: one user of the host is itself in the container.

use std::os::unix::fs::{MetadataExt as _, chown};

use super::{daemon, refusal, run, subordinate, words};

#[test]
fn files_in_a_bind_belong_to_the_user_that_was_kept() {
    guard!();
    let ids = subordinate("containers:500000:65536\n");
    let daemon = daemon(&ids, &[]);
    let home = daemon.dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    chown(&home, Some(4711), Some(4712)).unwrap();
    let bind = format!("{}:/home", home.display());
    let mode = "keep-id:uid=4711,gid=4712";
    let seen = run(
        &daemon,
        &["--userns", mode, "-v", &bind],
        "id -u; id -g; touch /home/mine && busybox stat -c %u:%g /home /home/mine /bin/busybox; cat /proc/self/uid_map",
    );
    assert_eq!(
        words(&seen),
        [
            "4711",
            "4712",
            "4711:4712",
            "4711:4712",
            "0:0", // the container is this user, the image is root's
            "0",
            "500000",
            "4711",
            "4711",
            "4711",
            "1",
            "4712",
            "504712",
            "60824"
        ]
    );
    let made = std::fs::metadata(home.join("mine")).unwrap();
    assert_eq!((made.uid(), made.gid()), (4711, 4712));
    // Root of the container is still nobody on the host.
    let refused = run(
        &daemon,
        &["--userns", mode, "-u", "0", "-v", &bind],
        "id -u; echo x > /root-file; busybox chown 4711 /root-file; touch /home/roots; busybox stat -c %u /root-file",
    );
    assert_eq!(words(&refused), ["0", "4711"]);
    assert_eq!(std::fs::metadata(home.join("roots")).unwrap().uid(), 500_000);
}

/// The client tells who asks; root itself is not kept.
#[test]
fn who_asks_is_told_by_the_client() {
    guard!();
    let ids = subordinate("containers:500000:65536\n");
    let daemon = daemon(&ids, &[]);
    let refused = refusal(&daemon, &["run", "--rm", "--userns", "keep-id", "box:1", "true"]);
    assert!(
        refused.contains("root of the host") && refused.contains("keep-id:uid=1000,gid=1000"),
        "{refused}"
    );
    let refused = refusal(
        &daemon,
        &[
            "run",
            "--rm",
            "--privileged",
            "--userns",
            "keep-id:uid=5,gid=5",
            "box:1",
            "true",
        ],
    );
    assert!(refused.contains("privileged mode is incompatible"), "{refused}");
    // A user other than root, that may use the socket.
    std::process::Command::new("chmod")
        .args(["-R", "a+rwX"])
        .arg(daemon.dir.path())
        .status()
        .unwrap();
    let output = std::process::Command::new("setpriv")
        .args([
            "--reuid",
            "4711",
            "--regid",
            "4712",
            "--clear-groups",
            crate::support::BERTH,
        ])
        .args(["run", "--rm", "--userns", "keep-id", "box:1", "id"])
        .env("DOCKER_HOST", daemon.socket())
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let (out, err) = (
        crate::support::text(&output.stdout),
        crate::support::text(&output.stderr),
    );
    assert!(out.starts_with("uid=4711 gid=4712"), "{out}{err}");
}
