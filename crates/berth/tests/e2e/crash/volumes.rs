//! Volumes that get another name, a copy, or their content from an archive, when the daemon is killed.

use super::scenarios::{Scenario, content, filled_volume, words};
use crate::support::Daemon;

const NEW: &str = "renamed";

fn volumes(daemon: &Daemon) -> Vec<String> {
    let listed = daemon.ok(&["volume", "ls", "-q"]);
    let ours = listed.lines().filter(|name| ["made", NEW].contains(name));
    ours.map(str::to_owned).collect()
}

/// The content is there under one name, once.
fn rename_check(daemon: &Daemon, _: &str, told: bool) {
    let names = volumes(daemon);
    assert!(names == [NEW] || (names == ["made"] && !told), "{names:?}");
    for name in &names {
        assert_eq!(content(daemon, name), "kept\n");
    }
    if names == ["made"] {
        daemon.ok(&["volume", "rename", "made", NEW]);
    }
}

/// What was copied is as it was, and the copy is whole or not there, and can be made again.
fn clone_check(daemon: &Daemon, _: &str, told: bool) {
    let names = volumes(daemon);
    assert!(
        names == ["made", NEW] || (names == ["made"] && !told),
        "{names:?}"
    );
    if names == ["made"] {
        daemon.ok(&["volume", "clone", "made", NEW]);
    }
    for name in ["made", NEW] {
        assert_eq!(content(daemon, name), "kept\n");
    }
}

fn archived(daemon: &Daemon) -> String {
    filled_volume(daemon);
    let path = daemon.dir.path().join("volume.tar").display().to_string();
    daemon.ok(&["volume", "export", "-o", &path, "made"]);
    path
}

fn import_check(daemon: &Daemon, path: &str, told: bool) {
    let names = volumes(daemon);
    assert!(
        names == ["made", NEW] || (names == ["made"] && !told),
        "{names:?}"
    );
    if names == ["made"] {
        daemon.ok(&["volume", "import", NEW, path]);
    }
    assert_eq!(content(daemon, NEW), "kept\n");
}

fn clean(daemon: &Daemon, path: &str) {
    for name in volumes(daemon) {
        daemon.ok(&["volume", "rm", "--purge", &name]);
    }
    daemon.run(&["volume", "trash", "empty", "-f"]);
    let _ = std::fs::remove_file(path);
}

pub const VOLUME_RENAME: Scenario = Scenario::without_container(
    "volume rename",
    filled_volume,
    |_| words(&["volume", "rename", "made", NEW]),
    rename_check,
    clean,
);
pub const VOLUME_CLONE: Scenario = Scenario::without_container(
    "volume clone",
    filled_volume,
    |_| words(&["volume", "clone", "made", NEW]),
    clone_check,
    clean,
);
pub const VOLUME_IMPORT: Scenario = Scenario::without_container(
    "volume import",
    archived,
    |path| words(&["volume", "import", NEW, path]),
    import_check,
    clean,
);
