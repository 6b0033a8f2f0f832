//! Daemons that find out in the middle of their start that they cannot serve: they say why, and nothing of them is left.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::silent::monitor_of;
use crate::support::{Daemon, command, retry, signal, tag_of, text};

/// What an instance has on the host, by its names.
pub fn on_host(dir: &Path) -> Vec<String> {
    let tag = format!("berth-{}", tag_of(&dir.join("root")));
    let said =
        |program: &str, args: &[&str]| text(&Command::new(program).args(args).output().unwrap().stdout);
    let links = said("ip", &["-o", "-d", "link"]);
    let tables = said("nft", &["list", "tables"]);
    let lines = links.lines().chain(tables.lines());
    let mut found: Vec<String> = lines
        .filter(|line| line.contains(&tag))
        .map(str::to_owned)
        .collect();
    let trees = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups = trees
        .map(|tree| tree.path())
        .chain(["/sys/fs/cgroup".into()])
        .map(|tree| tree.join(&tag));
    let files = ["run/berth.sock", "run/berth.pid"].map(|name| dir.join(name));
    found.extend(
        groups
            .chain(files)
            .filter(|path| path.exists())
            .map(|path| path.display().to_string()),
    );
    found
}

/// Starts a daemon that has to refuse; gives its last words.
fn refuses(dir: &Path, args: &[&str]) -> String {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    let output = command(dir, &args).stdin(Stdio::null()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    assert_eq!(on_host(dir), [""; 0], "{args:?} left something: {said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_daemon_that_cannot_serve_leaves_nothing() {
    guard!();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let host = format!("tcp://{address}");
    for (args, word) in [
        (&["--metrics-addr", &address][..], "--metrics-addr"),
        (&["--host", &host], host.as_str()),
        (&["--group", "no-such-group"], "no-such-group"),
    ] {
        let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
        let last = refuses(dir.path(), args);
        assert!(
            last.starts_with("berth daemon: ") && last.contains(word),
            "{last}"
        );
    }
    // Something in the way of what the daemon opens, in the order in which it comes there.
    for in_the_way in ["root/containers", "root/events.jsonl", "root/buildkit"] {
        let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
        let path = dir.path().join(in_the_way);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match in_the_way.ends_with(".jsonl") {
            true => std::fs::create_dir(&path).unwrap(),
            false => std::fs::write(&path, "a file").unwrap(),
        }
        let last = refuses(dir.path(), &[]);
        assert!(last.starts_with("berth daemon: "), "{in_the_way}: {last}");
    }
}

/// What fails in the middle of bringing networks up, after links and rules of theirs were made.
#[test]
fn networks_that_are_half_up_are_taken_down() {
    guard!();
    let mut daemon = Daemon::start();
    let id = daemon.ok(&["network", "create", "app"]);
    end(&mut daemon, "-TERM");
    let table = daemon
        .dir
        .path()
        .join("run/dns")
        .join(format!("{}.json", id.trim()));
    let _ = std::fs::remove_file(&table);
    std::fs::create_dir_all(table.join("in the way")).unwrap();
    let last = refuses(daemon.dir.path(), &[]);
    assert!(last.contains(&table.display().to_string()), "{last}");
    std::fs::remove_dir_all(&table).unwrap();
    daemon.start_again();
    daemon.ok(&["run", "--rm", "--network", "app", "box:1", "true"]);
}

fn end(daemon: &mut Daemon, with: &str) {
    signal(&daemon.child.id().to_string(), with);
    daemon.child.wait().unwrap();
}

/// What living containers of an earlier daemon need stays, and what would start with the daemon does not.
#[test]
fn a_daemon_that_cannot_serve_touches_no_container() {
    guard!();
    let mut daemon = Daemon::start();
    let serve = ["nc", "-ll", "-p", "80", "-e", "echo", "well"];
    daemon.keep("lives", &["-p", "127.0.0.1::80"], &serve);
    daemon.keep("ended", &["--restart", "always"], &["sleep", "1000"]);
    let port = daemon.ok(&["port", "lives", "80"]).trim().to_owned();
    let answer = || {
        let asked = Command::new("busybox")
            .args(["nc", "-w", "5"])
            .args(port.split(':'))
            .stdin(Stdio::null())
            .output();
        text(&asked.unwrap().stdout)
    };
    assert!(retry(|| (answer() == "well\n").then_some(())).is_some());
    let ended = monitor_of(&daemon, "ended");
    end(&mut daemon, "-KILL");
    signal(&ended, "-KILL");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let args = ["--metrics-addr".to_owned(), address];
    let refused = command(daemon.dir.path(), &args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
    assert_eq!(answer(), "well\n", "a refused daemon took a port away");
    let shown = crate::inventory::processes(daemon.dir.path());
    let monitors = shown.iter().filter(|line| line.contains(" monitor ")).count();
    assert_eq!(monitors, 1, "a refused daemon started a container: {shown:?}");
    daemon.start_again();
    let state = |name: &str| daemon.ok(&["inspect", "-f", "{{.State.Status}}", name]);
    assert_eq!(state("lives"), "running\n");
    assert!(retry(|| (state("ended") == "running\n").then_some(())).is_some());
}
