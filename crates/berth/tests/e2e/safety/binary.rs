//! The engine's own program, and its descriptors.

use std::fs;

use super::{inside, pid_of};
use crate::support::{BERTH, Daemon, text};

const EROFS: i32 = 30;

/// One file is all of it: where there is nothing else, no library and no loader, it runs.
#[test]
fn the_program_needs_no_other_file() {
    guard!();
    let root = tempfile::tempdir().unwrap();
    fs::copy(BERTH, root.path().join("berth")).unwrap();
    let output = std::process::Command::new("chroot")
        .arg(root.path())
        .args(["/berth", "--version"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

/// CVE-2019-5736. Whoever gets hold of `/proc/N/exe` of a process that the engine brings into a container can wait
/// until it is no longer busy and overwrite the engine. With monitors started from the plain file this prints
/// ETXTBSY (26), which is only the busy file's refusal; sealed, nobody can ever write through it.
#[test]
fn the_engines_program_cannot_be_written_through() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--init", "--name", "one", "box:1", "sleep", "1000"]);
    let init = pid_of(&daemon, "one");
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let monitor = status
        .lines()
        .find_map(|line| line.strip_prefix("PPid:"))
        .unwrap()
        .trim();
    // With O_TRUNC the kernel asks for the mount before it looks whether the file is busy, which it is here.
    for pid in [init.as_str(), monitor] {
        let error = fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(format!("/proc/{pid}/exe"))
            .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EROFS), "process {pid}: {error}");
    }
    let script = "( : > /sbin/docker-init ); ( echo x > /proc/1/exe ); busybox mount -o remount,rw /sbin/docker-init; ( : > /sbin/docker-init )";
    let output = daemon.run(&["exec", "one", "sh", "-c", script]);
    let text = text(&output.stderr);
    assert_eq!(text.matches("Read-only file system").count(), 3, "{text}");
}

/// CVE-2024-21626. An engine that leaks a directory of the host starts the program there: it prints host files.
#[test]
fn a_working_directory_is_never_a_descriptor() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sleep", "1000"]);
    for number in 0..16 {
        let dir = format!("/proc/self/fd/{number}");
        for flags in [
            &["run", "--rm", "-w", &dir, "box:1"][..],
            &["exec", "-w", &dir, "one"],
        ] {
            let output = daemon.run(&[flags, &["ls"]].concat());
            assert!(!output.status.success(), "{flags:?}: {}", text(&output.stdout));
        }
    }
    let fds = inside(&daemon, &[], "for f in /proc/self/fd/*; do echo ${f##*/}; done");
    let numbers: Vec<&str> = fds.lines().collect();
    // The last one is the shell's own look at the directory.
    assert!(
        numbers.len() <= 4 && numbers.starts_with(&["0", "1", "2"]),
        "{fds}"
    );
}
