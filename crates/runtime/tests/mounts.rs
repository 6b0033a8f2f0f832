//! Each word of a mount's options by what it does, for binds with something mounted below them and for filesystems.
//!
//! What is looked at is the container's own table: place, options of the mount, propagation, options of the filesystem.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use spec::runtime::{IdMapping, Mount};
use support::cli::prepared;
use support::{Bundle, possible};

/// A directory of the host on which `below` is a mount as well, with these options.
struct Source {
    directory: tempfile::TempDir,
}

impl Source {
    fn new(options: &str) -> Source {
        let source = Source {
            directory: tempfile::tempdir().unwrap(),
        };
        let (top, below) = (source.path(), source.path().join("below"));
        // A bind, whose filesystem is one that can be translated by the kernel.
        mount(&["--bind", top.to_str().unwrap(), top.to_str().unwrap()]);
        mount(&["--make-private", top.to_str().unwrap()]);
        fs::create_dir(&below).unwrap();
        mount(&["--bind", top.to_str().unwrap(), below.to_str().unwrap()]);
        for place in [&below, &top.to_owned()] {
            mount(&["-o", &format!("remount,bind,{options}"), place.to_str().unwrap()]);
        }
        source
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .args(["--recursive", self.path().to_str().unwrap()])
            .status();
    }
}

fn mount(args: &[&str]) {
    let output = Command::new("mount").args(args).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "mount {args:?}: {complaint}");
}

