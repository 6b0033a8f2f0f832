//! `--userns auto`: ids of its own for each container.

use std::os::unix::fs::MetadataExt as _;

use super::{daemon, first_range, host_user, pid_of, refusal, run, subordinate, words};
use crate::support::Daemon;

fn start(daemon: &Daemon, name: &str, flags: &[&str]) {
    daemon.ok(&[&["run", "-d", "--name", name], flags, &["box:1", "sleep", "1000"]].concat());
}

#[test]
fn no_two_containers_have_an_id_in_common() {
    guard!();
    let ids = subordinate("containers:500000:2500\n");
    let mut daemon = daemon(&ids, &[]);
    for name in ["one", "two"] {
        start(&daemon, name, &["--userns", "auto:size=1000"]);
    }
    let ranges = ["one", "two"].map(|name| first_range(&daemon, name));
    assert_eq!(ranges, [(500_000, 1000), (501_000, 1000)]);
    assert_eq!(host_user(&pid_of(&daemon, "two")), 501_000);
    // Others are as they always were.
    let plain = run(&daemon, &[], "cat /proc/self/uid_map");
    assert_eq!(words(&plain), ["0", "0", "4294967295"]);

    // It keeps them when it is stopped, and when the daemon dies.
    daemon.ok(&["kill", "one"]);
    daemon.crash_and_restart();
    let refused = refusal(
        &daemon,
        &["run", "--rm", "--userns", "auto:size=1000", "box:1", "true"],
    );
    assert!(
        refused.contains("exhausted") && refused.contains("has 500") && refused.contains("containers"),
        "{refused}"
    );
    start(&daemon, "three", &["--userns", "auto:size=500"]);
    assert_eq!(first_range(&daemon, "three"), (502_000, 500));
    daemon.ok(&["start", "one"]);
    assert_eq!(first_range(&daemon, "one"), (500_000, 1000));
    assert_eq!(first_range(&daemon, "two"), (501_000, 1000));

    // They come back with its removal, also of one that removes itself, and of one that was never made.
    daemon.ok(&["rm", "-f", "one"]);
    for _ in 0..3 {
        let map = run(&daemon, &["--userns", "auto:size=1000"], "cat /proc/self/uid_map");
        assert_eq!(words(&map), ["0", "500000", "1000"]);
    }
    refusal(
        &daemon,
        &[
            "run",
            "--userns",
            "auto:size=1000",
            "-w",
            "relative",
            "box:1",
            "true",
        ],
    );
    start(&daemon, "four", &["--userns", "auto:size=1000"]);
    assert_eq!(first_range(&daemon, "four"), (500_000, 1000));

    let report = |template: &str| daemon.ok(&["inspect", "--isolation", "--format", template, "two"]);
    let text = report("{{json .User.UIDMap}}{{json .User.GIDMap}}");
    let map = r#"[{"Inside":0,"Outside":501000,"Count":1000}]"#;
    assert_eq!(text.trim(), format!("{map}{map}"));
    let asked = report("{{range .Namespaces}}{{if eq .Type \"user\"}}{{.Asked}} {{.Host}}{{end}}{{end}}");
    assert_eq!(asked.trim(), "true false");
}

/// Ids that were a container's own do not become everybody's.
#[test]
fn a_daemon_that_maps_the_ids_of_a_container_does_not_start_it() {
    guard!();
    let ids = subordinate("containers:500000:65536\n");
    let mut daemon = daemon(&ids, &[]);
    daemon.ok(&[
        "create",
        "--name",
        "own",
        "--userns",
        "auto:size=10",
        "box:1",
        "true",
    ]);
    for name in ["subuid", "subgid"] {
        std::fs::write(ids.path().join(name), "dockremap:500000:65536\n").unwrap();
    }
    daemon
        .args
        .extend(["--userns-remap".to_owned(), "default".to_owned()]);
    daemon.crash_and_restart();
    let refused = refusal(&daemon, &["start", "own"]);
    assert!(refused.contains("--userns-remap"), "{refused}");
    // Others are mapped from their next start on, whenever they were made.
    let map = run(&daemon, &[], "cat /proc/self/uid_map");
    assert_eq!(words(&map), ["0", "500000", "65536"]);
}

#[test]
fn a_pool_must_be_there() {
    guard!();
    let ids = subordinate("somebody:500000:1000\n");
    let daemon = daemon(&ids, &[]);
    let refused = refusal(&daemon, &["run", "--rm", "--userns", "auto", "box:1", "true"]);
    assert!(
        refused.contains("containers:501000:65536") && refused.contains("--userns-pool"),
        "{refused}"
    );
    // The files are read when they are needed.
    for name in ["subuid", "subgid"] {
        std::fs::write(ids.path().join(name), "containers:600000:65536\n").unwrap();
    }
    run(&daemon, &["--userns", "auto"], "true");
    for wrong in ["auto:size=1", "auto:size=x", "nonsense"] {
        let refused = refusal(&daemon, &["create", "--userns", wrong, "box:1"]);
        assert!(
            refused.contains("invalid userns mode") || refused.contains("invalid USER mode"),
            "{refused}"
        );
    }
}

