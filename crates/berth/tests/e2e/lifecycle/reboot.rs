//! The machine goes down: every process is gone, and so is what lay in the run directory, control groups and links. And
//! a daemon of another program goes on with what the last one ran.

use std::process::{Command, Stdio};

use super::STATE;
use crate::inventory;
use crate::support::{BERTH, Daemon, OF_DAEMON, becomes, command, inspect, log_of, retry, tag_of};

/// Ends everything at once, as a power cut does, and takes away what a boot does not find again.
fn power_cut(daemon: &mut Daemon) {
    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    // Monitors first: nobody must be left who could record an end.
    let processes = || inventory::processes(daemon.dir.path());
    for wanted in [" monitor ", ""] {
        for line in processes().iter().filter(|line| line.contains(wanted)) {
            kill(line.split(' ').next().unwrap());
        }
    }
    assert!(
        retry(|| processes().is_empty().then_some(())).is_some(),
        "{:?}",
        processes()
    );
    let tag = format!("berth-{}", tag_of(&daemon.dir.path().join("root")));
    let trees = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    let groups: Vec<_> = trees
        .map(|tree| tree.path())
        .chain(["/sys/fs/cgroup".into()])
        .map(|tree| tree.join(&tag))
        .collect();
    // The containers' own processes; what is frozen does not even die.
    for group in &groups {
        for inner in std::fs::read_dir(group).into_iter().flatten().flatten() {
            let pids = std::fs::read_to_string(inner.path().join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                kill(pid);
            }
            for (file, thawed) in [("freezer.state", "THAWED"), ("cgroup.freeze", "0")] {
                let file = inner.path().join(file);
                if file.exists() {
                    std::fs::write(file, thawed).unwrap();
                }
            }
        }
    }
    for group in &groups {
        remove_groups(group);
    }
    let links = Command::new("ip").args(["-o", "-d", "link"]).output().unwrap();
    let links = crate::support::text(&links.stdout);
    for link in links.lines().filter(|line| line.contains(&tag)) {
        let name = link.split(": ").nth(1).unwrap().split('@').next().unwrap();
        let _ = Command::new("ip")
            .args(["link", "del", name])
            .stderr(Stdio::null())
            .status();
    }
    let _ = Command::new("nft")
        .args(["delete", "table", "inet", &tag])
        .stderr(Stdio::null())
        .status();
    std::fs::remove_dir_all(daemon.dir.path().join("run")).unwrap();
}

/// One that has ended meanwhile needs no killing.
fn kill(pid: &str) {
    let _ = Command::new("kill")
        .args(["-9", pid])
        .stderr(Stdio::null())
        .status();
}

fn remove_groups(group: &std::path::Path) {
    for inner in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if inner.path().is_dir() {
            remove_groups(&inner.path());
        }
    }
    if group.is_dir() {
        // The kernel lets go of the dead a moment later.
        let gone = retry(|| std::fs::remove_dir(group).ok());
        assert!(gone.is_some(), "{}", group.display());
    }
}

#[test]
fn after_a_reboot_every_container_is_what_it_is_said_to_be() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&["network", "create", "own"]);
    let sleeper = |options: &[&str]| {
        daemon.ok(&[&["run", "-d"], options, &["box:1", "sleep", "1000"]].concat());
    };
    sleeper(&["--name", "plain"]);
    sleeper(&[
        "--name",
        "again",
        "--restart",
        "always",
        "--network",
        "own",
        "-p",
        "127.0.0.1:0:80",
    ]);
    sleeper(&[
        "--name",
        "unless",
        "--restart",
        "unless-stopped",
        "-v",
        "kept:/data",
    ]);
    sleeper(&["--name", "failing", "--restart", "on-failure"]);
    sleeper(&["--name", "by-hand", "--restart", "unless-stopped"]);
    sleeper(&["--name", "paused"]);
    sleeper(&["--name", "gone", "--rm", "-v", "/data"]);
    let ended = daemon.run(&["run", "--name", "ended", "box:1", "sh", "-c", "echo said; exit 4"]);
    assert_eq!(ended.status.code(), Some(4));
    daemon.ok(&["create", "--name", "made", "box:1", "true"]);
    daemon.ok(&["exec", "unless", "touch", "/data/file", "/own"]);
    daemon.ok(&["stop", "-t", "0", "by-hand"]);
    daemon.ok(&["pause", "paused"]);
    let volumes = daemon.ok(&["volume", "ls", "-q"]).lines().count();
    power_cut(&mut daemon);
    daemon.start_again();
    // What ran has ended, and nobody saw how.
    for (name, state) in [
        ("plain", "exited 255"),
        ("paused", "exited 255"),
        ("by-hand", "exited 137"),
        ("ended", "exited 4"),
        ("made", "created 0"),
    ] {
        assert_eq!(inspect(&daemon, name, STATE), state, "{name}");
    }
    let ends = daemon.told(
        &["container=plain", "event=die"],
        "{{.Actor.Attributes.exitCode}}",
    );
    assert_eq!(ends, "255\n");
    for name in ["again", "unless", "failing"] {
        becomes(&daemon, name, STATE, "running 0");
        daemon.ok(&["exec", name, "true"]);
    }
    let names = daemon.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    assert!(!names.lines().any(|name| name == "gone"), "{names}");
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]).lines().count(), volumes - 1);
    assert_eq!(daemon.ok(&["logs", "ended"]), "said\n");
    daemon.ok(&["exec", "unless", "ls", "/data/file", "/own"]);
    let links = daemon.ok(&["exec", "again", "ls", "/sys/class/net"]);
    assert!(links.contains("eth0"), "{links}");
    assert!(daemon.ok(&["port", "again"]).contains("80/tcp -> 127.0.0.1:"));
    daemon.ok(&["start", "plain", "paused"]);
    daemon.ok(&["exec", "plain", "true"]);
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}

