//! Capabilities, groups, filters and devices as the engine hands them out.

use super::inside;
use crate::support::{Daemon, retry};

/// The value of a line of /proc/self/status.
fn field<'t>(status: &'t str, name: &str) -> &'t str {
    status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .map_or("", |value| value.trim_start_matches(':').trim())
}

const STATUS: &str = "cat /proc/self/status";

/// CVE-2022-29162 and its like: an engine that fills the inheritable set gives every file with inheritable bits
/// what the process has. The set is empty however a process gets into a container.
#[test]
fn nothing_is_inheritable_however_a_process_comes_in() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--health-cmd",
        "cat /proc/self/status > /status",
        "--health-interval",
        "1s",
        "box:1",
        "sleep",
        "1000",
    ]);
    let exec = |flags: &[&str]| daemon.ok(&[&["exec"], flags, &["one", "sh", "-c", STATUS]].concat());
    let health = retry(|| {
        Some(exec(&[])).and_then(|_| {
            let output = daemon.run(&["exec", "one", "cat", "/status"]);
            output
                .status
                .success()
                .then(|| crate::support::text(&output.stdout))
                .filter(|text| text.contains("CapAmb"))
        })
    });
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(
        context.join("Dockerfile"),
        "FROM box:1\nRUN cat /proc/self/status > /status\n",
    )
    .unwrap();
    daemon.ok(&["build", "-q", "-t", "built", &context.display().to_string()]);
    for (how, status) in [
        ("run", inside(&daemon, &[], STATUS)),
        (
            "run --cap-add",
            inside(&daemon, &["--cap-add", "SYS_PTRACE"], STATUS),
        ),
        ("run --privileged", inside(&daemon, &["--privileged"], STATUS)),
        ("run --user", inside(&daemon, &["-u", "web"], STATUS)),
        ("exec", exec(&[])),
        ("exec --privileged", exec(&["--privileged"])),
        ("exec --user", exec(&["-u", "web"])),
        ("health check", health.unwrap_or_default()),
        ("build", daemon.ok(&["run", "--rm", "built", "cat", "/status"])),
    ] {
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(field(&status, set), "0000000000000000", "{how}: {set}: {status}");
        }
    }
}

/// CVE-2022-36109: a primary group that is no additional one can be dropped to pass a file's group bits. The groups
/// are those of the image's /etc/group and never the daemon's own.
#[test]
fn groups_are_the_images_and_hold_the_primary_one() {
    guard!();
    let daemon = Daemon::start();
    let groups = |flags: &[&str]| {
        let status = inside(&daemon, flags, STATUS);
        let mut groups: Vec<u32> = field(&status, "Groups")
            .split_whitespace()
            .filter_map(|g| g.parse().ok())
            .collect();
        groups.sort_unstable();
        groups
    };
    assert_eq!(groups(&[]), [0]);
    assert_eq!(groups(&["-u", "web"]), [33]);
    assert_eq!(groups(&["-u", "1000"]), [0]);
    assert_eq!(groups(&["-u", "1000:1000", "--group-add", "50"]), [50, 1000]);
}

/// A user that is not root holds nothing, and can gain nothing once `no-new-privileges` is set.
#[test]
fn capabilities_are_as_asked() {
    guard!();
    let daemon = Daemon::start();
    let sets = |flags: &[&str]| {
        let status = inside(&daemon, flags, STATUS);
        [
            field(&status, "CapEff").to_owned(),
            field(&status, "CapBnd").to_owned(),
        ]
    };
    // As many as the daemon itself may give.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = field(&own, "CapBnd").to_owned();
    let default = "00000000a80425fb";
    assert_eq!(sets(&[]), [default, default]);
    assert_eq!(sets(&["-u", "web"]), ["0000000000000000", default]);
    assert_eq!(sets(&["--cap-drop", "ALL"]), ["0000000000000000"; 2]);
    assert_eq!(
        sets(&["--cap-drop", "ALL", "--cap-add", "chown"]),
        ["0000000000000001"; 2]
    );
    assert_eq!(sets(&["--cap-add", "ALL"]), [all.as_str(); 2]);
    let without = format!("{:016x}", u64::from_str_radix(&all, 16).unwrap() & !(1 << 21));
    assert_eq!(
        sets(&["--cap-add", "ALL", "--cap-drop", "CAP_SYS_ADMIN"]),
        [without.as_str(); 2]
    );
    assert_eq!(sets(&["--privileged"]), [all.as_str(); 2]);
    let (code, error) = daemon.fails(&["run", "--rm", "--cap-add", "TELEPORT", "box:1", "true"]);
    assert!(code == 125 && error.contains("TELEPORT"), "{code} {error}");

    let status = inside(&daemon, &[], STATUS);
    assert_eq!(
        (field(&status, "NoNewPrivs"), field(&status, "Seccomp")),
        ("0", "2")
    );
    let status = inside(&daemon, &["--security-opt", "no-new-privileges"], STATUS);
    assert_eq!(
        (field(&status, "NoNewPrivs"), field(&status, "Seccomp")),
        ("1", "2")
    );
    let status = inside(&daemon, &["--security-opt", "seccomp=unconfined"], STATUS);
    assert_eq!(field(&status, "Seccomp"), "0");
    for option in [
        "nonsense",
        "no-new-privileges=maybe",
        "seccomp=",
        "systempaths=confined",
        "label",
    ] {
        let (code, error) = daemon.fails(&["run", "--rm", "--security-opt", option, "box:1", "true"]);
        assert!(
            code == 125 && error.contains("security-opt"),
            "{option}: {code} {error}"
        );
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}
