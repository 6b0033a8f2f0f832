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
