//! Data that outlives containers.

use crate::support::Daemon;

#[test]
fn volumes_are_filled_shared_and_outlive_containers() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["volume", "create", "data"]);
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-v", "data:/srv", "box:1", "cat", "/srv/seed"])
            .trim(),
        "from the image"
    );
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "data:/srv",
        "box:1",
        "sh",
        "-c",
        "echo kept > /srv/note",
    ]);
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-v", "data:/x:ro", "box:1", "cat", "/x/note"])
            .trim(),
        "kept"
    );
    let (_, text) = daemon.fails(&["run", "--rm", "-v", "data:/x:ro", "box:1", "touch", "/x/new"]);
    assert!(text.contains("Read-only"), "{text}");
    daemon.ok(&["volume", "rm", "data"]);
}

#[test]
fn volumes_get_other_names_and_copies() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "first:/d",
        "box:1",
        "sh",
        "-c",
        "echo one > /d/note; chown 7:8 /d/note",
    ]);
    assert_eq!(daemon.ok(&["volume", "rename", "first", "second"]), "second\n");
    assert_eq!(daemon.ok(&["volume", "clone", "second", "third"]), "third\n");
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        "third:/d",
        "box:1",
        "sh",
        "-c",
        "echo two >> /d/note",
    ]);
    let show = |volume: &str| {
        daemon.ok(&[
            "run",
            "--rm",
            "-v",
            &format!("{volume}:/d"),
            "box:1",
            "cat",
            "/d/note",
        ])
    };
    assert_eq!(
        (show("second").as_str(), show("third").as_str()),
        ("one\n", "one\ntwo\n")
    );
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "second\nthird\n");
    daemon.ok(&["create", "--name", "holder", "-v", "second:/d", "box:1", "true"]);
    let refused = daemon.fails(&["volume", "rename", "second", "fourth"]).1;
    assert!(refused.contains("rename second: volume is in use"), "{refused}");
    assert!(
        daemon
            .fails(&["volume", "clone", "second", "third"])
            .1
            .contains("must be unique")
    );
    assert!(
        daemon
            .fails(&["volume", "clone", "nosuch", "fifth"])
            .1
            .contains("no such volume")
    );
    assert!(
        daemon
            .fails(&["volume", "rename", "third", "../x"])
            .1
            .contains("invalid characters")
    );
}
