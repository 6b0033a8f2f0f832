//! What the command line tells, and where: the log, lists of containers and processes, a configuration to begin with; and the
//! commands that act on what is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use spec::runtime::{Hook, Hooks, Memory, Resources};
use support::cli::{Cli, Container, nothing_is_left, prepared};

#[test]
fn the_log_has_errors_and_warnings_in_its_format() {
    let Some((cli, mut bundle, id)) = prepared("log") else {
        return;
    };
    let sets = bundle.process().capabilities.get_or_insert_default();
    sets.bounding.push("CAP_FROM_THE_FUTURE".to_owned());
    sets.permitted.push("CAP_FROM_THE_FUTURE".to_owned());
    bundle.linux().resources = Some(Resources {
        memory: Some(Memory {
            kernel: Some(1 << 30),
            ..Memory::default()
        }),
        ..Resources::default()
    });
    bundle.spec.hooks = Some(Hooks {
        poststop: vec![Hook {
            path: "/bin/false".into(),
            ..Hook::default()
        }],
        ..Hooks::default()
    });
    bundle.shell("echo ran");
    bundle.write_config();
    let path = bundle.path().to_str().unwrap().to_owned();
    let log = bundle.path().join("log");
    let run = |flags: &[&str], path: &str| {
        let output = cli.command(&[flags, &["run", "--bundle", path, &id]].concat());
        let told = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
            told,
        )
    };
    let warnings = ["kernel memory", "CAP_FROM_THE_FUTURE", "poststop hook"];
    // Without a file they are on standard error, and each is told once.
    let (out, err, _) = run(&[], &path);
    assert_eq!((out.as_str(), err.lines().count()), ("ran\n", 3), "{err}");
    for (line, word) in err.lines().zip(warnings) {
        assert!(
            line.starts_with("time=\"") && line.contains(" level=warning msg=") && line.contains(word),
            "{err}"
        );
    }
    // With one they are there, and nowhere else.
    let file = log.to_str().unwrap().to_owned();
    let (out, err, told) = run(&["--log", &file, "--log-format", "json"], &path);
    assert_eq!((out.as_str(), err.as_str()), ("ran\n", ""));
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{told}");
    for (line, word) in lines.iter().zip(warnings) {
        assert_eq!(line["level"], "warning");
        assert!(line["msg"].as_str().unwrap().contains(word), "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    // An error is in both places.
    let (_, err, told) = run(&["--log", &file, "--log-format", "text"], "/no/such");
    assert!(err.starts_with("berth runtime: /no/such: "), "{err}");
    assert!(
        told.contains(" level=error msg=\"/no/such: no such file or directory\""),
        "{told}"
    );
    let (_, _, told) = run(&["--log", &file, "--log-format", "json"], "/no/such");
    let line: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(line["level"], "error");
    nothing_is_left(&cli, &id);
}

#[test]
fn containers_are_listed_with_their_owner() {
    let Some(container) = Container::run("listed", |bundle| {
        bundle
            .spec
            .annotations
            .insert("mark".to_owned(), "yes".to_owned());
    }) else {
        return;
    };
    let (cli, id) = (&container.cli, &container.id);
    let bundle = container.bundle.path().to_str().unwrap();
    let text = cli.ok(&["list"]);
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let state = container.state();
    assert_eq!(rows[1][0], id);
    assert_eq!(rows[1][1], state["pid"].to_string());
    assert_eq!((rows[1][2], rows[1][3], rows[1][5]), ("running", bundle, "root"));
    assert_eq!(rows.len(), 2, "{text}");
    assert_eq!(cli.ok(&["list", "--quiet"]), format!("{id}\n"));
    let listed: Value = serde_json::from_str(&cli.ok(&["list", "--format", "json"])).unwrap();
    for field in [
        "id",
        "pid",
        "status",
        "bundle",
        "rootfs",
        "created",
        "owner",
        "ociVersion",
    ] {
        assert_eq!(listed[0][field], state[field], "{field}");
    }
    assert_eq!(listed[0]["annotations"], json!({"mark": "yes"}));
    // One whose user has no name.
    let directory = cli.state.path().join(id);
    std::os::unix::fs::chown(&directory, Some(4_000_111), None).unwrap();
    assert!(cli.ok(&["list"]).contains("#4000111"));
}

#[test]
fn processes_are_listed_as_ps_does() {
    let Some(container) = Container::run("processes", |bundle| {
        bundle.shell("sleep 1001 & sleep 1002 & wait");
    }) else {
        return;
    };
    let (cli, id) = (&container.cli, &container.id);
    while container.group().pids().unwrap().len() < 3 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pids = container.group().pids().unwrap();
    let shown: Vec<i32> = serde_json::from_str(&cli.ok(&["ps", "--format", "json", id])).unwrap();
    assert_eq!(shown, pids);
    let full = Command::new("ps").arg("-V").output();
    if !full.is_ok_and(|output| output.status.success()) {
        println!("skipped in part: needs ps (package procps)");
        return;
    }
    let text = cli.ok(&["ps", id]);
    let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(head[..3], ["UID", "PID", "PPID"], "{text}");
    assert_eq!(text.lines().count(), 1 + pids.len(), "{text}");
    assert!(
        text.contains("sleep 1001") && text.contains("sleep 1002"),
        "{text}"
    );
    let complaint = cli.fails(&["ps", id, "-o", "args"]);
    assert!(complaint.contains("PID"), "{complaint}");
}

#[test]
fn a_configuration_to_begin_with_runs() {
    let Some((cli, bundle, id)) = prepared("begin") else {
        return;
    };
    let path = bundle.path().to_str().unwrap();
    for (flag, ids) in [(None, "4294967295"), (Some("--rootless"), "1")] {
        let file = bundle.path().join("config.json");
        let _ = fs::remove_file(&file);
        let mut call = vec!["spec", "--bundle", path];
        call.extend(flag);
        cli.ok(&call);
        let complaint = cli.fails(&call);
        assert!(complaint.contains("config.json: file exists"), "{complaint}");
        // A terminal is for people.
        let mut config: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(format!("/{id}"));
        config["process"]["args"] = json!([
            "sh",
            "-c",
            "id -u; cat /proc/self/uid_map; ls /sys/kernel | head -n 1"
        ]);
        fs::write(&file, config.to_string()).unwrap();
        let text = cli.ok(&["run", "--bundle", path, &id]);
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..4], ["0", "0", "0", ids], "{text}");
        assert_eq!(words.len(), 5, "{text}");
    }
    nothing_is_left(&cli, &id);
}

