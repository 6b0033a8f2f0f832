//! What the daemon is doing when it, or a monitor, is killed, and what must be true afterwards.
//!
//! A check knows whether the client was told that the command had succeeded: then it must have. If not, either is
//! right, but nothing half: the same thing can be done again.

use crate::support::{Daemon, retry, text};
use crate::tarball::{Image, Tar};
use crate::web::Web;

pub const NAME: &str = "victim";
/// A port of the host for each scenario that has one: they run beside each other.
const ADDED: &str = "28017:81";
const TAKEN: &str = "28018:81";
const RELOADED: &str = "28019:81";

pub struct Scenario {
    pub name: &'static str,
    /// Makes what the command needs; gives a word that the others get.
    pub prepare: fn(&Daemon) -> String,
    pub command: fn(&str) -> Vec<String>,
    /// After the kill, with the next daemon: the word, and whether the client was told of success.
    pub check: fn(&Daemon, &str, bool),
    /// The same after the kill of a monitor, under which the daemon has gone on.
    pub orphaned: fn(&Daemon, &str, bool),
    /// Takes away everything.
    pub clean: fn(&Daemon, &str),
}

impl Scenario {
    /// Something that is done with the container, which is there before and after.
    pub const fn with_container(
        name: &'static str,
        prepare: fn(&Daemon) -> String,
        command: fn(&str) -> Vec<String>,
        check: fn(&Daemon, &str, bool),
    ) -> Scenario {
        Scenario {
            name,
            prepare,
            command,
            check,
            orphaned: can_be_used,
            clean: remove,
        }
    }

    /// Something else, of which a monitor's end is a failure like any other.
    pub const fn without_container(
        name: &'static str,
        prepare: fn(&Daemon) -> String,
        command: fn(&str) -> Vec<String>,
        check: fn(&Daemon, &str, bool),
        clean: fn(&Daemon, &str),
    ) -> Scenario {
        Scenario {
            name,
            prepare,
            command,
            check,
            orphaned: check,
            clean,
        }
    }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub fn nothing(_: &Daemon) -> String {
    String::new()
}

/// A container's state, if there is one.
fn state_of(daemon: &Daemon, name: &str) -> Option<String> {
    let output = daemon.run(&["inspect", "--type", "container", "-f", "{{.State.Status}}", name]);
    output
        .status
        .success()
        .then(|| text(&output.stdout).trim().to_owned())
}

pub fn state(daemon: &Daemon) -> Option<String> {
    state_of(daemon, NAME)
}

pub fn inspect(daemon: &Daemon, format: &str) -> String {
    daemon
        .ok(&["inspect", "--type", "container", "-f", format, NAME])
        .trim()
        .to_owned()
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    assert!(
        retry(|| holds().then_some(())).is_some(),
        "{what} does not come true"
    );
}

/// The container is what it is said to be, and can be used.
pub fn is_whole(daemon: &Daemon) {
    let state = state(daemon).expect("the container is gone");
    if state != "running" {
        assert!(state == "created" || state == "exited", "{state}");
        daemon.ok(&["start", NAME]);
    }
    daemon.ok(&["exec", NAME, "true"]);
    let links = daemon.ok(&["exec", NAME, "ls", "/sys/class/net"]);
    assert!(links.contains("eth0"), "{links}");
    assert!(daemon.ok(&["port", NAME]).contains("80/tcp"));
}

fn created(daemon: &Daemon) -> String {
    daemon.ok(&[&["create"], CONTAINER].concat())
}

pub fn running(daemon: &Daemon) -> String {
    daemon.ok(&[&["run", "-d"], CONTAINER].concat());
    inspect(daemon, "{{(index .Mounts 0).Name}}")
}

const CONTAINER: &[&str] = &[
    "--name",
    NAME,
    "-p",
    "127.0.0.1:0:80",
    "-v",
    "/data",
    "box:1",
    "sleep",
    "1000",
];

pub fn remove(daemon: &Daemon, _: &str) {
    // Where the check has not removed it.
    daemon.run(&["rm", "-f", "-v", NAME]);
}

fn create_command(_: &str) -> Vec<String> {
    words(&[&["create"], CONTAINER].concat())
}

fn create_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || state(daemon).as_deref() == Some("created"));
    if state(daemon).is_none() {
        created(daemon);
    }
    is_whole(daemon);
}

