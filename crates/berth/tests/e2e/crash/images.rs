//! Images that are named, removed and imported when the daemon is killed.

use super::scenarios::{NAME, Scenario, has_image, load_check, load_clean, loaded, nothing, remove, words};
use crate::support::Daemon;
use crate::tarball::Tar;

fn tag_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || has_image(daemon, "named:1"));
    daemon.ok(&["tag", "box:1", "named:1"]);
    daemon.ok(&["run", "--rm", "named:1", "true"]);
}

fn tag_clean(daemon: &Daemon, _: &str) {
    daemon.run(&["rmi", "named:1"]);
}

/// It is gone, or there with all its layers.
fn rmi_check(daemon: &Daemon, path: &str, told: bool) {
    assert!(!told || !has_image(daemon, "loaded:1"));
    if has_image(daemon, "loaded:1") {
        load_check(daemon, path, true);
    }
}

fn rmi_clean(daemon: &Daemon, path: &str) {
    load_clean(daemon, path);
    // A killed daemon may have forgotten the image and not its blobs, which go with the next collection.
    daemon.ok(&["image", "prune", "-f"]);
}

fn archived(daemon: &Daemon) -> String {
    let path = daemon.dir.path().join("imported.tar");
    std::fs::write(&path, Tar::default().file("kept", &[b'x'; 100_000]).finish()).unwrap();
    path.display().to_string()
}

fn import_check(daemon: &Daemon, path: &str, told: bool) {
    assert!(!told || has_image(daemon, "imported:1"));
    if !told {
        daemon.ok(&["import", path, "imported:1"]);
    }
    daemon.ok(&["create", "--name", NAME, "imported:1", "/none"]);
    daemon.ok(&["cp", &format!("{NAME}:/kept"), "-"]);
}

fn import_clean(daemon: &Daemon, path: &str) {
    remove(daemon, path);
    daemon.run(&["rmi", "imported:1"]);
    // One that lost its name to the second attempt.
    daemon.ok(&["image", "prune", "-f"]);
}

pub const TAG: Scenario = Scenario::without_container(
    "tag",
    nothing,
    |_| words(&["tag", "box:1", "named:1"]),
    tag_check,
    tag_clean,
);
pub const RMI: Scenario = Scenario::without_container(
    "rmi",
    loaded,
    |_| words(&["rmi", "loaded:1"]),
    rmi_check,
    rmi_clean,
);
pub const IMPORT: Scenario = Scenario::without_container(
    "import",
    archived,
    |path| words(&["import", path, "imported:1"]),
    import_check,
    import_clean,
);
