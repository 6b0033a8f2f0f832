//! `system check`: what was broken by hand is found and put right, and what is in order is left alone.

use std::path::Path;
use std::process::Command;

use crate::support::{Daemon, retry, tag_of, text};

/// What the check prints, and its exit code.
fn check(daemon: &Daemon, flags: &[&str]) -> (String, i32) {
    let output = daemon.run(&[&["system", "check"], flags].concat());
    let complaint = text(&output.stderr);
    assert_eq!(complaint, "", "{}", daemon.log());
    (text(&output.stdout), output.status.code().unwrap())
}

fn clean(daemon: &Daemon) {
    assert_eq!(check(daemon, &[]), ("Nothing is wrong.\n".to_owned(), 0));
}

/// Found, told with these words, repaired, and gone.
fn found_and_repaired(daemon: &Daemon, kind: &str, words: &[&str]) {
    let (listed, code) = check(daemon, &[]);
    assert_eq!(code, 1, "{listed}");
    let row = listed.lines().find(|line| line.starts_with(kind));
    let row = row.unwrap_or_else(|| panic!("no {kind} in\n{listed}"));
    for word in words {
        assert!(row.contains(word), "{word} in {row}");
    }
    let (repaired, code) = check(daemon, &["--repair"]);
    assert_eq!(code, 0, "{repaired}{}", daemon.log());
    assert!(repaired.contains("done"), "{repaired}");
    clean(daemon);
}

fn host(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        text(&output.stderr)
    );
    text(&output.stdout)
}

#[test]
fn an_engine_at_work_has_nothing_wrong() {
    guard!();
    let daemon = Daemon::start();
    clean(&daemon);
    daemon.ok(&["network", "create", "own"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "own",
        "-p",
        "127.0.0.1:0:80",
        "-v",
        "data:/data",
        "box:1",
        "sleep",
        "100",
    ]);
    daemon.ok(&["run", "-d", "--name", "plain", "box:1", "sleep", "100"]);
    daemon.ok(&["pause", "plain"]);
    daemon.ok(&["create", "--name", "waiting", "box:1", "true"]);
    daemon.run(&["run", "--name", "ended", "box:1", "false"]);
    clean(&daemon);
    daemon.ok(&["rm", "-f", "-v", "web", "plain", "waiting", "ended"]);
    clean(&daemon);
    let (json, code) = check(&daemon, &["--format", "json"]);
    assert_eq!((json.as_str(), code), ("{\"Findings\":[]}\n", 0));
    assert!(
        daemon
            .fails(&["system", "check", "--format", "yaml"])
            .1
            .contains("yaml")
    );
}

#[test]
fn a_build_under_way_is_nothing_wrong() {
    guard!();
    let daemon = Daemon::start();
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM box:1\nRUN echo begun && sleep 4\n",
    )
    .unwrap();
    std::thread::scope(|scope| {
        let build = scope.spawn(|| daemon.ok(&["build", "-q", context.to_str().unwrap()]));
        std::thread::sleep(std::time::Duration::from_millis(1500));
        clean(&daemon);
        build.join().unwrap();
    });
    clean(&daemon);
}