fn start_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || state(daemon).as_deref() == Some("running"));
    is_whole(daemon);
}

fn stop_check(daemon: &Daemon, _: &str, told: bool) {
    let now = state(daemon);
    assert!(!told || now.as_deref() == Some("exited"), "{now:?}");
    daemon.ok(&["stop", "-t", "0", NAME]);
    assert_eq!(
        inspect(daemon, "{{.State.Status}} {{.State.ExitCode}}"),
        "exited 137"
    );
    is_whole(daemon);
}

fn remove_check(daemon: &Daemon, volume: &str, told: bool) {
    let left = state(daemon);
    assert!(!told || left.is_none(), "{left:?}");
    if left.is_some() {
        daemon.ok(&["rm", "-f", "-v", NAME]);
    }
    let volumes = daemon.ok(&["volume", "ls", "-q"]);
    assert!(!volumes.contains(volume), "the anonymous volume is still there");
}

fn remove_keeping_check(daemon: &Daemon, volume: &str, told: bool) {
    let left = state(daemon);
    assert!(!told || left.is_none(), "{left:?}");
    if left.is_some() {
        daemon.ok(&["rm", "-f", NAME]);
    }
    let mount = format!("{volume}:/data");
    daemon.ok(&["run", "--rm", "-v", &mount, "box:1", "cat", "/data/kept"]);
}

fn with_data(daemon: &Daemon) -> String {
    let volume = running(daemon);
    daemon.ok(&["exec", NAME, "touch", "/data/kept"]);
    volume
}

fn exec_check(daemon: &Daemon, _: &str, told: bool) {
    if told {
        daemon.ok(&["exec", NAME, "ls", "/made"]);
    }
    eventually("only the first process lives", || {
        daemon.ok(&["top", NAME]).lines().count() == 2
    });
    is_whole(daemon);
}

fn short_check(daemon: &Daemon, _: &str, _: bool) {
    eventually("the container removes itself", || {
        // One that was never started waits for its client, which is gone.
        matches!(state(daemon).as_deref(), None | Some("created"))
    });
}

fn connect_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || is_connected(daemon));
    change_network(daemon, "connect");
    change_network(daemon, "disconnect");
    is_whole(daemon);
}

fn is_connected(daemon: &Daemon) -> bool {
    inspect(daemon, "{{json .NetworkSettings.Networks}}").contains("\"own\"")
}

/// Where it is not done already; the container's links say that it is.
fn change_network(daemon: &Daemon, change: &str) {
    let wanted = change == "connect";
    if is_connected(daemon) != wanted {
        daemon.ok(&["network", change, "own", NAME]);
    }
    let links = daemon.ok(&["exec", NAME, "ls", "/sys/class/net"]);
    assert_eq!(links.contains("eth1"), wanted, "{links}");
}

fn on_two_networks(daemon: &Daemon) -> String {
    let volume = running(daemon);
    daemon.ok(&["network", "connect", "own", NAME]);
    volume
}

fn disconnect_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || !is_connected(daemon));
    change_network(daemon, "disconnect");
    change_network(daemon, "connect");
    is_whole(daemon);
}

fn is_published(daemon: &Daemon) -> bool {
    daemon.ok(&["port", NAME]).contains("81/tcp")
}

fn publish(daemon: &Daemon, port: &str) {
    daemon.ok(&["update", "--publish-add", port, NAME]);
}

fn running_published(daemon: &Daemon, port: &str) -> String {
    let volume = running(daemon);
    publish(daemon, port);
    volume
}

fn publish_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || is_published(daemon));
    if !is_published(daemon) {
        publish(daemon, ADDED);
    }
    daemon.ok(&["update", "--publish-rm", ADDED, NAME]);
    assert!(!is_published(daemon));
    is_whole(daemon);
}

fn unpublish_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || !is_published(daemon));
    if is_published(daemon) {
        daemon.ok(&["update", "--publish-rm", TAKEN, NAME]);
    }
    publish(daemon, TAKEN);
    assert!(is_published(daemon));
    is_whole(daemon);
}

