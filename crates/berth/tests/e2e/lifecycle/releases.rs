//! State that an earlier release wrote, and state of a release that is newer.

use store::rusqlite::Connection;

use super::{STATE, inspect};
use crate::support::{Daemon, command, log_of, text};

/// The boot in which [`FIRST`] was written.
const ITS_BOOT: &str = "5ddb8c7d-4354-486d-b36a-d0d47a1a1d91";
/// The database as the first schema of every room was, with data, and the documents of its image.
const FIRST: &str = include_str!("schema-1/meta.sql");
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

fn versions(daemon: &Daemon) -> Vec<(String, i64)> {
    let db = Connection::open(database(daemon)).unwrap();
    let mut select = db
        .prepare("SELECT name, version FROM component ORDER BY name")
        .unwrap();
    let rows = select
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn state_of_the_first_schema_is_read() {
    guard!();
    let mut daemon = Daemon::start();
    let present = versions(&daemon);
    stop(&mut daemon);
    // The directories that belong to the rows, of which one layer has files.
    let root = daemon.dir.path().join("root");
    for kept in ["containers", "snapshots", "volumes"] {
        let _ = std::fs::remove_dir_all(root.join(kept));
    }
    for file in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        let _ = std::fs::remove_file(root.join(file));
    }
    let db = Connection::open(root.join("meta.db")).unwrap();
    // Layers that were not on the disk for sure when the machine went down are not trusted; here it did not.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let first = FIRST
        .replace("@ROOT@", &root.display().to_string())
        .replace(ITS_BOOT, boot.trim());
    db.execute_batch(&first).unwrap();
    let containers: Vec<String> = {
        let mut select = db.prepare("SELECT id FROM containers").unwrap();
        let rows = select.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    drop(db);
    assert_eq!(containers.len(), 2);
    for id in &containers {
        std::fs::create_dir_all(root.join("containers").join(id)).unwrap();
    }
    for document in DOCUMENTS {
        let digest = spec::Digest::sha256(document);
        std::fs::write(root.join("content/blobs/sha256").join(digest.hex()), document).unwrap();
    }
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(daemon.dir.path().join("base"))
        .arg(root.join("fs"))
        .status()
        .unwrap();
    assert!(copied.success());
    std::fs::create_dir_all(root.join("snapshots/1")).unwrap();
    std::fs::rename(root.join("fs"), root.join("snapshots/1/fs")).unwrap();
    for snapshot in ["2", "3", "4"] {
        for part in ["fs", "work"] {
            std::fs::create_dir_all(root.join("snapshots").join(snapshot).join(part)).unwrap();
        }
    }
    std::fs::create_dir_all(root.join("volumes/kept/_data")).unwrap();
    std::fs::write(root.join("volumes/kept/_data/file"), "kept\n").unwrap();
    daemon.start_again();
    assert_eq!(
        versions(&daemon),
        present,
        "every room is brought to its present version"
    );
    // All of it is there, and can be used.
    assert_eq!(inspect(&daemon, "ended", STATE), "exited 4");
    assert_eq!(
        inspect(
            &daemon,
            "ended",
            "{{.HostConfig.RestartPolicy.Name}} {{.Config.Labels.team}}"
        ),
        "on-failure a"
    );
    assert_eq!(inspect(&daemon, "made", STATE), "created 0");
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
    assert_eq!(inspect(&daemon, "made", STATE), "exited 0");
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

#[test]
fn state_of_a_newer_release_is_refused_and_left_alone() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&["volume", "create", "kept"]);
    stop(&mut daemon);
    for room in [
        "engine",
        "volume",
        "network",
        "image",
        "snapshot",
        "build",
        "build_history",
    ] {
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
