//! Removed volumes can be had back for a while, and no longer.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Daemon, retry};

fn write(daemon: &Daemon, volume: &str, what: &str) {
    let (mount, script) = (format!("{volume}:/d"), format!("echo {what} > /d/note"));
    daemon.ok(&["run", "--rm", "-v", &mount, "box:1", "sh", "-c", &script]);
}

fn read(daemon: &Daemon, volume: &str) -> String {
    let mount = format!("{volume}:/d");
    daemon.ok(&["run", "--rm", "-v", &mount, "box:1", "cat", "/d/note"])
}

fn events(daemon: &Daemon) -> String {
    let past = ["events", "--since", "1h", "--until", "0s"];
    daemon.ok(&[&past[..], &["--filter", "type=volume"]].concat())
}

fn trash(daemon: &Daemon, format: &str) -> String {
    daemon.ok(&["volume", "trash", "ls", "--format", format])
}

fn is_empty_soon(daemon: &Daemon) {
    let emptied = retry(|| trash(daemon, "{{.ID}}").is_empty().then_some(()));
    assert!(emptied.is_some(), "{}", trash(daemon, "json"));
}

#[test]
fn what_was_removed_comes_back_under_its_name_or_another() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["volume", "create", "--label", "tier=gold", "data"]);
    write(&daemon, "data", "first");
    assert_eq!(daemon.ok(&["volume", "rm", "data"]), "data\n");
    // The name is free at once, and what is made under it is another volume.
    write(&daemon, "data", "second");
    let refused = daemon.fails(&["volume", "trash", "restore", "data"]).1;
    assert!(refused.contains("volume name must be unique"), "{refused}");
    assert_eq!(daemon.ok(&["volume", "trash", "restore", "data", "old"]), "old\n");
    assert_eq!(
        (read(&daemon, "old"), read(&daemon, "data")),
        ("first\n".into(), "second\n".into())
    );
    let labels = ["volume", "inspect", "-f", "{{json .Labels}}", "old"];
    assert_eq!(daemon.ok(&labels), "{\"tier\":\"gold\"}\n");
    // Two of one name are told apart by their ids.
    daemon.ok(&["volume", "rm", "data"]);
    write(&daemon, "data", "third");
    daemon.ok(&["volume", "rm", "data"]);
    let listed = trash(&daemon, "{{.ID}} {{.Name}}");
    let ids: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_suffix(" data"))
        .collect();
    assert_eq!(ids.len(), 2, "{listed}");
    let (code, said) = daemon.fails(&["volume", "trash", "restore", "data"]);
    assert!(
        code == 1 && said.contains(ids[0]) && said.contains(ids[1]),
        "{said}"
    );
    daemon.ok(&["volume", "trash", "restore", ids[0]]);
    assert_eq!(read(&daemon, "data"), "second\n");
    for (words, complaint) in [
        (
            &["volume", "trash", "restore", "nosuch"][..],
            "nosuch: no such volume in the trash",
        ),
        (
            &["volume", "trash", "restore", ids[1], "../x"],
            "invalid characters",
        ),
        (
            &["volume", "trash", "empty", "-f", "nosuch"],
            "no such volume in the trash",
        ),
    ] {
        let (code, said) = daemon.fails(words);
        assert!(code == 1 && said.contains(complaint), "{words:?}: {said}");
    }
    // Ownership of the last word: emptied, it is gone, and the disk has its space.
    let rehearsed = daemon.ok(&["volume", "trash", "empty", "--dry-run"]);
    assert!(
        rehearsed.contains("Would delete") && rehearsed.contains(ids[1]),
        "{rehearsed}"
    );
    let place = daemon.dir.path().join("root/volumes/.trash");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
    // Named twice, it is one.
    let done = daemon.ok(&["volume", "trash", "empty", "-f", ids[1], "data"]);
    assert_eq!(
        done,
        rehearsed
            .replace("Would delete", "Deleted")
            .replace("reclaimable", "reclaimed")
    );
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

#[test]
fn what_nobody_can_miss_is_not_kept() {
    guard!();
    let daemon = Daemon::start();
    // Without content, with content elsewhere, of a container that takes its own along, and where it is asked for.
    daemon.ok(&["volume", "create", "empty"]);
    super::in_memory(&daemon, "memory");
    write(&daemon, "named", "text");
    daemon.ok(&["volume", "rm", "empty", "memory"]);
    daemon.ok(&["run", "--rm", "-v", "/d", "box:1", "touch", "/d/x"]);
    daemon.ok(&["volume", "rm", "--purge", "named"]);
    assert_eq!(trash(&daemon, "{{.Name}}"), "");
    // Volumes that are pruned are kept, and the space is not said to be free.
    daemon.ok(&["run", "--name", "one", "-v", "/d", "box:1", "touch", "/d/x"]);
    daemon.ok(&["rm", "one"]);
    write(&daemon, "named", "text");
    let pruned = daemon.ok(&["volume", "prune", "-a", "-f"]);
    assert!(
        pruned.contains("named") && pruned.ends_with("reclaimed space: 0B\n"),
        "{pruned}"
    );
    assert_eq!(trash(&daemon, "{{.Name}}").lines().count(), 2);
    write(&daemon, "named", "text");
    let pruned = daemon.ok(&["volume", "prune", "-a", "-f", "--purge"]);
    assert!(!pruned.ends_with("reclaimed space: 0B\n"), "{pruned}");
    assert_eq!(trash(&daemon, "{{.Name}}").lines().count(), 2);
}