/// The same files under both: nothing is copied, and nothing on disk changes.
#[test]
fn differently_mapped_containers_share_their_layers() {
    guard!();
    let ids = subordinate("containers:500000:131072\n");
    let daemon = daemon(&ids, &[]);
    let layer = find(&daemon.dir.path().join("root/snapshots"), "bin/busybox").expect("the image's layer");
    let before = std::fs::metadata(&layer).unwrap();
    let mut inodes = Vec::new();
    for (name, flags) in [
        ("one", &["--userns", "auto"][..]),
        ("two", &["--userns", "auto"]),
        ("three", &[]),
    ] {
        start(&daemon, name, flags);
        let stat = daemon.ok(&["exec", name, "busybox", "stat", "-c", "%i %u", "/bin/busybox"]);
        inodes.push(stat.trim().to_owned());
    }
    let expected = format!("{} 0", before.ino());
    assert_eq!(inodes, [expected.clone(), expected.clone(), expected]);
    // The root of one copies a file up; the other, and the layer, keep theirs.
    daemon.ok(&["exec", "one", "busybox", "chown", "33", "/bin/busybox"]);
    let owner = |name: &str| daemon.ok(&["exec", name, "busybox", "stat", "-c", "%u", "/bin/busybox"]);
    assert_eq!((owner("one").trim(), owner("two").trim()), ("33", "0"));
    let after = std::fs::metadata(&layer).unwrap();
    assert_eq!(
        (after.ino(), after.uid(), after.gid(), after.ctime_nsec()),
        (before.ino(), before.uid(), before.gid(), before.ctime_nsec())
    );
}

fn find(snapshots: &std::path::Path, file: &str) -> Option<std::path::PathBuf> {
    let mut entries = std::fs::read_dir(snapshots).ok()?.flatten();
    entries.find_map(|entry| {
        let path = entry.path().join("fs").join(file);
        path.exists().then_some(path)
    })
}

/// Without ids of their own two containers are one user to the kernel: what is refused here to a process that gets
/// out of the first one's other namespaces is then allowed, as it is here towards its own container.
#[test]
fn a_process_of_one_cannot_signal_trace_or_read_another() {
    guard!();
    let ids = subordinate("containers:500000:131072\n");
    let daemon = daemon(&ids, &[]);
    for name in ["one", "two"] {
        start(&daemon, name, &["--userns", "auto"]);
    }
    let (own, foreign) = (pid_of(&daemon, "one"), pid_of(&daemon, "two"));
    let user = first_range(&daemon, "one").0.to_string();
    // It has all that is the first container's root outside of it, and sees every process of the host.
    let escaped = |pid: &str| {
        let script = format!(
            "busybox kill -0 {pid} 2>/dev/null && echo signalled; cat /proc/{pid}/environ 2>/dev/null | busybox grep -q PATH && echo read; true"
        );
        run(
            &daemon,
            &["--userns", "host", "--pid", "host", "-u", &user],
            &script,
        )
    };
    assert_eq!(escaped(&foreign), "");
    assert_eq!(words(&escaped(&own))[0], "signalled");
    // Nor can it open what the other one has written.
    daemon.ok(&[
        "exec",
        "two",
        "sh",
        "-c",
        "echo secret > /dev/shm/s; busybox chmod 600 /dev/shm/s",
    ]);
    let path = format!("/proc/{foreign}/root/dev/shm/s");
    let read = run(
        &daemon,
        &["--userns", "host", "--pid", "host", "-u", &user],
        &format!("cat {path} 2>&1; true"),
    );
    assert!(read.contains("Permission denied"), "{read}");
}

/// A container's root has its rights over what belongs to its namespace and over nothing else.
#[test]
fn root_inside_is_nobody_outside() {
    guard!();
    let ids = subordinate("containers:500000:65536\n");
    let daemon = daemon(&ids, &[]);
    let secret = daemon.dir.path().join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("file"), "secret").unwrap();
    std::process::Command::new("chmod")
        .args(["-R", "go=", &secret.display().to_string()])
        .status()
        .unwrap();
    let bind = format!("{}:/secret", secret.display());
    let script = "cat /secret/file 2>/dev/null && echo ESCAPED; busybox chown 0 /secret 2>/dev/null && echo ESCAPED; \
                  echo 1 > /proc/sys/kernel/panic && echo ESCAPED; busybox mount -t tmpfs none /tmp && echo mounted; \
                  id -u";
    let script = format!("exec 2>/dev/null; {script}");
    let flags = |more: &[&'static str]| -> Vec<String> {
        let all = [&["-v", bind.as_str()][..], more].concat();
        all.iter().map(|flag| (*flag).to_owned()).collect()
    };
    // Every right there is, without the filter: they hold inside only.
    let all = flags(&[
        "--userns",
        "auto",
        "--cap-add",
        "ALL",
        "--security-opt",
        "seccomp=unconfined",
    ]);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(words(&run(&daemon, &all, &script)), ["mounted", "0"]);
    // The same script does get there as the host's root: what holds it is the namespace.
    let own = flags(&[]);
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    assert!(run(&daemon, &own, &script).contains("ESCAPED"));
}
