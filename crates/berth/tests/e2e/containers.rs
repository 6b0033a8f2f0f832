//! What a container is from inside, and what it tells outside.

use crate::support::{Daemon, text};

#[test]
fn a_container_is_isolated_and_its_exit_code_is_told() {
    guard!();
    let daemon = Daemon::start();
    let inside = daemon.ok(&[
        "run",
        "--rm",
        "--hostname",
        "inside",
        "box:1",
        "sh",
        "-c",
        "hostname; echo $$; id -u; ls /proc/1/ns",
    ]);
    let mut lines = inside.lines();
    assert_eq!(
        (lines.next(), lines.next(), lines.next()),
        (Some("inside"), Some("1"), Some("0")),
        "{inside}"
    );
    for code in [0, 1, 42] {
        let output = daemon.run(&["run", "--rm", "box:1", "sh", "-c", &format!("exit {code}")]);
        assert_eq!(output.status.code(), Some(code));
    }
    assert_eq!(
        daemon
            .ok(&["run", "--rm", "-u", "web", "box:1", "id", "-u"])
            .trim(),
        "33"
    );
    // The host never sees the root filesystem mounted.
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(daemon.dir.path().to_str().unwrap()), "{mounts}");
    assert_eq!(daemon.ok(&["ps", "-aq"]), "", "--rm leaves nothing");
}

#[test]
fn an_exec_that_ends_at_once_is_still_told() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "web", "box:1", "sleep", "1000"]);
    // Two at a time, so that one ends while the monitor is busy starting the other.
    std::thread::scope(|scope| {
        for code in ["0", "3"] {
            let daemon = &daemon;
            scope.spawn(move || {
                for _ in 0..25 {
                    let output = daemon.run(&["exec", "web", "sh", "-c", &format!("exit {code}")]);
                    assert_eq!(
                        output.status.code(),
                        code.parse().ok(),
                        "{}",
                        text(&output.stderr)
                    );
                }
            });
        }
    });
}

/// Shared memory is a mount of the first container's, which the second one shows, too.
#[test]
fn containers_of_one_ipc_namespace_share_their_memory() {
    guard!();
    let daemon = Daemon::start();
    let make = "echo from the first > /dev/shm/note; exec sleep 1000";
    daemon.keep("first", &["--ipc", "shareable"], &["sh", "-c", make]);
    let read = [
        "run",
        "--rm",
        "--ipc",
        "container:first",
        "box:1",
        "sh",
        "-c",
        "while [ ! -e /dev/shm/note ]; do busybox usleep 10000; done; cat /dev/shm/note; echo from the second > /dev/shm/answer",
    ];
    assert_eq!(daemon.ok(&read), "from the first\n");
    assert_eq!(
        daemon.ok(&["exec", "first", "cat", "/dev/shm/answer"]),
        "from the second\n"
    );
}

/// Whatever way an exec ends, its monitor reaps it: nothing of it stays in a container whose first process waits for nobody.
#[test]
fn execs_leave_no_zombie() {
    guard!();
    let daemon = Daemon::start();
    for (name, init) in [("bare", &[][..]), ("served", &["--init"])] {
        daemon.ok(&[&["run", "-d", "--name", name], init, &["box:1", "sleep", "1000"]].concat());
        let zombies = || {
            let script = "busybox ps -o stat,comm | busybox grep -c ^Z; true";
            daemon.ok(&["exec", name, "sh", "-c", script])
        };
        daemon.ok(&["exec", name, "true"]);
        assert_eq!(daemon.fails(&["exec", name, "sh", "-c", "exit 3"]).0, 3);
        assert_eq!(daemon.fails(&["exec", name, "sh", "-c", "kill -9 $$"]).0, 137);
        daemon.ok(&["exec", "-t", name, "true"]);
        daemon.ok(&["exec", "-d", name, "true"]);
        // One whose client is gone before its end.
        let mut left = std::process::Command::new(crate::support::BERTH)
            .args(["exec", name, "sh", "-c", "touch /begun; exec busybox sleep 1"])
            .env("DOCKER_HOST", daemon.socket())
            .spawn()
            .unwrap();
        let begun = || daemon.run(&["exec", name, "ls", "/begun"]).status.success();
        assert!(crate::support::retry(|| begun().then_some(())).is_some());
        left.kill().unwrap();
        left.wait().unwrap();
        let alone = || daemon.ok(&["exec", name, "sh", "-c", "busybox ps | busybox grep -c [s]leep"]);
        // The first process, which an init has as its child and names itself.
        let wanted = if init.is_empty() { "1\n" } else { "2\n" };
        let ended = crate::support::retry(|| (alone() == wanted).then_some(()));
        assert!(ended.is_some(), "{name}: {}", alone());
        let none = crate::support::retry(|| (zombies() == "0\n").then_some(()));
        assert!(none.is_some(), "{name}: {}", zombies());
    }
}