#[test]
fn leftovers_on_the_host_are_found_and_removed() {
    guard!();
    let daemon = Daemon::start();
    let root = daemon.dir.path().join("root");
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        "127.0.0.1:0:80",
        "box:1",
        "sleep",
        "100",
    ]);
    let id = "f".repeat(64);

    let directory = root.join("containers").join(&id);
    std::fs::create_dir(&directory).unwrap();
    found_and_repaired(&daemon, "directory", &[&id, "no container is recorded"]);
    assert!(!directory.exists());

    let snapshot = root.join("snapshots").join("4711");
    std::fs::create_dir_all(snapshot.join("fs")).unwrap();
    found_and_repaired(&daemon, "snapshot", &["4711"]);
    assert!(!snapshot.exists());

    let socket = daemon.dir.path().join("run/ffffffffffff.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    found_and_repaired(&daemon, "socket", &["ffffffffffff"]);
    assert!(!socket.exists());

    let mounted = root.join("left here");
    std::fs::create_dir(&mounted).unwrap();
    host("mount", &["-t", "tmpfs", "none", mounted.to_str().unwrap()]);
    // A mount of this test's namespace is the daemon's, too: they share it.
    found_and_repaired(&daemon, "mount", &["left here"]);
    std::fs::remove_dir(&mounted).unwrap();

    let container = daemon.ok(&["inspect", "-f", "{{.Id}}", "web"]);
    let group = cgroup_of(&daemon, container.trim());
    let stray = group.parent().unwrap().join(&id);
    std::fs::create_dir(&stray).unwrap();
    found_and_repaired(&daemon, "cgroup", &[&id]);
    assert!(!stray.exists());
    assert_eq!(daemon.ok(&["exec", "web", "echo", "untouched"]), "untouched\n");
}

/// Where the kernel keeps the container's processes count.
fn cgroup_of(daemon: &Daemon, id: &str) -> std::path::PathBuf {
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", id]);
    let table = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let v1 = table.lines().find(|line| line.contains(":pids:"));
    match v1 {
        Some(line) => {
            Path::new("/sys/fs/cgroup/pids").join(line.rsplit(':').next().unwrap().trim_start_matches('/'))
        }
        None => {
            let line = table.lines().find(|line| line.starts_with("0::")).unwrap();
            Path::new("/sys/fs/cgroup").join(line.trim_start_matches("0::/"))
        }
    }
}

#[test]
fn what_the_network_lost_is_made_again() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["network", "create", "own"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "web",
        "--network",
        "own",
        "-p",
        "127.0.0.1:0:80",
        "box:1",
        "sh",
        "-c",
        "while true; do echo here | nc -l -p 80; done",
    ]);
    let bridge = daemon.ok(&["network", "inspect", "-f", "{{.Id}}", "own"]);
    let reach = || {
        text(
            &daemon
                .run(&[
                    "run",
                    "--rm",
                    "--network",
                    "own",
                    "box:1",
                    "nc",
                    "-w",
                    "3",
                    "web",
                    "80",
                ])
                .stdout,
        )
    };
    assert_eq!(reach(), "here\n");

    let table = table_of(&daemon);
    // What can be put back without knowing containers comes back by itself.
    let rules = || {
        text(
            &Command::new("nft")
                .args(["list", "table", "inet", &table])
                .output()
                .unwrap()
                .stdout,
        )
    };
    let whole = rules();
    assert!(whole.contains("publish4"), "{whole}");
    for damage in [
        &["flush", "map", "inet", &table, "publish4"][..],
        &["delete", "table", "inet", &table],
        &["flush", "chain", "inet", &table, "forward"],
    ] {
        host("nft", damage);
        assert!(
            retry(|| (rules() == whole).then_some(())).is_some(),
            "{damage:?}\n{}",
            daemon.log()
        );
    }
    clean(&daemon);

    let link = format!("check{}", std::process::id() % 100_000);
    host("ip", &["link", "add", &link, "type", "bridge"]);
    host(
        "ip",
        &[
            "link",
            "set",
            &link,
            "alias",
            &format!("{table}:endpoint:{}", "e".repeat(64)),
        ],
    );
    found_and_repaired(&daemon, "link", &[&link]);

    let own = bridge_of(&daemon, bridge.trim());
    host("ip", &["link", "delete", &own]);
    assert!(
        retry(|| (reach() == "here\n").then_some(())).is_some(),
        "the container is on the new bridge\n{}",
        daemon.log()
    );
    clean(&daemon);

    let port = host("ip", &["-br", "link", "show", "master", &own]);
    let port = port.split(['@', ' ']).next().unwrap();
    host("ip", &["link", "delete", port]);
    assert_eq!(reach(), "");
    let told = daemon.ok(&["network", "reload"]);
    assert!(told.contains(port) && told.contains("done"), "{told}");
    assert_eq!(daemon.ok(&["network", "reload"]), "Nothing is wrong.\n");
    assert_eq!(reach(), "here\n", "the container has its link again");
}