/// What is shown is what the kernel holds the container to.
fn update_check(daemon: &Daemon, _: &str, told: bool) {
    let pid = inspect(daemon, "{{.State.Pid}}");
    let limit = crate::usage::group(&pid, "pids").join("pids.max");
    let held = || std::fs::read_to_string(&limit).unwrap().trim().to_owned();
    let is_new = inspect(daemon, "{{json .HostConfig.PidsLimit}}") == "30";
    assert!(!told || is_new);
    assert_eq!(held(), if is_new { "30" } else { "max" });
    daemon.ok(&["update", "--pids-limit", "30", "--cpu-shares", "512", NAME]);
    assert_eq!(held(), "30");
    is_whole(daemon);
}

fn reload_check(daemon: &Daemon, _: &str, _: bool) {
    assert!(is_published(daemon));
    daemon.ok(&["network", "reload"]);
    is_whole(daemon);
}

fn pause_check(daemon: &Daemon, _: &str, told: bool) {
    goes_on(daemon, told, "paused");
}

/// It is in this state where the client was told so, and goes on from whichever it is in.
fn goes_on(daemon: &Daemon, told: bool, wanted: &str) {
    let now = state(daemon);
    assert!(!told || now.as_deref() == Some(wanted), "{now:?}");
    if now.as_deref() == Some("paused") {
        daemon.ok(&["unpause", NAME]);
    }
    is_whole(daemon);
}

fn paused(daemon: &Daemon) -> String {
    let volume = running(daemon);
    daemon.ok(&["pause", NAME]);
    volume
}

fn unpause_check(daemon: &Daemon, _: &str, told: bool) {
    goes_on(daemon, told, "running");
}

fn rename_check(daemon: &Daemon, _: &str, told: bool) {
    let (old, new) = (state(daemon), state_of(daemon, "renamed"));
    assert!(old.is_some() != new.is_some(), "{old:?} {new:?}");
    assert!(!told || new.is_some());
    if new.is_some() {
        daemon.ok(&["rename", "renamed", NAME]);
    }
    is_whole(daemon);
}

/// Serves an image until the process ends; gives its name.
fn served(_: &Daemon) -> String {
    let layers: Vec<Vec<u8>> = ["lower", "upper"]
        .iter()
        .map(|name| Tar::default().file(name, &[b'x'; 100_000]).finish())
        .collect();
    Web::start().serve_image("pulled", &Image::of(&layers)).name
}

fn pull_check(daemon: &Daemon, image: &str, told: bool) {
    if told {
        daemon.ok(&["image", "inspect", image]);
    } else {
        daemon.ok(&["pull", image]);
    }
    daemon.ok(&["create", "--name", NAME, image, "/none"]);
    for file in ["lower", "upper"] {
        daemon.ok(&["cp", &format!("{NAME}:/{file}"), "-"]);
    }
}

fn pull_clean(daemon: &Daemon, image: &str) {
    remove(daemon, image);
    daemon.run(&["rmi", image]);
}

/// An archive of an image of two layers; gives its path.
fn archived(daemon: &Daemon) -> String {
    let layers = ["lower", "upper"].map(|name| Tar::default().file(name, &[b'x'; 100_000]).finish());
    let path = daemon.dir.path().join("loaded.tar");
    std::fs::write(&path, Image::of(&layers).archive("loaded:1")).unwrap();
    path.display().to_string()
}

pub fn loaded(daemon: &Daemon) -> String {
    let path = archived(daemon);
    daemon.ok(&["load", "-q", "-i", &path]);
    path
}

pub fn has_image(daemon: &Daemon, name: &str) -> bool {
    daemon.run(&["image", "inspect", name]).status.success()
}

pub fn load_check(daemon: &Daemon, path: &str, told: bool) {
    assert!(!told || has_image(daemon, "loaded:1"));
    if !told {
        daemon.ok(&["load", "-q", "-i", path]);
    }
    daemon.ok(&["create", "--name", NAME, "loaded:1", "/none"]);
    for file in ["lower", "upper"] {
        daemon.ok(&["cp", &format!("{NAME}:/{file}"), "-"]);
    }
}

pub fn load_clean(daemon: &Daemon, _: &str) {
    remove(daemon, "");
    daemon.run(&["rmi", "loaded:1"]);
}

