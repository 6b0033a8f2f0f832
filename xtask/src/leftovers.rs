//! What a run of the tests, or of the demonstration, leaves on the machine: links, tables of the packet filter, network
//! namespaces, control groups, mounts, files, processes. There must be nothing.
//!
//! Files and processes are known to be the tests' own by the directory for temporary files that they are given, which is
//! of this run alone. The kernel's objects have names without an owner, and others may be at work on this machine: what
//! was not there before and is there afterwards counts when it stays, unless it has the tag of a daemon that others run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use spec::Instance;

use crate::process::{capture, exists, is_root};

/// What is taken away in the background, by us or by the kernel, has this long; so have others for what they make and
/// take away again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How deep control groups of ours lie below a hierarchy.
const DEPTH: usize = 3;

/// A run, from before it to its end.
pub struct Run {
    directory: PathBuf,
    before: BTreeSet<String>,
}

impl Run {
    pub fn begin() -> Result<Run> {
        // Short, since paths of sockets are.
        let directory = std::env::temp_dir().join(format!("berth-t{}", std::process::id()));
        std::fs::create_dir(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Run {
            before: look(&directory)?,
            directory,
        })
    }

    /// What is of this run alone.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whoever is given this puts temporary files where they are looked for.
    pub fn environment(&self) -> (&'static str, &Path) {
        ("TMPDIR", &self.directory)
    }

    /// What is left, after it had its time to go. The run's directory is removed if nothing is in it.
    pub fn end(self) -> Result<Vec<String>> {
        let deadline = Instant::now() + PATIENCE;
        let mut stayed: Option<BTreeSet<String>> = None;
        loop {
            let now = look(&self.directory)?;
            let others = tags_of_others(&self.directory);
            let is_of_others = |name: &String| {
                is_foreign(name, &self.directory) || others.iter().any(|tag| carries(name, tag))
            };
            let new = now.difference(&self.before).filter(|name| !is_of_others(name));
            // What others make and take away again is another thing at each look.
            let left: BTreeSet<String> = match &stayed {
                None => new.cloned().collect(),
                Some(stayed) => new.filter(|name| stayed.contains(*name)).cloned().collect(),
            };
            if left.is_empty() {
                std::fs::remove_dir(&self.directory)?;
                return Ok(Vec::new());
            }
            if Instant::now() > deadline {
                return Ok(left.into_iter().collect());
            }
            stayed = Some(left);
            std::thread::sleep(Duration::from_millis(250));
        }
    }
}

/// What other engines, sessions of people, and other runs of these tests are known by.
fn is_foreign(name: &str, directory: &Path) -> bool {
    const WORDS: [&str; 6] = [
        "docker",
        "libpod",
        "crio",
        "user.slice/",
        "/run/user/",
        "file /tmp/berth-t",
    ];
    let ours = directory.display().to_string();
    // Links of ours have an alias, those that tests make a name.
    let is_link = name.starts_with("link ") && !name.contains(" of ") && !name.contains("berth");
    !name.contains(&ours) && (is_link || WORDS.iter().any(|word| name.contains(word)))
}

/// Whether a tag stands there by itself: `berth` is no part of `berth-012345`.
fn carries(name: &str, tag: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    name.match_indices(tag).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + tag.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn look(directory: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for line in capture(Command::new("ip").args(["-o", "-d", "link"]))?.lines() {
        found.extend(link(line).map(|link| format!("link {link}")));
    }
    if is_root() && exists("nft") {
        let tables = capture(Command::new("nft").args(["list", "tables"]))?;
        found.extend(tables.lines().map(str::to_owned));
    }
    found.extend(names(Path::new("/run/netns")).map(|name| format!("network namespace {name}")));
    groups(Path::new("/sys/fs/cgroup"), DEPTH, &mut found);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    // proc_pid_mountinfo(5): the fifth is the mount point.
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    found.extend(points.map(|point| format!("mount {point}")));
    for (parent, ours) in [("/tmp", "berth-"), ("/run", "berth"), ("/var/lib", "berth")] {
        let names = names(Path::new(parent)).filter(|name| name.starts_with(ours));
        found.extend(names.map(|name| format!("file {parent}/{name}")));
    }
    found.extend(names(directory).map(|name| format!("file {}/{name}", directory.display())));
    found.extend(processes(directory));
    Ok(found)
}

/// Name and alias of a link, from a line of `ip -o -d link`.
fn link(line: &str) -> Option<String> {
    let name = line.split(": ").nth(1)?;
    let name = name.split('@').next()?;
    Some(match line.split_once("alias ") {
        Some((_, alias)) => format!("{name} of {}", alias.split_whitespace().next()?),
        None => name.to_owned(),
    })
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

fn groups(directory: &Path, depth: usize, found: &mut BTreeSet<String>) {
    if depth == 0 {
        return;
    }
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.insert(format!("control group {}", entry.path().display()));
            groups(&entry.path(), depth - 1, found);
        }
    }
}