/// The instance's nftables table, which is called as its links are tagged.
fn table_of(daemon: &Daemon) -> String {
    format!("berth-{}", tag_of(&daemon.dir.path().join("root")))
}

fn bridge_of(daemon: &Daemon, id: &str) -> String {
    let table = table_of(daemon);
    let links = host("ip", &["-o", "link", "show", "type", "bridge"]);
    let line = links
        .lines()
        .find(|line| line.contains(&format!("{table}:network:{id}")));
    line.unwrap().split(": ").nth(1).unwrap().to_owned()
}

#[test]
fn rows_and_directories_are_brought_together_again() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["volume", "create", "kept"]);
    let data = daemon.ok(&["volume", "inspect", "-f", "{{.Mountpoint}}", "kept"]);
    let data = Path::new(data.trim());
    std::fs::remove_dir_all(data.parent().unwrap()).unwrap();
    found_and_repaired(&daemon, "volume", &["kept", "its directory is gone"]);
    let unrecorded = data.parent().unwrap().parent().unwrap().join("found");
    std::fs::create_dir_all(unrecorded.join("_data")).unwrap();
    std::fs::write(unrecorded.join("_data/note"), "still here\n").unwrap();
    found_and_repaired(&daemon, "volume", &["found", "no record"]);
    assert_eq!(
        daemon.ok(&["run", "--rm", "-v", "found:/f", "box:1", "cat", "/f/note"]),
        "still here\n"
    );
    // A monitor that was killed is seen by the daemon itself; until then the check says so.
    daemon.ok(&["run", "-d", "--name", "web", "box:1", "sleep", "100"]);
    clean(&daemon);
}

/// Turns a byte of the file over, behind the engine's back.
pub(crate) fn damage(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn blobs_with_other_bytes_are_found_when_all_is_read_and_had_again() {
    guard!();
    let Some(registry) = crate::private::Registry::start("") else {
        return;
    };
    let daemon = Daemon::start();
    let name = format!("127.0.0.1:{}/team/app:1", registry.port);
    daemon.ok(&["tag", "box:1", &name]);
    daemon.ok(&["push", &name]);
    let blobs = daemon.dir.path().join("root/content/blobs/sha256");
    let largest = std::fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let whole = std::fs::read(&largest).unwrap();
    let hex = largest.file_name().unwrap().to_str().unwrap();
    assert_eq!(
        check(&daemon, &["--content"]),
        ("Nothing is wrong.\n".to_owned(), 0)
    );

    damage(&largest);
    clean(&daemon);
    let (listed, code) = check(&daemon, &["--content"]);
    assert_eq!(code, 1, "{listed}");
    assert!(
        listed.contains(hex) && listed.contains("its bytes have another digest"),
        "{listed}"
    );
    let (repaired, code) = check(&daemon, &["--content", "--repair"]);
    assert_eq!(code, 0, "{repaired}{}", daemon.log());
    assert!(repaired.contains("done"), "{repaired}");
    assert!(std::fs::read(&largest).unwrap() == whole, "the registry had it");
    assert_eq!(
        check(&daemon, &["--content"]),
        ("Nothing is wrong.\n".to_owned(), 0)
    );

    // Nobody has it any more: it says so, and counts as missing from then on.
    drop(registry);
    damage(&largest);
    let (told, code) = check(&daemon, &["--content", "--repair"]);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("cannot be had again"), "{told}");
    assert!(!largest.exists());
    let (told, _) = check(&daemon, &[]);
    assert!(told.contains(hex) && told.contains("is missing"), "{told}");
}