/// As long as ours.
const OTHER_RELEASE: &str = "0.0.9";

/// Writes the program with the number of another release, wherever it says its own.
fn of_another_release(program: &std::path::Path) {
    let own = env!("CARGO_PKG_VERSION");
    assert_eq!(own.len(), OTHER_RELEASE.len(), "choose another number");
    std::fs::copy(BERTH, program).unwrap();
    let edit = format!("s/{}/{OTHER_RELEASE}/g", own.replace('.', "[.]"));
    let edited = Command::new("sed")
        .args(["-i", &edit])
        .arg(program)
        .env("LC_ALL", "C")
        .status()
        .unwrap();
    assert!(edited.success());
}

#[test]
fn another_program_goes_on_with_what_the_last_one_ran() {
    guard!();
    let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
    // Of another release, as its monitors say; its file is gone when the next one comes.
    let old = dir.path().join("old-berth");
    of_another_release(&old);
    let like = command(dir.path(), &[]);
    let child = Command::new(&old)
        .args(like.get_args())
        .env(OF_DAEMON, dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log_of(dir.path()))
        .spawn()
        .unwrap();
    let mut daemon = Daemon::of(dir, Vec::new(), child);
    let script = "i=0; while [ $i -lt 100000 ]; do echo $i; i=$((i+1)); sleep 0.01; done";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "counts",
        "-p",
        "127.0.0.1:0:80",
        "--restart",
        "always",
        "box:1",
        "sh",
        "-c",
        script,
    ]);
    daemon.ok(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "leaves",
        "box:1",
        "sh",
        "-c",
        "while ! [ -e /end ]; do sleep 0.05; done",
    ]);
    let first = inspect(&daemon, "counts", "{{.State.Pid}} {{.State.StartedAt}}");
    let port = daemon.ok(&["port", "counts"]);
    // In peace, as a service manager does it.
    let stopped = Command::new("kill")
        .arg(daemon.child.id().to_string())
        .status()
        .unwrap();
    assert!(
        stopped.success() && daemon.child.wait().unwrap().success(),
        "{}",
        daemon.log()
    );
    std::fs::remove_file(&old).unwrap();
    daemon.start_again();
    assert_eq!(
        inspect(&daemon, "counts", "{{.State.Pid}} {{.State.StartedAt}}"),
        first
    );
    assert_eq!(daemon.ok(&["port", "counts"]), port);
    assert_eq!(daemon.ok(&["exec", "counts", "echo", "well"]), "well\n");
    let log = daemon.log();
    let told = log
        .lines()
        .filter(|line| line.contains("a monitor of another release") && line.contains(OTHER_RELEASE));
    assert_eq!(told.count(), 2, "{log}");
    daemon.ok(&["exec", "leaves", "touch", "/end"]);
    let gone = retry(|| {
        (!daemon
            .ok(&["ps", "-aq", "--filter", "name=leaves"])
            .contains(char::is_alphanumeric))
        .then_some(())
    });
    assert!(gone.is_some(), "auto-remove goes on");
    daemon.ok(&["restart", "-t", "0", "counts"]);
    daemon.ok(&["stop", "-t", "0", "counts"]);
    // Every line, once and in order, over both daemons and both runs.
    let lines: Vec<u64> = daemon
        .ok(&["logs", "counts"])
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    let second = lines.iter().skip(1).position(|line| *line == 0).unwrap() + 1;
    for run in [&lines[..second], &lines[second..]] {
        assert!(
            run.iter().enumerate().all(|(at, line)| at as u64 == *line),
            "{run:?}"
        );
    }
    assert_eq!(daemon.ok(&["system", "check"]), "Nothing is wrong.\n");
}