#[test]
fn who_has_ended_is_told_not_to_be_running() {
    let Some(container) = Container::run("ended", |bundle| {
        bundle.shell("true");
    }) else {
        return;
    };
    while container.state()["status"] != "stopped" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // The words that engines look for.
    let complaint = container.cli.fails(&["kill", &container.id, "TERM"]);
    assert!(complaint.contains("container not running"), "{complaint}");
    container.cli.ok(&["kill", "--all", &container.id]);
    let complaint = container.cli.fails(&["kill", "nosuch"]);
    assert!(complaint.contains("does not exist"), "{complaint}");
}

#[test]
fn a_signal_to_all_reaches_each() {
    let told = |name: &str| format!("trap 'touch /tmp/{name}' USR1; touch /tmp/{name}-waits");
    let wait = "while :; do sleep 0.05; done";
    let Some(container) = Container::run("all", |bundle| {
        bundle.shell(&format!(
            "({}; {wait}) & {}; {wait}",
            told("child"),
            told("first")
        ));
    }) else {
        return;
    };
    let tmp = container.bundle.root().join("tmp");
    let until = |name: &str| {
        while !tmp.join(name).exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    };
    until("child-waits");
    until("first-waits");
    container.cli.ok(&["kill", &container.id, "SIGUSR2"]);
    container.cli.ok(&["kill", "--all", &container.id, "USR1"]);
    until("first");
    until("child");
}

