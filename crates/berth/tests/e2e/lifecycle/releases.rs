//! State that an earlier release wrote, and state of a release that is newer.

use std::collections::BTreeMap;

use store::rusqlite::Connection;

use super::STATE;
use crate::support::{Daemon, command, inspect, log_of, text};

/// The boot in which [`FIRST`] was written.
const ITS_BOOT: &str = "5ddb8c7d-4354-486d-b36a-d0d47a1a1d91";
/// The database as the first schema of every room was, with data, and the documents of its image.
const FIRST: &str = include_str!("schema-1/meta.sql");
/// The steps that led from there to the present schemas.
const LATER: &str = include_str!("schema-1/later.sql");
const DOCUMENTS: [&[u8]; 2] = [
    include_bytes!("schema-1/manifest.json"),
    include_bytes!("schema-1/config.json"),
];

fn database(daemon: &Daemon) -> std::path::PathBuf {
    daemon.dir.path().join("root/meta.db")
}

fn stop(daemon: &mut Daemon) {
    let sent = std::process::Command::new("kill")
        .arg(daemon.child.id().to_string())
        .status()
        .unwrap();
    assert!(
        sent.success() && daemon.child.wait().unwrap().success(),
        "{}",
        daemon.log()
    );
}

/// The version of each room's tables.
fn versions(db: &Connection) -> BTreeMap<String, i64> {
    let mut select = db.prepare("SELECT name, version FROM component").unwrap();
    let rows = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

/// Tables and indexes as they are defined, whatever the spaces.
fn definitions(db: &Connection) -> BTreeMap<String, String> {
    let mut select = db
        .prepare("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
        .unwrap();
    let rows = select
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))
        .unwrap();
    let plain = |sql: String| {
        let lines = sql
            .lines()
            .map(|line| line.split("--").next().unwrap_or_default());
        let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
        words.join(" ").replace("( ", "(").replace(" )", ")")
    };
    rows.map(Result::unwrap)
        .map(|(name, sql)| (name, plain(sql)))
        .collect()
}

/// The recorded steps: room, the version that each led to, and what it did.
fn steps() -> Vec<(&'static str, i64, &'static str)> {
    let sections = LATER.split("--# ").skip(1);
    sections
        .map(|section| {
            let (head, sql) = section.split_once('\n').unwrap();
            let (room, version) = head.split_once(' ').unwrap();
            (room, version.parse().unwrap(), sql)
        })
        .collect()
}

/// Writes the database as it was when every room had made `version - 1` steps, or all that it has.
fn write(db: &Connection, root: &std::path::Path, version: i64) {
    // Layers that were not on the disk for sure when the machine went down are not trusted; here it did not.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let first = FIRST
        .replace("@ROOT@", &root.display().to_string())
        .replace(ITS_BOOT, boot.trim());
    db.execute_batch(&first).unwrap();
    for (room, number, sql) in steps().into_iter().filter(|(_, number, _)| *number <= version) {
        db.execute_batch(sql).unwrap();
        let update = "UPDATE component SET version = ?2 WHERE name = ?1 AND version = ?2 - 1";
        assert_eq!(db.execute(update, (room, number)).unwrap(), 1, "{room} {number}");
    }
}

/// Puts the state of an earlier release in the place of the daemon's, which does not run.
fn go_back(daemon: &Daemon, version: i64) {
    let root = daemon.dir.path().join("root");
    for kept in ["containers", "snapshots", "volumes"] {
        let _ = std::fs::remove_dir_all(root.join(kept));
    }
    for file in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        let _ = std::fs::remove_file(root.join(file));
    }
    let db = Connection::open(root.join("meta.db")).unwrap();
    write(&db, &root, version);
    let containers: Vec<String> = {
        let mut select = db.prepare("SELECT id FROM containers").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    drop(db);
    assert_eq!(containers.len(), 2);
    // The directories that belong to the rows, of which one layer has files.
    for id in &containers {
        std::fs::create_dir_all(root.join("containers").join(id)).unwrap();
    }
    for document in DOCUMENTS {
        let digest = spec::Digest::sha256(document);
        std::fs::write(root.join("content/blobs/sha256").join(digest.hex()), document).unwrap();
    }
    std::fs::create_dir_all(root.join("snapshots/1")).unwrap();
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(daemon.dir.path().join("base"))
        .arg(root.join("snapshots/1/fs"))
        .status()
        .unwrap();
    assert!(copied.success());
    for snapshot in ["2", "3", "4"] {
        for part in ["fs", "work"] {
            std::fs::create_dir_all(root.join("snapshots").join(snapshot).join(part)).unwrap();
        }
    }
    std::fs::create_dir_all(root.join("volumes/kept/_data")).unwrap();
    std::fs::write(root.join("volumes/kept/_data/file"), "kept\n").unwrap();
}

