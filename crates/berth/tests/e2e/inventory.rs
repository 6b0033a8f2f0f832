//! What a daemon has on the host: everything that an operation which failed must not leave behind.
//!
//! Two inventories are compared as sets of names, so that a failure says what was left and where. What the daemon
//! clears away in the background gets a moment to go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Daemon, OF_DAEMON, control_group_roots, tag_of, text};

/// How long the background may take, on a machine whose disk others keep busy. Only what never goes waits so long.
const SETTLE: Duration = Duration::from_secs(30);
/// So many looks in a row have to show the same, since a look may fall into a pause of the background.
const LOOKS: usize = 5;

/// Names by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory(BTreeMap<&'static str, BTreeSet<String>>);

impl Inventory {
    /// Once it has stopped changing: a start fills pools in the background.
    pub fn of(daemon: &Daemon) -> Inventory {
        let deadline = Instant::now() + SETTLE;
        let (mut last, mut same) = (look(daemon), 1);
        while same < LOOKS && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
            let now = look(daemon);
            same = if now == last { same + 1 } else { 1 };
            last = now;
        }
        last
    }

    /// Fails unless everything is as it was.
    pub fn assert_unchanged(&self, daemon: &Daemon, after: &str) {
        let deadline = Instant::now() + SETTLE;
        loop {
            let now = look(daemon);
            if now == *self {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{after} left something:\n{}\n{}",
                self.differences(&now),
                daemon.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn differences(&self, now: &Inventory) -> String {
        let mut lines = Vec::new();
        for (place, names) in &now.0 {
            let before = &self.0[place];
            lines.extend(names.difference(before).map(|name| format!("+ {place}: {name}")));
            lines.extend(before.difference(names).map(|name| format!("- {place}: {name}")));
        }
        lines.join("\n")
    }
}

fn look(daemon: &Daemon) -> Inventory {
    let tag = format!("berth-{}", tag_of(&daemon.dir.path().join("root")));
    let (root, run) = (seen_by(daemon, "root"), seen_by(daemon, "run"));
    let mut found = BTreeMap::new();
    for (place, path) in [
        ("root", ""),
        ("containers", "containers"),
        ("snapshots", "snapshots"),
        ("downloads", "content/ingest"),
        ("blobs", "content/blobs/sha256"),
        ("volumes", "volumes"),
        ("removed volumes", "volumes/.trash"),
        ("trash", "trash"),
        ("temporary files", "tmp"),
    ] {
        let mut names = names(&root.join(path));
        // The database's own files come and go with its readers, the reserve with the free space; `tmp` is made by the
        // first who needs it.
        names.retain(|name| !name.starts_with("meta.db") && name != "tmp" && name != "reserve");
        found.insert(place, names);
    }
    let mut files = BTreeSet::new();
    tree(&run, "", &mut files);
    // Compiled filters are kept on purpose: one for each profile.
    files.retain(|name| !name.starts_with("seccomp"));
    found.insert("run directory", files);
    let mut groups = BTreeSet::new();
    for root in control_group_roots() {
        directories(&root.join(&tag), "", &mut groups);
    }
    found.insert("cgroups", groups);
    found.insert("mounts", mounts(daemon));
    found.insert("links", links(&tag));
    found.insert("packet filter", rules(&tag));
    found.insert("processes", processes(daemon.dir.path()));
    for (place, args) in [
        ("known containers", &["ps", "-aq", "--no-trunc"][..]),
        (
            "known images",
            &[
                "images",
                "-a",
                "--no-trunc",
                "--format",
                "{{.ID}} {{.Repository}}:{{.Tag}}",
            ],
        ),
        ("known volumes", &["volume", "ls", "-q"]),
        ("known networks", &["network", "ls", "-q"]),
    ] {
        found.insert(place, daemon.ok(args).lines().map(str::to_owned).collect());
    }
    Inventory(found)
}

/// One of a daemon's directories, as the daemon sees it: its root may be mounted for itself alone.
fn seen_by(daemon: &Daemon, name: &str) -> PathBuf {
    let seen = Path::new("/proc")
        .join(daemon.child.id().to_string())
        .join("root");
    seen.join(daemon.dir.path().strip_prefix("/").unwrap()).join(name)
}

/// Mount points below the daemon's directory, as the daemon sees them.
fn mounts(daemon: &Daemon) -> BTreeSet<String> {
    let table = std::fs::read_to_string(format!("/proc/{}/mounts", daemon.child.id())).unwrap();
    let below = daemon.dir.path().display().to_string();
    let points = table.lines().filter_map(|line| line.split(' ').nth(1));
    points
        .filter(|point| point.starts_with(&below))
        .map(str::to_owned)
        .collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

fn tree(dir: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for name in names(dir) {
        let path = dir.join(&name);
        let shown = format!("{prefix}{name}");
        if path.is_dir() && !path.is_symlink() {
            tree(&path, &format!("{shown}/"), found);
        }
        found.insert(shown);
    }
}

fn directories(dir: &Path, prefix: &str, found: &mut BTreeSet<String>) {
    for name in names(dir).iter().filter(|name| dir.join(name).is_dir()) {
        directories(&dir.join(name), &format!("{prefix}{name}/"), found);
        found.insert(format!("{prefix}{name}"));
    }
}

/// Links that carry the daemon's tag, without those it keeps ready for the next container.
fn links(tag: &str) -> BTreeSet<String> {
    let output = Command::new("ip").args(["-o", "-d", "link"]).output().unwrap();
    let all = text(&output.stdout);
    let ours = all
        .lines()
        .filter(|line| line.contains(tag) && !line.contains(":prepared"));
    ours.filter_map(|line| Some(line.split(": ").nth(1)?.split('@').next()?.to_owned()))
        .collect()
}

/// Every line of the daemon's table but counters.
fn rules(tag: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for family in ["inet", "ip", "ip6", "bridge"] {
        let output = Command::new("nft")
            .args(["-s", "list", "table", family, tag])
            .output()
            .unwrap();
        let all = text(&output.stdout);
        found.extend(all.lines().map(|line| format!("{family} {}", line.trim())));
    }
    found
}

/// Every file and directory below the root, by its path, but those of the database and of the history of events.
pub fn files(daemon: &Daemon) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    tree(&seen_by(daemon, "root"), "", &mut found);
    found.retain(|path| {
        !["meta.db", "reserve", "tmp", "events."]
            .iter()
            .any(|own| path.starts_with(own))
    });
    found
}

/// Fails unless the same files are there as before.
pub fn assert_same_files(daemon: &Daemon, before: &BTreeSet<String>) {
    let deadline = Instant::now() + SETTLE;
    loop {
        let now = files(daemon);
        if now == *before {
            return;
        }
        let (more, fewer): (Vec<_>, Vec<_>) = (
            now.difference(before).collect(),
            before.difference(&now).collect(),
        );
        assert!(Instant::now() < deadline, "left: {more:?}, gone: {fewer:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What a daemon holds open, by what it is; without what it keeps to be faster, of which there is a bounded number: readers
/// of the database, and namespaces made for the next containers.
pub fn descriptors(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let directory = format!("/proc/{}/fd", daemon.child.id());
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        // One that is closed meanwhile is not held.
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        let kind = match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => target,
        };
        if kind != "net" && !kind.contains("/meta.db") {
            *found.entry(kind).or_default() += 1;
        }
    }
    found
}

/// Waits until a daemon holds no more open than it did.
pub fn assert_let_go(daemon: &Daemon, before: &BTreeMap<String, usize>) {
    let deadline = Instant::now() + SETTLE;
    loop {
        let now = descriptors(daemon);
        let more: Vec<_> = now
            .iter()
            .filter(|(kind, count)| before.get(*kind).unwrap_or(&0) < *count)
            .collect();
        if more.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{more:?} and before {before:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Monitors, containers and whatever else was started by a daemon on this directory, but not the daemon.
pub fn processes(dir: &Path) -> BTreeSet<String> {
    let mark = format!("{OF_DAEMON}={}", dir.display());
    let path = dir.display().to_string();
    let mut found = BTreeSet::new();
    for pid in names(Path::new("/proc"))
        .iter()
        .filter(|name| name.parse::<u32>().is_ok())
    {
        let read = |file: &str| text(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default());
        let line = read("cmdline").replace('\0', " ");
        let ours = line.contains(&path) || read("environ").split('\0').any(|entry| entry == mark);
        if ours && !line.contains("--data-root") {
            found.insert(format!("{pid} {line}"));
        }
    }
    found
}