/// What is saved is whole, or not there.
fn save_check(daemon: &Daemon, path: &str, told: bool) {
    let saved = format!("{path}.saved");
    assert_eq!(std::path::Path::new(&saved).exists(), told, "half an archive");
    if !told {
        daemon.ok(&["save", "-o", &saved, "loaded:1"]);
    }
    daemon.ok(&["rmi", "loaded:1"]);
    daemon.ok(&["load", "-q", "-i", &saved]);
    std::fs::remove_file(&saved).unwrap();
    load_check(daemon, path, true);
}

fn changed(daemon: &Daemon) -> String {
    daemon.ok(&["run", "--name", NAME, "box:1", "sh", "-c", "echo made > /made"])
}

fn commit_check(daemon: &Daemon, _: &str, told: bool) {
    if !told {
        daemon.ok(&["commit", NAME, "committed:1"]);
    }
    assert_eq!(
        daemon.ok(&["run", "--rm", "committed:1", "cat", "/made"]),
        "made\n"
    );
}

fn commit_clean(daemon: &Daemon, _: &str) {
    remove(daemon, "");
    daemon.run(&["rmi", "committed:1"]);
    // One that lost its name to the second attempt.
    daemon.ok(&["image", "prune", "-f"]);
}

/// The image of the container that every row starts with stays.
fn image_prune_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || !has_image(daemon, "loaded:1"));
    daemon.ok(&["image", "prune", "-a", "-f"]);
    assert!(!has_image(daemon, "loaded:1"));
    daemon.ok(&["run", "--rm", "box:1", "true"]);
}

/// The context of a build; gives its directory.
pub fn context(daemon: &Daemon) -> String {
    let dir = daemon.dir.path().join("context");
    std::fs::create_dir_all(&dir).unwrap();
    let steps = "FROM box:1\nRUN echo made > /made\nCOPY file /file\n";
    std::fs::write(dir.join("Dockerfile"), steps).unwrap();
    std::fs::write(dir.join("file"), "copied\n").unwrap();
    dir.display().to_string()
}

pub fn build_check(daemon: &Daemon, context: &str, told: bool) {
    if !told {
        daemon.ok(&["build", "-q", "-t", "built:1", context]);
    }
    assert_eq!(
        daemon.ok(&["run", "--rm", "built:1", "cat", "/made", "/file"]),
        "made\ncopied\n"
    );
}

pub fn build_clean(daemon: &Daemon, _: &str) {
    daemon.ok(&["rmi", "-f", "built:1"]);
    daemon.ok(&["builder", "prune", "-a", "-f"]);
}

fn has_network(daemon: &Daemon) -> bool {
    let names = daemon.ok(&["network", "ls", "--format", "{{.Name}}"]);
    names.lines().any(|name| name == "made")
}

fn network_create_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || has_network(daemon));
    if !has_network(daemon) {
        daemon.ok(&["network", "create", "made"]);
    }
    daemon.ok(&["run", "--rm", "--network", "made", "box:1", "true"]);
}

fn network_remove_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || !has_network(daemon));
    if has_network(daemon) {
        daemon.ok(&["run", "--rm", "--network", "made", "box:1", "true"]);
    }
}

fn remove_network(daemon: &Daemon, _: &str) {
    daemon.run(&["network", "rm", "made"]);
}

fn has_volume(daemon: &Daemon) -> bool {
    daemon
        .ok(&["volume", "ls", "-q"])
        .lines()
        .any(|name| name == "made")
}

fn volume_remove_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || !has_volume(daemon));
}

fn remove_volume(daemon: &Daemon, _: &str) {
    daemon.run(&["volume", "rm", "--purge", "made"]);
    daemon.run(&["volume", "trash", "empty", "-f"]);
}

/// A volume with something in it.
pub fn filled_volume(daemon: &Daemon) -> String {
    let fill = ["run", "--rm", "-v", "made:/data", "box:1", "touch", "/data/kept"];
    daemon.ok(&fill)
}

fn trashed_volume(daemon: &Daemon) -> String {
    filled_volume(daemon);
    daemon.ok(&["volume", "rm", "made"])
}

fn has_trash(daemon: &Daemon) -> bool {
    !daemon.ok(&["volume", "trash", "ls", "-q"]).is_empty()
}

/// It is in one of the two places, whole, and comes back.
fn is_not_lost(daemon: &Daemon) {
    let (there, trashed) = (has_volume(daemon), has_trash(daemon));
    assert!(there != trashed, "volume: {there}, trash: {trashed}");
    if trashed {
        daemon.ok(&["volume", "trash", "restore", "made"]);
    }
    daemon.ok(&["run", "--rm", "-v", "made:/data", "box:1", "cat", "/data/kept"]);
}