#[test]
fn state_of_every_earlier_schema_is_read() {
    guard!();
    let mut daemon = Daemon::start();
    let present = versions(&Connection::open(database(&daemon)).unwrap());
    let newest = present.values().copied().max().unwrap();
    for version in 1..=newest {
        stop(&mut daemon);
        go_back(&daemon, version);
        daemon.start_again();
        assert_eq!(
            versions(&Connection::open(database(&daemon)).unwrap()),
            present,
            "every room is brought from {version} to its present version"
        );
        is_all_there(&daemon);
    }
}

/// All that the state holds can be looked at, used and removed.
fn is_all_there(daemon: &Daemon) {
    assert_eq!(inspect(daemon, "ended", STATE), "exited 4");
    assert_eq!(
        inspect(
            daemon,
            "ended",
            "{{.HostConfig.RestartPolicy.Name}} {{.Config.Labels.team}}"
        ),
        "on-failure a"
    );
    assert_eq!(inspect(daemon, "made", STATE), "created 0");
    assert_eq!(
        daemon.ok(&["volume", "inspect", "-f", "{{.Labels.team}}", "kept"]),
        "a\n"
    );
    let subnet = "{{(index .IPAM.Config 0).Subnet}} {{.Labels.team}}";
    assert_eq!(
        daemon.ok(&["network", "inspect", "-f", subnet, "own"]),
        "10.77.0.0/24 a\n"
    );
    let images = daemon.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    assert!(
        images.contains("box:1\n") && images.contains("other:2\n"),
        "{images}"
    );
    daemon.ok(&["start", "made"]);
    daemon.ok(&["wait", "made"]);
    assert_eq!(inspect(daemon, "made", STATE), "exited 0");
    let cat = [
        "run",
        "--rm",
        "--network",
        "own",
        "-v",
        "kept:/data",
        "other:2",
        "cat",
        "/data/file",
    ];
    assert_eq!(daemon.ok(&cat), "kept\n");
    daemon.ok(&["rm", "made", "ended"]);
    daemon.ok(&["rmi", "box:1", "other:2"]);
    daemon.ok(&["volume", "rm", "kept"]);
    daemon.ok(&["network", "rm", "own"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

/// A step that was released must never change, and one that is new has to be recorded: what the recorded steps lead to is
/// what a new root has.
#[test]
fn the_recorded_steps_are_those_of_the_program() {
    guard!();
    let daemon = Daemon::start();
    let own = Connection::open(database(&daemon)).unwrap();
    let recorded = Connection::open_in_memory().unwrap();
    write(&recorded, daemon.dir.path(), i64::MAX);
    assert_eq!(
        versions(&recorded),
        versions(&own),
        "record the new step in later.sql"
    );
    assert_eq!(definitions(&recorded), definitions(&own));
}

#[test]
fn state_of_a_newer_release_is_refused_and_left_alone() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&["volume", "create", "kept"]);
    let rooms: Vec<String> = versions(&Connection::open(database(&daemon)).unwrap())
        .into_keys()
        .collect();
    stop(&mut daemon);
    for room in rooms {
        let set = |change: &str| {
            let db = Connection::open(database(&daemon)).unwrap();
            let update = format!("UPDATE component SET version = version {change} WHERE name = '{room}'");
            assert_eq!(db.execute(&update, []).unwrap(), 1, "{room}");
        };
        set("+ 1");
        let output = command(daemon.dir.path(), &[])
            .stderr(log_of(daemon.dir.path()))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{room}");
        let log = daemon.log();
        let said = log.lines().last().unwrap_or_default();
        let wanted = format!("the tables of \"{room}\" have version");
        assert!(log.contains(&wanted), "{room}: {said}");
        assert!(
            log.contains("use the newer program or another data root"),
            "{said}"
        );
        assert!(log.contains(&database(&daemon).display().to_string()), "{said}");
        set("- 1");
    }
    daemon.start_again();
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "kept\n");
    assert!(!text(daemon.log().as_bytes()).contains("panicked"));
}
