//! Containers whose clocks are not the host's.

use crate::support::{Daemon, text};

/// Seconds since the boot, as the host sees them.
fn uptime() -> i64 {
    seconds(&std::fs::read_to_string("/proc/uptime").unwrap())
}

fn seconds(uptime: &str) -> i64 {
    let whole = uptime.split('.').next().unwrap();
    whole.parse().unwrap_or_else(|_| panic!("{uptime:?}"))
}

#[test]
fn clocks_are_shifted_for_all_processes_of_the_container_and_for_nobody_else() {
    guard!();
    let daemon = Daemon::start();
    let offsets = "cat /proc/self/timens_offsets";
    let run = [
        "run",
        "-d",
        "--name",
        "later",
        "--time-offset",
        "240h",
        "box:1",
        "sleep",
        "1000",
    ];
    daemon.ok(&run);
    let before = uptime();
    let inside = seconds(&daemon.ok(&["exec", "later", "cat", "/proc/uptime"]));
    let after = uptime();
    assert!(
        (before + 864_000..=after + 864_001).contains(&inside),
        "{before} {inside} {after}"
    );
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let both = ["monotonic", "864000", "0", "boottime", "864000", "0"];
    assert_eq!(words(daemon.ok(&["exec", "later", "sh", "-c", offsets])), both);
    // A restart has them again, and one clock may be shifted alone.
    daemon.ok(&["restart", "-t", "0", "later"]);
    assert_eq!(words(daemon.ok(&["exec", "later", "sh", "-c", offsets])), both);
    let alone = daemon.ok(&[
        "run",
        "--rm",
        "--time-offset",
        "boottime=1h30m",
        "box:1",
        "sh",
        "-c",
        offsets,
    ]);
    assert_eq!(words(alone), ["monotonic", "0", "0", "boottime", "5400", "0"]);
    // Any client can ask for it, and who does not has the host's clocks.
    let annotated = [
        "run",
        "--rm",
        "--annotation",
        "io.berth.time-offset=monotonic=60s",
        "box:1",
        "sh",
        "-c",
        offsets,
    ];
    assert_eq!(
        words(daemon.ok(&annotated)),
        ["monotonic", "60", "0", "boottime", "0", "0"]
    );
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    let theirs = daemon.ok(&[
        "run",
        "--rm",
        "box:1",
        "busybox",
        "readlink",
        "/proc/self/ns/time",
    ]);
    assert_eq!(theirs.trim(), own.to_str().unwrap());
    // Said in the report of what the container has.
    let report = daemon.ok(&["inspect", "--isolation", "later"]);
    let mut lines = report
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line = lines.find(|words| words.first() == Some(&"time")).unwrap();
    assert_eq!(line[2..], ["own", "own", "-"], "{report}");
}

#[test]
fn offsets_that_are_none_are_refused_before_anything_is_made() {
    guard!();
    let daemon = Daemon::start();
    for (asked, expected) in [
        ("soon", "invalid time offset \"soon\""),
        ("wall=1h", "invalid time offset \"wall=1h\""),
    ] {
        let (code, error) = daemon.fails(&["run", "--rm", "--time-offset", asked, "box:1", "true"]);
        assert!(code == 125 && error.contains(expected), "{error}");
    }
    // No clock was ever before its beginning.
    let (code, error) = daemon.fails(&["run", "--rm", "--time-offset", "-876000h", "box:1", "true"]);
    assert!(code == 125 && error.contains("timeOffsets"), "{error}");
    assert_eq!(text(&daemon.run(&["ps", "-aq"]).stdout), "");
}