/// With a snapshot of the time before something was added.
fn snapshotted_volume(daemon: &Daemon) -> String {
    filled_volume(daemon);
    daemon.ok(&["volume", "snapshot", "create", "made", "before"]);
    daemon.ok(&["run", "--rm", "-v", "made:/data", "box:1", "touch", "/data/more"])
}

pub fn content(daemon: &Daemon, volume: &str) -> String {
    daemon.ok(&[
        "run",
        "--rm",
        "-v",
        &format!("{volume}:/data"),
        "box:1",
        "ls",
        "/data",
    ])
}

fn volume_snapshot_check(daemon: &Daemon, _: &str, told: bool) {
    let names = daemon.ok(&["volume", "snapshot", "ls", "-q", "made"]);
    assert!(names == "now\n" || (names.is_empty() && !told), "{names:?}");
    if !names.is_empty() {
        daemon.ok(&["volume", "snapshot", "restore", "made", "now"]);
    }
    assert_eq!(content(daemon, "made"), "kept\n");
}

fn volume_snapshot_restore_check(daemon: &Daemon, _: &str, told: bool) {
    let now = content(daemon, "made");
    assert!(now == "kept\n" || (now == "kept\nmore\n" && !told), "{now:?}");
    daemon.ok(&["volume", "snapshot", "restore", "made", "before"]);
    assert_eq!(content(daemon, "made"), "kept\n");
}

fn volume_trash_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || has_trash(daemon));
    is_not_lost(daemon);
}

fn volume_restore_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!told || has_volume(daemon));
    is_not_lost(daemon);
}

fn volume_trash_empty_check(daemon: &Daemon, _: &str, told: bool) {
    assert!(!has_volume(daemon));
    assert!(!told || !has_trash(daemon));
    if has_trash(daemon) {
        is_not_lost(daemon);
    }
}

pub const CREATE: Scenario = Scenario::with_container("create", nothing, create_command, create_check);
pub const START: Scenario =
    Scenario::with_container("start", created, |_| words(&["start", NAME]), start_check);
pub const STOP: Scenario =
    Scenario::with_container("stop", running, |_| words(&["stop", "-t", "0", NAME]), stop_check);
pub const EXEC: Scenario = Scenario::with_container(
    "exec",
    running,
    |_| words(&["exec", NAME, "touch", "/made"]),
    exec_check,
);
pub const CONNECT: Scenario = Scenario::with_container(
    "network connect",
    running,
    |_| words(&["network", "connect", "own", NAME]),
    connect_check,
);
pub const DISCONNECT: Scenario = Scenario::with_container(
    "network disconnect",
    on_two_networks,
    |_| words(&["network", "disconnect", "own", NAME]),
    disconnect_check,
);
pub const UPDATE: Scenario = Scenario::with_container(
    "update",
    running,
    |_| words(&["update", "--pids-limit", "30", "--cpu-shares", "512", NAME]),
    update_check,
);
pub const PUBLISH: Scenario = Scenario::with_container(
    "update --publish-add",
    running,
    |_| words(&["update", "--publish-add", ADDED, NAME]),
    publish_check,
);
pub const UNPUBLISH: Scenario = Scenario::with_container(
    "update --publish-rm",
    |daemon| running_published(daemon, TAKEN),
    |_| words(&["update", "--publish-rm", TAKEN, NAME]),
    unpublish_check,
);
pub const RELOAD: Scenario = Scenario::with_container(
    "network reload",
    |daemon| running_published(daemon, RELOADED),
    |_| words(&["network", "reload"]),
    reload_check,
);
pub const PAUSE: Scenario =
    Scenario::with_container("pause", running, |_| words(&["pause", NAME]), pause_check);
pub const UNPAUSE: Scenario =
    Scenario::with_container("unpause", paused, |_| words(&["unpause", NAME]), unpause_check);
pub const RENAME: Scenario = Scenario::with_container(
    "rename",
    running,
    |_| words(&["rename", NAME, "renamed"]),
    rename_check,
);

