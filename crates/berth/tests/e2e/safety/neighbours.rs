//! Containers against each other and against the engine's processes.

use super::{PERL, has_perl, inside, pid_of};
use crate::support::{Daemon, retry};

#[cfg(target_arch = "x86_64")]
const ADD_KEY: u32 = 248;
#[cfg(target_arch = "aarch64")]
const ADD_KEY: u32 = 217;
const KEYCTL: u32 = ADD_KEY + 2;

/// Without a session keyring of its own each container uses the daemon's, and reads what another one put there:
/// the second container then prints `hidden`.
#[test]
fn a_key_of_one_container_is_not_anothers() {
    guard!();
    if !has_perl() {
        return;
    }
    let daemon = Daemon::start();
    let free = [&PERL[..], &["--security-opt", "seccomp=unconfined"]].concat();
    let read = |key: &str| {
        format!(
            "$b = \"\\0\" x 64; $n = syscall({KEYCTL}, 11, {key} + 0, $b, 64); print $n > 0 ? substr($b, 0, $n) : 0 + $!, \"\\n\""
        )
    };
    let keep = format!(
        "$| = 1; ($t, $d, $p) = (\"user\", \"berth\", \"hidden\"); $k = syscall({ADD_KEY}, $t, $d, $p, 6, -3); print \"$k\\n\"; {}; sleep 1000",
        read("$k")
    );
    let args = [
        &["run", "-d", "--name", "keeper"],
        &free[..],
        &["box:1", "perl", "-e", &keep],
    ]
    .concat();
    daemon.ok(&args);
    let log = retry(|| Some(daemon.ok(&["logs", "keeper"])).filter(|log| log.lines().count() == 2)).unwrap();
    let (key, own) = log.trim().split_once('\n').unwrap();
    assert_eq!(own, "hidden", "its own key it can read");
    let text = inside(&daemon, &free, &format!("perl -e '{}'", read(key)));
    assert_eq!(text, "13\n", "EACCES");
    // By default the calls themselves are refused.
    assert_eq!(
        inside(&daemon, &PERL, &format!("perl -e '{}'", read(key))),
        "1\n",
        "EPERM"
    );
}

/// Message queues and shared memory have numbers, not paths. In a shared IPC namespace the second container prints
/// what an exec in the first one finds.
#[test]
fn system_v_objects_stay_with_their_container() {
    guard!();
    if !has_perl() {
        return;
    }
    let daemon = Daemon::start();
    let make = "defined msgget(0x5157, 01666) or die $!; defined shmget(0x5158, 4096, 01666) or die $!; $| = 1; print \"made\\n\"; sleep 1000";
    daemon.ok(&[
        &["run", "-d", "--name", "keeper", "--ipc", "shareable"],
        &PERL[..],
        &["box:1", "perl", "-e", make],
    ]
    .concat());
    retry(|| Some(daemon.ok(&["logs", "keeper"])).filter(|log| log == "made\n")).unwrap();
    let look = "perl -e 'print defined msgget(0x5157, 0) ? \"queue\" : 0 + $!, \" \", defined shmget(0x5158, 0, 0) ? \"memory\" : 0 + $!, \"\\n\"'";
    assert_eq!(inside(&daemon, &PERL, look), "2 2\n", "ENOENT");
    assert_eq!(daemon.ok(&["exec", "keeper", "sh", "-c", look]), "queue memory\n");
}

/// A pid namespace of its own shows nobody else. With the host's (`--pid host`) everything is seen, but what would
/// lead out of the container (`root`, `cwd`, descriptors, memory) is not to be had without CAP_SYS_PTRACE: an
/// engine that leaves that right prints ESCAPED.
#[test]
fn processes_of_others_cannot_be_signalled_traced_or_entered() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "other", "box:1", "sleep", "1000"]);
    let other = pid_of(&daemon, "other");
    let text = inside(
        &daemon,
        &[],
        &format!("busybox kill -0 {other} && echo REACHED; ls -d /proc/[0-9]*"),
    );
    assert!(!text.contains("REACHED"), "{text}");
    assert_eq!(text.matches("/proc/").count(), 1, "only the shell: {text}");

    let flag = daemon.dir.path().join("flag");
    std::fs::write(&flag, "").unwrap();
    let script = format!(
        "p=/proc/{0}; [ -d $p ] && echo seen; [ -e $p/root{1} ] && echo ESCAPED; [ -e $p/cwd/ ] && echo ESCAPED; \
         for f in $p/fd/*; do [ -e $f ] && echo ESCAPED; done; cat $p/environ | busybox grep . && echo ESCAPED; \
         ( : < $p/mem ) 2>/dev/null && echo ESCAPED",
        daemon.child.id(),
        flag.display()
    );
    let text = inside(&daemon, &["--pid", "host"], &script);
    assert!(text.contains("seen") && !text.contains("ESCAPED"), "{text}");
    // The same look with the right to trace does lead out: what is tested is the right, not the script.
    let text = inside(
        &daemon,
        &[
            "--pid",
            "host",
            "--cap-add",
            "SYS_PTRACE",
            "--cap-add",
            "SYS_ADMIN",
            "--privileged",
        ],
        &script,
    );
    assert!(text.contains("ESCAPED"), "{text}");
}

/// A process that the engine brings into a shared pid namespace still stands in the host's mounts for a moment.
/// A container that looks for it there finds `root` with the host's file, if the process can be looked into.
#[test]
fn starting_in_a_shared_pid_namespace_shows_nothing_of_the_host() {
    guard!();
    let daemon = Daemon::start();
    let flag = daemon.dir.path().join("flag");
    std::fs::write(&flag, "").unwrap();
    let script = format!(
        "while :; do for p in /proc/[0-9]*; do for w in root cwd; do [ -e $p/$w{} ] && echo ESCAPED; done; done; done 2>/dev/null",
        flag.display()
    );
    daemon.ok(&["run", "-d", "--name", "watcher", "box:1", "sh", "-c", &script]);
    for _ in 0..20 {
        daemon.ok(&["run", "--rm", "--pid", "container:watcher", "box:1", "true"]);
        daemon.ok(&["exec", "watcher", "true"]);
    }
    assert_eq!(daemon.ok(&["logs", "watcher"]), "");
}
