//! What the engine tells about a container's isolation, and about a stop that nobody hears.

use super::pid_of;
use crate::support::{Daemon, text};

/// The report is what the kernel says, not what was asked: it is held against /proc here, and a container that is
/// changed behind the engine's back shows it.
#[test]
fn the_isolation_report_is_what_the_process_has() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "first", "box:1", "sleep", "1000"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "second",
        "--network",
        "container:first",
        "--uts",
        "host",
        "--memory",
        "64m",
        "--pids-limit",
        "77",
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CHOWN",
        "--security-opt",
        "no-new-privileges",
        "-v",
        "data:/data",
        "--tmpfs",
        "/scratch",
        "--device",
        "/dev/zero:/dev/extra:r",
        "--device-cgroup-rule",
        "c 42:7 rw",
        "box:1",
        "sh",
        "-c",
        "exec 7>/tmp/mine; sleep 1000; true",
    ]);
    let get = |template: &str| {
        daemon
            .ok(&["inspect", "--isolation", "--format", template, "second"])
            .trim()
            .to_owned()
    };
    let pid = pid_of(&daemon, "second");
    assert_eq!(get("{{.Pid}}"), pid);
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"] {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        let inode = link
            .to_str()
            .unwrap()
            .split(['[', ']'])
            .nth(1)
            .unwrap()
            .to_owned();
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let shared = if kind == "net" { "[first]" } else { "[]" };
        // The user namespace is the host's, and so is that of the other container.
        let shared = if kind == "user" || kind == "uts" {
            None
        } else {
            Some(shared)
        };
        let told = get(&format!(
            "{{{{range .Namespaces}}}}{{{{if eq .Type \"{kind}\"}}}}{{{{.Inode}}}} {{{{.Host}}}} {{{{.SharedWith}}}}{{{{end}}}}{{{{end}}}}"
        ));
        assert!(
            told.starts_with(&format!("{inode} {}", own == link)),
            "{kind}: {told}"
        );
        assert!(
            shared.is_none_or(|shared| told.ends_with(shared)),
            "{kind}: {told}"
        );
    }
    assert_eq!(
        get("{{.Capabilities.Bounding}} {{.Capabilities.Effective}} {{.Capabilities.Inheritable}}"),
        "[CAP_CHOWN] [CAP_CHOWN] []"
    );
    assert_eq!(
        get("{{.NoNewPrivileges.Asked}} {{.NoNewPrivileges.Actual}}"),
        "true true"
    );
    assert_eq!(
        get("{{.Seccomp.Asked}} {{.Seccomp.Mode}} {{.Seccomp.DefaultAction}}"),
        "builtin filter SCMP_ACT_ERRNO"
    );
    let limit = |name: &str| {
        get(&format!(
            "{{{{range .Cgroup.Limits}}}}{{{{if eq .Name \"{name}\"}}}}{{{{.Asked}}}} {{{{.Actual}}}}{{{{end}}}}{{{{end}}}}"
        ))
    };
    assert_eq!(
        (limit("memory").as_str(), limit("processes").as_str()),
        ("67108864 67108864", "77 77")
    );
    let mounts = get("{{range .Mounts}}{{.Destination}}={{.Origin}},{{.ReadOnly}} {{end}}");
    for mount in [
        "/=image,false",
        "/data=volume data,false",
        "/scratch=tmpfs,false",
        "/etc/hosts=engine,false",
        "/proc/keys=mask,",
        "/proc/sys=read-only,true",
    ] {
        assert!(mounts.contains(mount), "{mount} not in {mounts}");
    }
    assert_eq!(get("{{.Devices.Nodes}}"), "[/dev/extra]");
    let rules = get("{{range .Devices.Asked}}{{.}},{{end}}");
    assert!(
        rules.contains("allow c 1:5 r,") && rules.contains("allow c 42:7 rw,"),
        "{rules}"
    );
    // What the kernel says it lets through, where it says so: a rule that somebody adds is told, too.
    let group = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of = |controller: &str| {
        let with = format!(":{controller}:");
        let path = group
            .lines()
            .find_map(|line| line.split_once(&with))
            .map(|(_, path)| path.to_owned());
        path.map(|path| format!("/sys/fs/cgroup/{controller}{path}"))
    };
    if let Some(devices) = of("devices") {
        std::fs::write(format!("{devices}/devices.allow"), "c 43:8 r").unwrap();
        let allowed = get("{{range .Devices.Allowed}}{{.}},{{end}}");
        assert!(
            allowed.contains("c 42:7 rw,") && allowed.contains("c 43:8 r,") && !allowed.contains("a *:* rwm"),
            "{allowed}"
        );
    }
    let descriptors = get("{{range .Descriptors}}{{.Number}}:{{.Target}} {{end}}");
    assert!(
        descriptors.contains("0:/dev/null") && descriptors.contains("7:/tmp/mine"),
        "{descriptors}"
    );
    assert!(
        descriptors.split(' ').filter(|entry| !entry.is_empty()).count() <= 4,
        "{descriptors}"
    );

    // For people: the same, and what stands where.
    let table = daemon.ok(&["inspect", "--isolation", "second"]);
    for line in ["NAMESPACE", "RIGHT", "LIMIT", "MOUNT", "DEVICES", "DESCRIPTOR"] {
        assert!(
            table.lines().any(|l| l.starts_with(line)),
            "{line} not in {table}"
        );
    }
    let uts = table.lines().find(|line| line.starts_with("uts ")).unwrap();
    assert_eq!(
        uts.split_whitespace().skip(2).collect::<Vec<_>>()[..3],
        ["host", "host", "host"]
    );
    // A limit that somebody else changed is told as it is.
    if let Some(pids) = of("pids") {
        std::fs::write(format!("{pids}/pids.max"), "55").unwrap();
        assert_eq!(limit("processes"), "77 55");
    }
    daemon.ok(&["rm", "-f", "second"]);
    let (_, error) = daemon.fails(&["inspect", "--isolation", "second"]);
    assert!(
        error.contains("no such object") || error.contains("No such container"),
        "{error}"
    );
    daemon.ok(&["stop", "-t", "0", "first"]);
    let (_, error) = daemon.fails(&["inspect", "--isolation", "first"]);
    assert!(error.contains("is not running"), "{error}");
}