#[test]
fn a_container_is_kept_when_that_is_wanted() {
    let Some((cli, mut bundle, id)) = prepared("kept") else {
        return;
    };
    bundle.shell("exit 3");
    bundle.write_config();
    let path = bundle.path().to_str().unwrap();
    let output = cli.command(&["run", "--keep", "--no-subreaper", "--bundle", path, &id]);
    assert_eq!(output.status.code(), Some(3));
    let state: Value = serde_json::from_str(&cli.ok(&["state", &id])).unwrap();
    assert_eq!((&state["status"], &state["pid"]), (&json!("stopped"), &json!(0)));
    for command in ["start", "pause", "resume", "update", "events"] {
        let flags: &[&str] = if command == "update" {
            &["--pids-limit", "5"]
        } else {
            &[]
        };
        let complaint = cli.fails(&[&[command], flags, &[id.as_str()]].concat());
        assert!(complaint.contains("stopped"), "{command}: {complaint}");
    }
    cli.ok(&["delete", &id]);
    nothing_is_left(&cli, &id);
}

/// The one in front of it shows what its terminal says, and the terminal lives as long as it does.
#[test]
fn a_terminal_in_the_foreground_is_shown() {
    let Some((cli, mut bundle, id)) = prepared("foreground") else {
        return;
    };
    bundle.process().terminal = true;
    bundle.shell("tty; sleep 0.1; test -t 1 && echo still; exit 6");
    bundle.write_config();
    let output = cli.command(&["run", "--bundle", bundle.path().to_str().unwrap(), &id]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/dev/pts/0\r\nstill\r\n");
    assert_eq!(output.status.code(), Some(6));
    nothing_is_left(&cli, &id);
}

#[test]
fn a_created_containers_terminal_is_handed_over() {
    let Some((cli, mut bundle, id)) = prepared("handed") else {
        return;
    };
    bundle.process().terminal = true;
    bundle.shell("tty; cat /dev/console");
    bundle.write_config();
    let path = bundle.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    cli.quietly(&[
        "create",
        "--console-socket",
        path.to_str().unwrap(),
        "--bundle",
        bundle.path().to_str().unwrap(),
        &id,
    ]);
    let (stream, _) = listener.accept().unwrap();
    let (_, mut fds) = sys::fd::recv_fds(&stream, &mut [0; 64]).unwrap();
    let mut master = fs::File::from(fds.pop().unwrap());
    cli.ok(&["start", &id]);
    // The end of a file, as a user types it.
    std::io::Write::write_all(&mut master, b"\x04").unwrap();
    let mut text = Vec::new();
    let _ = master.read_to_end(&mut text);
    assert!(
        String::from_utf8_lossy(&text).starts_with("/dev/pts/0\r\n"),
        "{text:?}"
    );
    cli.ok(&["delete", "--force", &id]);
    nothing_is_left(&cli, &id);
}

/// What `update` is told by flags, and where it is found.
#[test]
fn flags_change_limits() {
    let Some(container) = Container::run("limits", |_| ()) else {
        return;
    };
    let v2 = container.group().version() == cgroup::Version::V2;
    let update = |flags: &[&str]| {
        container
            .cli
            .ok(&[&["update"], flags, &[container.id.as_str()]].concat())
    };
    let mib = |count: u64| (count << 20).to_string();
    update(&[
        "--memory",
        "64m",
        "--memory-swap",
        "96m",
        "--memory-reservation",
        "16MiB",
    ]);
    assert_eq!(
        container.limit("memory", "memory.limit_in_bytes", "memory.max"),
        mib(64)
    );
    let swap = container.limit("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    assert_eq!(swap, mib(if v2 { 32 } else { 96 }));
    let low = container.limit("memory", "memory.soft_limit_in_bytes", "memory.low");
    assert_eq!(low, mib(16));
    update(&[
        "--cpu-period",
        "50000",
        "--cpu-quota",
        "25000",
        "--cpu-burst",
        "1000",
    ]);
    if v2 {
        assert_eq!(container.limit("cpu", "", "cpu.max"), "25000 50000");
    } else {
        assert_eq!(container.limit("cpu", "cpu.cfs_quota_us", ""), "25000");
        assert_eq!(container.limit("cpu", "cpu.cfs_period_us", ""), "50000");
    }
    assert_eq!(
        container.limit("cpu", "cpu.cfs_burst_us", "cpu.max.burst"),
        "1000"
    );
    update(&["--cpu-quota", "-1", "--cpu-burst", "0", "--cpu-share", "512"]);
    let shares = container.limit("cpu", "cpu.shares", "cpu.weight");
    assert_eq!(shares, if v2 { "59" } else { "512" });
    update(&["--cpuset-cpus", "0", "--cpuset-mems", "0", "--pids-limit", "33"]);
    assert_eq!(container.limit("cpuset", "cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(container.limit("pids", "pids.max", "pids.max"), "33");
    // What was kernel memory's changes nothing, and is no mistake.
    let output = container.cli.command(&[
        "update",
        "--kernel-memory",
        "1g",
        "--kernel-memory-tcp",
        "-1",
        &container.id,
    ]);
    assert!(output.status.success());
    assert_eq!(
        container.limit("memory", "memory.limit_in_bytes", "memory.max"),
        mib(64)
    );
    for (flags, told) in [
        (&["--memory", "much"][..], "is not a size"),
        (&["--memory", "64m", "--memory-swap", "32m"], "memory.swap"),
        (&["--cpu-idle", "7"], "cpu.idle"),
        (&["--blkio-weight", "2000"], "blockIO.weight"),
    ] {
        let call = [&["update"], flags, &[container.id.as_str()]].concat();
        let complaint = container.cli.fails(&call);
        assert!(complaint.contains(told), "{complaint}");
    }
}

/// They are not among what `update` changes: one rule for them alone would open all others (version 2), or add to them.
#[test]
fn the_devices_of_a_container_that_lives_do_not_change() {
    let Some(container) = Container::run("rules", |_| ()) else {
        return;
    };
    // One that needs no right but the rule, and a disk; any node may be made.
    let open = "mknod /tmp/fuse c 10 229; mknod /tmp/disk b 7 0; \
                for f in fuse disk; do (: </tmp/$f) 2>&1; done; rm /tmp/fuse /tmp/disk; echo kept >/dev/null && echo null";
    std::os::unix::fs::symlink("busybox", container.bundle.root().join("bin/rm")).unwrap();
    let before = container.exec(&[], &["sh", "-c", open]);
    assert_eq!(before.matches("not permitted").count(), 2, "{before}");
    assert!(before.ends_with("null\n"), "{before}");
    let file = container.bundle.path().join("limits");
    let wanted = json!({
        "devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}],
        "pids": {"limit": 44},
    });
    fs::write(&file, wanted.to_string()).unwrap();
    let output = container
        .cli
        .call(&["update", "--resources", "-", &container.id])
        .stdin(fs::File::open(&file).unwrap())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("devices"), "{told}");
    assert_eq!(container.limit("pids", "pids.max", "pids.max"), "44");
    assert_eq!(container.exec(&[], &["sh", "-c", open]), before);
}

/// The command line needs no root directory to exist before.
#[test]
fn nothing_is_listed_where_nothing_is() {
    if !support::possible() {
        return;
    }
    let Some(cli) = Cli::new() else { return };
    let root = cli.state.path().join("fresh");
    let list = |format: &str| {
        let output = Command::new(&cli.program)
            .arg("--root")
            .arg(&root)
            .args(["list", "--format", format])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(list("json").trim(), "[]");
    assert_eq!(list("table").lines().count(), 1);
    assert!(!root.exists());
}

#[test]
fn a_report_that_nobody_can_read_is_one_error() {
    let Some(cli) = Cli::new() else {
        return;
    };
    for args in [&["features"][..], &["list"], &["list", "--format", "json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = cli.call(args).stdout(writer).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{args:?}: {told}");
        assert!(told.contains("standard output: broken pipe"), "{args:?}: {told}");
    }
}