fn command_line(pid: &str) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ")
}

fn pids() -> impl Iterator<Item = String> {
    names(Path::new("/proc")).filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Those that have the directory in their environment or on their command line; without this one.
fn processes(directory: &Path) -> BTreeSet<String> {
    let directory = directory.display().to_string();
    let own = std::process::id().to_string();
    let mut found = BTreeSet::new();
    for pid in pids().filter(|pid| *pid != own) {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let line = command_line(&pid);
        if line.contains(&directory) || String::from_utf8_lossy(&environment).contains(&directory) {
            found.insert(format!("process {pid} {}", line.trim()));
        }
    }
    found
}

/// Tags of the daemons that run on roots outside the directory.
fn tags_of_others(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in pids().map(|pid| command_line(&pid)) {
        let mut words = line.split(' ');
        if words.nth(1) != Some("daemon") {
            continue;
        }
        let root = words.skip_while(|word| *word != "--data-root").nth(1);
        let root = root.map_or_else(Instance::default_root, PathBuf::from);
        if !root.starts_with(directory) {
            found.insert(Instance::of_root(&root).tag);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_is_found_and_what_goes_is_not() {
        let run = Run::begin().unwrap();
        let (_, directory) = run.environment();
        std::fs::write(directory.join("left"), "").unwrap();
        let look_again = look(directory).unwrap();
        let new: Vec<&String> = look_again.difference(&run.before).collect();
        let wanted = format!("file {}/left", directory.display());
        assert!(new.contains(&&wanted), "{new:?}");
        std::fs::remove_file(directory.join("left")).unwrap();
        let mut child = Command::new("sleep")
            .arg("1000")
            .env("TMPDIR", directory)
            .spawn()
            .unwrap();
        let wanted = format!("process {} sleep 1000", child.id());
        // Until it has become its program, it looks like this one.
        while !processes(directory).contains(&wanted) {
            assert_eq!(child.try_wait().unwrap(), None);
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(processes(directory).is_empty());
        std::fs::remove_dir(directory).unwrap();
    }

    #[test]
    fn what_others_make_is_told_apart() {
        let directory = Path::new("/tmp/berth-t12");
        for (name, foreign) in [
            ("file /tmp/berth-t12/docker", false),
            ("file /tmp/berth-t13", true),
            ("file /run/berth", false),
            ("link veth12ab", true),
            ("link berth-bare", false),
            ("link br-0 of berth-012345:network:x", false),
            ("control group /sys/fs/cgroup/system.slice/docker-1.scope", true),
            ("control group /sys/fs/cgroup/pids/berth-012345", false),
            ("mount /tmp/berth-t12/x", false),
        ] {
            assert_eq!(is_foreign(name, directory), foreign, "{name}");
        }
    }

    #[test]
    fn tags_stand_by_themselves() {
        for (name, tag, is_there) in [
            ("table inet berth", "berth", true),
            ("table inet berth-012345", "berth", false),
            ("link veth0 of berth-012345:prepared", "berth-012345", true),
            (
                "control group /sys/fs/cgroup/berth-012345/x",
                "berth-012345",
                true,
            ),
            ("link berth-0123456", "berth-012345", false),
        ] {
            assert_eq!(carries(name, tag), is_there, "{name} {tag}");
        }
    }

    #[test]
    fn links_are_read() {
        let line = "12: veth0@if2: <UP> mtu 1500 \\    link/ether 4a:e7 brd ff:ff \\    alias berth:prepared";
        assert_eq!(link(line).unwrap(), "veth0 of berth:prepared");
        assert_eq!(link("1: lo: <UP> mtu 65536").unwrap(), "lo");
        assert_eq!(link(""), None);
    }
}