/// Process 1 gets no signal it has no handler for. An engine that says nothing leaves people to guess why a stop
/// takes its whole time.
#[test]
fn a_stop_that_nobody_hears_is_told() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "deaf", "box:1", "sleep", "1000"]);
    daemon.ok(&["run", "-d", "--name", "init", "--init", "box:1", "sleep", "1000"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "hears",
        "box:1",
        "sh",
        "-c",
        "trap 'exit 3' TERM; touch /ready; while :; do sleep 0.1; done",
    ]);
    while !daemon.run(&["exec", "hears", "ls", "/ready"]).status.success() {}
    let stop = |name: &str| {
        let output = daemon.run(&["stop", "-t", "1", name]);
        assert_eq!(text(&output.stdout).trim(), name);
        let code = daemon
            .ok(&["inspect", "-f", "{{.State.ExitCode}}", name])
            .trim()
            .to_owned();
        (text(&output.stderr), code)
    };
    let (warning, code) = stop("deaf");
    assert!(
        warning.starts_with("WARNING: process 1 of container deaf has no handler for SIGTERM"),
        "{warning}"
    );
    assert_eq!(code, "137");
    assert_eq!(stop("hears"), (String::new(), "3".to_owned()));
    assert_eq!(
        stop("init"),
        (String::new(), "143".to_owned()),
        "the init passes it on"
    );
    assert!(
        daemon.log().contains("no handler for SIGTERM"),
        "the daemon's log has it too"
    );
}

/// The init reaps what is left to process 1: without one, these children stay as zombies.
#[test]
fn an_init_reaps_orphans() {
    guard!();
    let daemon = Daemon::start();
    let orphans = "for i in 1 2 3; do ( sh -c 'exit 0' & ) ; done; busybox sleep 0.3; busybox ps -o stat,comm | busybox grep -c ^Z";
    // The orphans of a program that does not wait for them; their parent, the subshell, has ended.
    assert_eq!(super::inside(&daemon, &["--init"], orphans), "0\n");
    // The same with a process 1 that never waits: the shell is replaced by a sleep.
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "careless",
        "box:1",
        "sh",
        "-c",
        "( sh -c 'busybox sleep 0.1' & ); exec sleep 1000",
    ]);
    let zombies = || {
        daemon.ok(&[
            "exec",
            "careless",
            "sh",
            "-c",
            "busybox ps -o stat,comm | busybox grep -c ^Z; true",
        ])
    };
    assert_eq!(
        crate::support::retry(|| Some(zombies()).filter(|count| count == "1\n")),
        Some("1\n".to_owned())
    );
}