pub const REMOVE: Scenario = Scenario::without_container(
    "remove with volumes",
    running,
    |_| words(&["rm", "-f", "-v", NAME]),
    remove_check,
    remove,
);
pub const REMOVE_KEEPING: Scenario = Scenario::without_container(
    "remove without volumes",
    with_data,
    |_| words(&["rm", "-f", NAME]),
    remove_keeping_check,
    |daemon, volume| {
        remove(daemon, volume);
        daemon.ok(&["volume", "rm", "--purge", volume]);
    },
);
pub const SHORT: Scenario = Scenario::without_container(
    "run to its end and removal",
    nothing,
    |_| {
        words(&[
            "run", "--rm", "--name", NAME, "-v", "/data", "box:1", "echo", "out",
        ])
    },
    short_check,
    remove,
);
pub const PULL: Scenario = Scenario::without_container(
    "pull",
    served,
    |image| words(&["pull", image]),
    pull_check,
    pull_clean,
);
pub const LOAD: Scenario = Scenario::without_container(
    "load",
    archived,
    |path| words(&["load", "-q", "-i", path]),
    load_check,
    load_clean,
);
pub const SAVE: Scenario = Scenario::without_container(
    "save",
    loaded,
    |path| words(&["save", "-o", &format!("{path}.saved"), "loaded:1"]),
    save_check,
    load_clean,
);
pub const COMMIT: Scenario = Scenario::without_container(
    "commit",
    changed,
    |_| words(&["commit", NAME, "committed:1"]),
    commit_check,
    commit_clean,
);
pub const IMAGE_PRUNE: Scenario = Scenario::without_container(
    "image prune",
    loaded,
    |_| words(&["image", "prune", "-a", "-f"]),
    image_prune_check,
    load_clean,
);
pub const BUILD: Scenario = Scenario::without_container(
    "build",
    context,
    |context| words(&["build", "-q", "-t", "built:1", context]),
    build_check,
    build_clean,
);
pub const NETWORK_CREATE: Scenario = Scenario::without_container(
    "network create",
    nothing,
    |_| words(&["network", "create", "made"]),
    network_create_check,
    remove_network,
);
pub const NETWORK_REMOVE: Scenario = Scenario::without_container(
    "network remove",
    |daemon| daemon.ok(&["network", "create", "made"]),
    |_| words(&["network", "rm", "made"]),
    network_remove_check,
    remove_network,
);
pub const VOLUME_REMOVE: Scenario = Scenario::without_container(
    "volume remove",
    |daemon| daemon.ok(&["volume", "create", "made"]),
    |_| words(&["volume", "rm", "made"]),
    volume_remove_check,
    remove_volume,
);
pub const VOLUME_TRASH: Scenario = Scenario::without_container(
    "volume remove to the trash",
    filled_volume,
    |_| words(&["volume", "rm", "made"]),
    volume_trash_check,
    remove_volume,
);
pub const VOLUME_SNAPSHOT: Scenario = Scenario::without_container(
    "volume snapshot create",
    filled_volume,
    |_| words(&["volume", "snapshot", "create", "made", "now"]),
    volume_snapshot_check,
    remove_volume,
);
pub const VOLUME_SNAPSHOT_RESTORE: Scenario = Scenario::without_container(
    "volume snapshot restore",
    snapshotted_volume,
    |_| words(&["volume", "snapshot", "restore", "made", "before"]),
    volume_snapshot_restore_check,
    remove_volume,
);
pub const VOLUME_RESTORE: Scenario = Scenario::without_container(
    "volume trash restore",
    trashed_volume,
    |_| words(&["volume", "trash", "restore", "made"]),
    volume_restore_check,
    remove_volume,
);
pub const VOLUME_TRASH_EMPTY: Scenario = Scenario::without_container(
    "volume trash empty",
    trashed_volume,
    |_| words(&["volume", "trash", "empty", "-f"]),
    volume_trash_empty_check,
    remove_volume,
);

/// Whatever the client was told, the container has ended with its monitor, or lives under another.
fn can_be_used(daemon: &Daemon, _: &str, _: bool) {
    eventually(
        "the container is in a state of which something can be done",
        || {
            match state(daemon).as_deref() {
                // It is, or is about to be seen to have ended.
                Some("running") => daemon.run(&["exec", NAME, "true"]).status.success(),
                Some("created" | "exited") => true,
                _ => false,
            }
        },
    );
    is_whole(daemon);
}
