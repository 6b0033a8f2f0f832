//! The arrows between the rooms: who may use whom, as `docs/architecture.md` draws them.
//!
//! An import that is not in this table is a decision about the architecture, so it fails here with the reason
//! the table gives. Development dependencies may point anywhere below.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Room, floor, what it may use, and why not more.
const ROOMS: &[(&str, u8, &[&str], &str)] = &[
    (
        "spec",
        0,
        &[],
        "the vocabulary depends on nobody's meaning but its own",
    ),
    (
        "api-types",
        0,
        &[],
        "client and server share models, not behaviour",
    ),
    ("sys", 0, &[], "the kernel's face knows nothing of containers"),
    ("tls", 0, &[], "who is believed is decided by whoever connects"),
    (
        "fuzz",
        0,
        &[],
        "it changes inputs; what a parser has to hold stands beside the parser",
    ),
    (
        "cgroup",
        1,
        &["spec", "sys"],
        "limits are a matter between specification and kernel",
    ),
    (
        "dns",
        1,
        &["spec", "sys"],
        "the resolver outlives the daemon, so it must not need it",
    ),
    (
        "registry",
        1,
        &["spec", "tls"],
        "a protocol client stores nothing",
    ),
    (
        "relay",
        1,
        &["sys"],
        "it outlives the daemon and knows sockets, not containers",
    ),
    (
        "runtime",
        1,
        &["cgroup", "spec", "sys"],
        "a bundle becomes a process without an engine",
    ),
    (
        "session",
        1,
        &["spec", "sys"],
        "what both ends of a build's session share; it stores and builds nothing",
    ),
    (
        "store",
        1,
        &["spec", "sys"],
        "blobs and snapshots know nothing of images or containers",
    ),
    (
        "image",
        2,
        &["registry", "spec", "store", "sys"],
        "images know nothing of containers",
    ),
    (
        "monitor",
        2,
        &["cgroup", "dns", "relay", "runtime", "spec", "sys", "tls"],
        "a monitor outlives the daemon and its database",
    ),
    (
        "network",
        2,
        &["dns", "relay", "spec", "store", "sys"],
        "networks know endpoints, not containers",
    ),
    (
        "volume",
        2,
        &["spec", "store", "sys", "tls"],
        "volumes outlive containers",
    ),
    (
        "engine",
        3,
        &[
            "api-types",
            "cgroup",
            "dns",
            "image",
            "monitor",
            "network",
            "registry",
            "runtime",
            "spec",
            "store",
            "sys",
            "volume",
        ],
        "the domain does not know HTTP or Dockerfiles",
    ),
    (
        "build",
        3,
        &["image", "session", "spec", "store", "sys", "tls"],
        "steps are run through a trait, not by knowing the engine",
    ),
    (
        "buildkit",
        4,
        &["build", "image", "session", "spec", "store", "sys"],
        "a protocol's face on the builder; it knows no containers and no Docker API",
    ),
    (
        "api",
        4,
        &["api-types", "build", "buildkit", "engine", "spec"],
        "a face translates; what is below the engine is the engine's",
    ),
    (
        "cli",
        5,
        &["api-types", "session", "spec", "tls"],
        "the client talks to a daemon like any other client",
    ),
    (
        "daemon",
        5,
        &[
            "api",
            "api-types",
            "build",
            "buildkit",
            "engine",
            "image",
            "network",
            "registry",
            "spec",
            "store",
            "sys",
            "tls",
        ],
        "wiring; the client's commands are not its business",
    ),
    (
        "berth",
        6,
        &["cli", "daemon", "monitor", "runtime", "spec", "sys"],
        "the binary only chooses a role",
    ),
];

fn crates() -> BTreeMap<String, toml::Table> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let manifest: toml::Table = std::fs::read_to_string(path.join("Cargo.toml"))
            .unwrap()
            .parse()
            .unwrap();
        let folder = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(
            manifest["package"]["name"].as_str(),
            Some(folder.as_str()),
            "a crate is named after its folder"
        );
        found.insert(folder, manifest);
    }
    found
}

#[test]
fn every_room_is_on_the_map() {
    let have: BTreeSet<String> = crates().into_keys().collect();
    let drawn: BTreeSet<String> = ROOMS.iter().map(|r| r.0.to_owned()).collect();
    assert_eq!(
        have, drawn,
        "the table of rooms and the folders below crates/ differ"
    );
}

#[test]
fn imports_follow_the_arrows() {
    let crates = crates();
    let ours: BTreeSet<&str> = ROOMS.iter().map(|r| r.0).collect();
    for (room, _, allowed, why) in ROOMS {
        let dependencies = crates[*room]
            .get("dependencies")
            .and_then(|d| d.as_table())
            .cloned()
            .unwrap_or_default();
        for used in dependencies.keys().filter(|d| ours.contains(d.as_str())) {
            assert!(
                allowed.contains(&used.as_str()),
                "{room} must not use {used}: {why}"
            );
        }
    }
}

#[test]
fn arrows_point_down() {
    // A room may use only rooms that stand before it in the table, so there can be no circle; the floors rise.
    for (at, (room, level, allowed, _)) in ROOMS.iter().enumerate() {
        for used in *allowed {
            let found = ROOMS[..at].iter().find(|r| r.0 == *used);
            let floor = found
                .map(|r| r.1)
                .unwrap_or_else(|| panic!("{room} uses {used}, which stands after it"));
            assert!(
                floor <= *level,
                "{room} on floor {level} may not use {used} on floor {floor}"
            );
        }
    }
}

#[test]
fn unsafe_code_lives_in_sys_alone() {
    for (name, manifest) in crates() {
        let inherits = manifest
            .get("lints")
            .and_then(|l| l.get("workspace"))
            .and_then(|w| w.as_bool())
            == Some(true);
        assert!(
            inherits || name == "sys",
            "{name} must take the workspace's lints, which deny unsafe code"
        );
    }
}
