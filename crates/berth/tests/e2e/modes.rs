//! Which namespaces a container has for itself, shares with the host, or has from another, by every flag for it; and what
//! is told of memory that ran out.

use crate::support::{Daemon, text};

/// The namespaces of what runs `flags`, by kind.
fn namespaces(daemon: &Daemon, flags: &[&str]) -> Vec<(String, String)> {
    let script =
        "for kind in cgroup ipc mnt net pid time user uts; do busybox readlink /proc/self/ns/$kind; done";
    let mut args = vec!["run", "--rm"];
    args.extend_from_slice(flags);
    args.extend(["box:1", "sh", "-c", script]);
    of(&daemon.ok(&args))
}

fn of(lines: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        line.split_once(':')
            .map(|(kind, number)| (kind.to_owned(), number.to_owned()))
    };
    lines.lines().filter_map(pair).collect()
}

fn hosts() -> Vec<(String, String)> {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let links = kinds.map(|kind| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap());
    let lines: Vec<String> = links.iter().map(|link| link.display().to_string()).collect();
    of(&lines.join("\n"))
}

/// The kinds that two have in common.
fn common(one: &[(String, String)], other: &[(String, String)]) -> Vec<String> {
    let both = one.iter().filter(|pair| other.contains(pair));
    both.map(|(kind, _)| kind.clone()).collect()
}

#[test]
fn each_mode_shares_what_it_says_and_nothing_else() {
    guard!();
    let daemon = Daemon::start();
    let host = hosts();
    let of_host = |flags: &[&str]| common(&namespaces(&daemon, flags), &host);
    // Clocks and users are the host's unless asked for otherwise.
    assert_eq!(of_host(&[]), ["time", "user"]);
    for (flags, kind) in [
        (["--cgroupns", "host"], "cgroup"),
        (["--ipc", "host"], "ipc"),
        (["--network", "host"], "net"),
        (["--pid", "host"], "pid"),
        (["--uts", "host"], "uts"),
    ] {
        let mut expected = vec![kind, "time", "user"];
        expected.sort_unstable();
        assert_eq!(of_host(&flags), expected, "{flags:?}");
    }
    for flags in [["--cgroupns", "private"], ["--ipc", "private"], ["--ipc", "none"]] {
        assert_eq!(of_host(&flags), ["time", "user"], "{flags:?}");
    }
    assert_eq!(of_host(&["--time-offset", "1h"]), ["user"]);
    // In a network of its own everybody may bind low ports and send pings, and in the host's what the host allows.
    let settings = |network: &str| {
        let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range";
        let text = daemon.ok(&["run", "--rm", "--network", network, "box:1", "sh", "-c", script]);
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(settings("none"), "0 0 2147483647");
    assert_eq!(settings("bridge"), "0 0 2147483647");
    let of_the_host = ["ip_unprivileged_port_start", "ping_group_range"]
        .map(|name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap());
    let of_the_host: Vec<&str> = of_the_host
        .iter()
        .flat_map(|text| text.split_whitespace())
        .collect();
    assert_eq!(settings("host"), of_the_host.join(" "));
    daemon.keep("first", &["--ipc", "shareable"], &["sleep", "1000"]);
    let script =
        "for kind in cgroup ipc mnt net pid time user uts; do busybox readlink /proc/self/ns/$kind; done";
    let first = of(&daemon.ok(&["exec", "first", "sh", "-c", script]));
    for (flags, kind) in [
        (["--ipc", "container:first"], "ipc"),
        (["--network", "container:first"], "net"),
        (["--pid", "container:first"], "pid"),
    ] {
        let mut expected = vec![kind, "time", "user"];
        expected.sort_unstable();
        assert_eq!(
            common(&namespaces(&daemon, &flags), &first),
            expected,
            "{flags:?}"
        );
    }
    let all = [
        "--ipc",
        "container:first",
        "--network",
        "container:first",
        "--pid",
        "container:first",
    ];
    assert_eq!(
        common(&namespaces(&daemon, &all), &first),
        ["ipc", "net", "pid", "time", "user"]
    );
}

#[test]
fn shared_memory_is_as_the_mode_says() {
    guard!();
    let daemon = Daemon::start();
    let mounted = |mode: &str| {
        let script = "grep -c ' /dev/shm ' /proc/self/mountinfo";
        let output = daemon.run(&[
            "run", "--rm", "--ipc", mode, "box:1", "busybox", "sh", "-c", script,
        ]);
        text(&output.stdout).trim().to_owned()
    };
    assert_eq!(mounted("none"), "0");
    assert_eq!(mounted("private"), "1");
    // One that did not agree is not shared.
    daemon.ok(&[
        "run", "-d", "--name", "own", "--ipc", "private", "box:1", "sleep", "1000",
    ]);
    let (code, error) = daemon.fails(&["run", "--rm", "--ipc", "container:own", "box:1", "true"]);
    assert!(
        code == 125
            && error.contains("non-shareable IPC (hint: use IpcMode:shareable for the donor container)"),
        "{error}"
    );
    assert_eq!(daemon.ok(&["ps", "-aq"]).lines().count(), 1);
}

#[test]
fn memory_that_ran_out_is_an_event_and_the_peak_is_told_at_the_end() {
    guard!();
    let daemon = Daemon::start();
    daemon.run_hungry("eats");
    let oom = daemon.told(&["event=oom", "container=eats"], "{{.Action}}");
    assert!(!oom.is_empty() && oom.lines().all(|line| line == "oom"), "{oom}");
    let peak = daemon.told(
        &["event=die", "container=eats"],
        "{{.Actor.Attributes.peakMemory}}",
    );
    let peak: u64 = peak.trim().parse().unwrap_or_else(|_| panic!("{peak:?}"));
    assert!((8 << 20..=17 << 20).contains(&peak), "{peak}");
}