#[test]
fn its_time_is_over_one_day() {
    guard!();
    let daemon = Daemon::start_with(&["--volume-trash-ttl", "1s"]);
    write(&daemon, "data", "text");
    daemon.ok(&["volume", "rm", "data"]);
    is_empty_soon(&daemon);
    let events = events(&daemon);
    assert!(
        events.contains("volume purge data") && events.contains("reason=age"),
        "{events}"
    );
    let off = Daemon::start_with(&["--volume-trash-ttl", "0"]);
    write(&off, "data", "text");
    off.ok(&["volume", "rm", "data"]);
    assert_eq!(trash(&off, "{{.Name}}"), "");
    assert!(!off.dir.path().join("root/volumes/data").exists());
}

#[test]
fn a_disk_without_room_is_given_it() {
    guard!();
    let mut daemon = Daemon::start();
    write(&daemon, "data", "text");
    daemon.ok(&["volume", "rm", "data"]);
    assert_eq!(trash(&daemon, "{{.Name}}"), "data\n");
    let file = daemon.dir.path().join("daemon.json");
    std::fs::write(&file, "{\"min-free\": \"99%\"}").unwrap();
    daemon
        .args
        .extend(["--config-file".into(), file.display().to_string()]);
    daemon.crash_and_restart();
    is_empty_soon(&daemon);
    // It is told after it has happened.
    let told = retry(|| events(&daemon).contains("reason=space").then_some(()));
    assert!(told.is_some(), "{}", events(&daemon));
}

#[test]
fn space_and_check_know_the_trash() {
    guard!();
    let daemon = Daemon::start();
    let bytes = || -> u64 {
        let answer = daemon.ok(&["volume", "trash", "ls", "--format", "{{.ID}}"]);
        let ids: Vec<PathBuf> = answer
            .lines()
            .map(|id| daemon.dir.path().join("root/volumes/.trash").join(id))
            .collect();
        ids.iter()
            .map(|path| std::fs::metadata(path.join("_data/big")).unwrap().len())
            .sum()
    };
    let fill = "head -c 3000000 /dev/zero > /d/big";
    daemon.ok(&["run", "--rm", "-v", "data:/d", "box:1", "sh", "-c", fill]);
    daemon.ok(&["volume", "rm", "data"]);
    assert_eq!(bytes(), 3_000_000);
    let space = daemon.ok(&["system", "df", "-v"]);
    let line = space.lines().find(|line| line.starts_with("Removed"));
    assert!(line.is_some_and(|line| line.contains("3.0")), "{space}");
    // A directory that the database does not know, and one that is gone.
    let id = trash(&daemon, "{{.ID}}").trim().to_owned();
    let place = daemon.dir.path().join("root/volumes/.trash");
    std::fs::create_dir_all(place.join("found/_data")).unwrap();
    std::fs::write(place.join("found/_data/note"), "kept\n").unwrap();
    std::fs::remove_dir_all(place.join(&id)).unwrap();
    let said = daemon.run(&["system", "check", "--repair"]);
    let said = crate::support::text(&said.stdout);
    assert!(said.contains("found") && said.contains(&id), "{said}");
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
    assert_eq!(trash(&daemon, "{{.Name}}"), "found\n");
    daemon.ok(&["volume", "trash", "restore", "found"]);
    assert_eq!(read(&daemon, "found"), "kept\n");
}

/// A directory that cannot be moved, since something is mounted on it.
struct Busy(PathBuf);

impl Busy {
    fn new(path: PathBuf) -> Busy {
        let mounted = Command::new("mount").arg("--bind").arg(&path).arg(&path).status();
        assert!(mounted.unwrap().success());
        Busy(path)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn what_cannot_be_deleted_holds_up_nothing_behind_it() {
    guard!();
    let mut daemon = Daemon::start();
    for name in ["stuck", "behind"] {
        write(&daemon, name, name);
        daemon.ok(&["volume", "rm", name]);
    }
    let listed = trash(&daemon, "{{.ID}} {{.Name}}");
    let id = listed.lines().find_map(|line| line.strip_suffix(" stuck"));
    let busy = Busy::new(daemon.dir.path().join("root/volumes/.trash").join(id.unwrap()));
    daemon.args.extend(["--volume-trash-ttl".into(), "1s".into()]);
    daemon.crash_and_restart();
    let left = retry(|| (trash(&daemon, "{{.Name}}") == "stuck\n").then_some(()));
    assert!(left.is_some(), "{}", daemon.log());
    drop(busy);
    is_empty_soon(&daemon);
}

#[test]
fn snapshots_are_part_of_the_size() {
    guard!();
    let daemon = Daemon::start();
    let fill = "head -c 3000000 /dev/zero > /d/big";
    daemon.ok(&["run", "--rm", "-v", "data:/d", "box:1", "sh", "-c", fill]);
    daemon.ok(&["volume", "snapshot", "create", "data"]);
    daemon.ok(&["volume", "rm", "data"]);
    let size = trash(&daemon, "{{.Size}}");
    assert!(size.starts_with('6'), "{size}");
}