fn entry(kind: Option<&str>, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: PathBuf::from("/seen"),
        r#type: kind.map(str::to_owned),
        source: Some(source.to_owned()),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

/// A line of the container's table: options of the mount, propagation, options of the filesystem.
type Row = (Vec<String>, String, Vec<String>);

/// The row at each place, in a container with one more mount, which has a group as well.
fn rows(mount: Mount, places: &[&str]) -> Vec<Row> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("mounts-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let (cli, mut bundle, id) = prepared(&name).unwrap();
    bundle.spec.mounts.push(mount);
    bundle.shell("cat /proc/self/mountinfo").write_config();
    let table = cli.ok(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    let row = |place: &&str| {
        let line = table
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(*place))
            .unwrap_or_else(|| panic!("{place} is not in {table}"));
        let (mount, filesystem) = line.split_once(" - ").unwrap();
        let fields: Vec<&str> = mount.split(' ').collect();
        let words = |text: &str| text.split(',').map(str::to_owned).collect();
        (
            words(fields[5]),
            fields[6..].join(" "),
            words(filesystem.split(' ').nth(2).unwrap()),
        )
    };
    places.iter().map(row).collect()
}

fn has(row: &Row, word: &str) -> bool {
    row.0.iter().any(|known| known == word)
}

/// The word, what the table says of it, and whether for what is mounted below as well.
const SET: [(&str, &str, bool); 16] = [
    ("ro", "ro", false),
    ("rro", "ro", true),
    ("nosuid", "nosuid", false),
    ("rnosuid", "nosuid", true),
    ("nodev", "nodev", false),
    ("rnodev", "nodev", true),
    ("noexec", "noexec", false),
    ("rnoexec", "noexec", true),
    ("nodiratime", "nodiratime", false),
    ("rnodiratime", "nodiratime", true),
    ("noatime", "noatime", false),
    ("rnoatime", "noatime", true),
    ("relatime", "relatime", false),
    ("rrelatime", "relatime", true),
    ("nosymfollow", "nosymfollow", false),
    ("rnosymfollow", "nosymfollow", true),
];

#[test]
fn words_of_a_bind_hold_for_its_top_or_for_all_of_it() {
    if !possible() {
        return;
    }
    // What is not said otherwise: access times of its own, so that relatime is a change.
    let source = Source::new("rw,strictatime");
    let path = source.path().to_str().unwrap();
    for (word, shown, whole) in SET {
        let rows = rows(entry(None, path, &["rbind", word]), &["/seen", "/seen/below"]);
        assert!(has(&rows[0], shown), "{word}: {rows:?}");
        assert_eq!(has(&rows[1], shown), whole, "{word}: {rows:?}");
    }
}

/// The word, what is gone with it, and whether for what is mounted below as well.
const CLEARED: [(&str, &str, bool); 20] = [
    ("rw", "ro", false),
    ("rrw", "ro", true),
    ("suid", "nosuid", false),
    ("rsuid", "nosuid", true),
    ("dev", "nodev", false),
    ("rdev", "nodev", true),
    ("exec", "noexec", false),
    ("rexec", "noexec", true),
    ("diratime", "nodiratime", false),
    ("rdiratime", "nodiratime", true),
    ("atime", "noatime", false),
    ("ratime", "noatime", true),
    ("strictatime", "noatime", false),
    ("rstrictatime", "noatime", true),
    ("norelatime", "noatime", false),
    ("rnorelatime", "noatime", true),
    ("nostrictatime", "noatime", false),
    ("rnostrictatime", "noatime", true),
    ("symfollow", "nosymfollow", false),
    ("rsymfollow", "nosymfollow", true),
];

#[test]
fn words_of_a_bind_take_back_what_its_source_has() {
    if !possible() {
        return;
    }
    let source = Source::new("ro,nosuid,nodev,noexec,nodiratime,noatime,nosymfollow");
    let path = source.path().to_str().unwrap();
    let plain = rows(entry(None, path, &["rbind"]), &["/seen", "/seen/below"]);
    for (word, gone, whole) in CLEARED {
        assert!(has(&plain[0], gone) && has(&plain[1], gone), "{gone}: {plain:?}");
        let rows = rows(entry(None, path, &["rbind", word]), &["/seen", "/seen/below"]);
        assert!(!has(&rows[0], gone), "{word}: {rows:?}");
        assert_eq!(!has(&rows[1], gone), whole, "{word}: {rows:?}");
        // And nothing else.
        let others = CLEARED.iter().filter(|(_, other, _)| *other != gone);
        for (_, other, _) in others {
            assert!(has(&rows[0], other), "{word} takes {other}: {rows:?}");
        }
    }
    let bound = rows(entry(None, path, &["bind"]), &["/seen"]);
    assert_eq!(bound[0].0, plain[0].0);
}

/// Without anything below: `bind` leaves it.
#[test]
fn a_bind_that_is_not_recursive_shows_what_lies_below_the_mount() {
    if !possible() {
        return;
    }
    let source = Source::new("rw");
    let path = source.path().to_str().unwrap();
    let count = |option: &str| {
        let mut bundle = Bundle::new();
        bundle.spec.mounts.push(entry(None, path, &[option]));
        bundle.shell_output("grep -c ' /seen' /proc/self/mountinfo")
    };
    assert_eq!(count("bind"), "1\n");
    assert_eq!(count("rbind"), "2\n");
}

#[test]
fn propagation_is_what_the_word_says_for_every_kind_of_mount() {
    if !possible() {
        return;
    }
    let source = Source::new("rw");
    mount(&["--make-rshared", source.path().to_str().unwrap()]);
    let path = source.path().to_str().unwrap();
    // Of a bind: the source is shared, and a slave hears of it.
    for (word, top, below) in [
        ("shared", "shared:", "shared:"),
        ("rshared", "shared:", "shared:"),
        ("slave", "master:", "shared:"),
        ("rslave", "master:", "master:"),
        ("private", "", "shared:"),
        ("rprivate", "", ""),
        ("unbindable", "unbindable", "shared:"),
        ("runbindable", "unbindable", "unbindable"),
    ] {
        let rows = rows(entry(None, path, &["rbind", word]), &["/seen", "/seen/below"]);
        for (row, expected) in rows.iter().zip([top, below]) {
            let fits = if expected.is_empty() {
                row.1.is_empty()
            } else {
                row.1.starts_with(expected)
            };
            assert!(fits, "{word}: {rows:?}");
        }
    }
    // Without a word: as a slave, whatever is mounted on the host later.
    let rows_of_plain = rows(entry(None, path, &["rbind"]), &["/seen", "/seen/below"]);
    assert!(
        rows_of_plain.iter().all(|row| row.1.starts_with("master:")),
        "{rows_of_plain:?}"
    );
    // Of a filesystem, and of the view of cgroups.
    for (kind, source) in [("tmpfs", "tmpfs"), ("cgroup", "cgroup"), ("proc", "proc")] {
        for (word, expected) in [
            ("shared", "shared:"),
            ("rshared", "shared:"),
            ("unbindable", "unbindable"),
            ("private", ""),
        ] {
            let rows = rows(entry(Some(kind), source, &[word]), &["/seen"]);
            let fits = if expected.is_empty() {
                rows[0].1.is_empty()
            } else {
                rows[0].1.starts_with(expected)
            };
            assert!(fits, "{kind} {word}: {rows:?}");
        }
    }
}

#[test]
fn a_filesystem_has_the_options_of_mount_and_its_own() {
    if !possible() {
        return;
    }
    for (word, of_mount, of_filesystem) in [
        ("ro", "ro", ""),
        ("rro", "ro", ""),
        ("nosuid", "nosuid", ""),
        ("rnosuid", "nosuid", ""),
        ("nodev", "nodev", ""),
        ("noexec", "noexec", ""),
        ("noatime", "noatime", ""),
        ("nodiratime", "nodiratime", ""),
        ("nosymfollow", "nosymfollow", ""),
        ("strictatime", "rw", ""),
        ("sync", "rw", "sync"),
        ("dirsync", "rw", "dirsync"),
        ("lazytime", "rw", "lazytime"),
        ("size=1m", "rw", "size=1024k"),
        ("mode=700", "rw", "mode=700"),
        ("uid=33", "rw", "uid=33"),
        // What the table does not show.
        ("silent", "rw", ""),
        ("loud", "rw", ""),
        ("iversion", "rw", ""),
        ("noiversion", "rw", ""),
        ("async", "rw", ""),
        ("defaults", "rw", ""),
        ("nolazytime", "rw", ""),
        ("nomand", "rw", ""),
    ] {
        let rows = rows(entry(Some("tmpfs"), "tmpfs", &[word]), &["/seen"]);
        assert!(has(&rows[0], of_mount), "{word}: {rows:?}");
        let shown = of_filesystem.is_empty() || rows[0].2.iter().any(|known| known == of_filesystem);
        assert!(shown, "{word}: {rows:?}");
    }
    let strict = rows(entry(Some("tmpfs"), "tmpfs", &["strictatime"]), &["/seen"]);
    assert!(!has(&strict[0], "relatime"), "{strict:?}");
}

/// An old way of writing.
#[test]
fn a_relative_place_is_one_from_the_root() {
    if !possible() {
        return;
    }
    let mut mount = entry(Some("tmpfs"), "tmpfs", &[]);
    mount.destination = PathBuf::from("made/./here");
    rows(mount, &["/made/here"]);
}

#[test]
fn ids_are_translated_for_the_top_or_for_all_of_it() {
    if !possible() {
        return;
    }
    let source = Source::new("rw");
    fs::write(source.path().join("file"), "").unwrap();
    chown(source.path().join("file"), Some(1), Some(2)).unwrap();
    let map = |host_id| {
        vec![IdMapping {
            container_id: 0,
            host_id,
            size: 100,
        }]
    };
    let seen = |options: &[&str]| {
        let mut bundle = Bundle::new();
        let mut mount = entry(None, source.path().to_str().unwrap(), options);
        (mount.uid_mappings, mount.gid_mappings) = (map(5000), map(7000));
        bundle.spec.mounts.push(mount);
        bundle.shell_output("stat -c %u:%g /seen/file; stat -c %u:%g /seen/below/file")
    };
    // Below is the same directory again.
    assert_eq!(seen(&["rbind", "idmap"]), "5001:7002\n1:2\n");
    assert_eq!(seen(&["rbind", "ridmap"]), "5001:7002\n5001:7002\n");
    assert_eq!(seen(&["rbind"]), "5001:7002\n1:2\n");
    let file = fs::metadata(source.path().join("file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1, 2), "nothing on disk has changed");
}

#[test]
fn the_roots_own_propagation_is_set() {
    if !possible() {
        return;
    }
    for (word, expected) in [
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
        ("private", ""),
        ("rslave", ""),
        ("", ""),
    ] {
        let mut bundle = Bundle::new();
        bundle.linux().rootfs_propagation = word.to_owned();
        let table = bundle.shell_output("cat /proc/self/mountinfo");
        let of = |place: &str| {
            let line = table.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
            let fields: Vec<&str> = line.unwrap().split(" - ").next().unwrap().split(' ').collect();
            fields[6..].join(" ")
        };
        let fits = |told: &str, expected: &str| {
            told.starts_with(expected) && (!expected.is_empty() || told.is_empty())
        };
        assert!(fits(&of("/"), expected), "{word}: {table}");
        let below = if word == "rshared" { "shared:" } else { "" };
        assert!(fits(&of("/proc"), below), "{word}: {table}");
    }
}
