//! `stats` and `top`, held against what the kernel says, and against the real docker client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Daemon, inspect, retry, text};

/// The container's group in the tree of a controller; there is one tree where the machine has only version 2.
pub fn group(pid: &str, controller: &str) -> PathBuf {
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let root = Path::new("/sys/fs/cgroup");
    let below = |path: &str| path.trim_start_matches('/').to_owned();
    for line in table.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap(), parts.next().unwrap());
        if controllers.split(',').any(|one| one == controller) {
            return root.join(controller).join(below(path));
        }
    }
    let unified = table.lines().find_map(|line| line.strip_prefix("0::")).unwrap();
    root.join(below(unified))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A field of a file of lines `name value`.
fn field(path: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// What the kernel says now of what only grows: processor time in nanoseconds, bytes received and sent.
fn counters(pid: &str) -> [u64; 3] {
    let time = number(&group(pid, "cpuacct").join("cpuacct.usage"))
        .or_else(|| field(&group(pid, "cpu").join("cpu.stat"), "usage_usec ").map(|usec| usec * 1000));
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("eth0:"))
        .unwrap();
    let columns: Vec<u64> = line
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    [time.unwrap(), columns[0], columns[8]]
}

fn one_shot(daemon: &Daemon, name: &str) -> Value {
    let path = format!("/v1.51/containers/{name}/stats?stream=false&one-shot=true");
    let answer = crate::http::request(daemon, "GET", &path, "", b"");
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn what_is_used_is_what_the_kernel_says() {
    guard!();
    let daemon = Daemon::start();
    let busy = "while :; do :; done & sleep 1000 & nc -l -p 80 >/dev/null & wait";
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "busy",
        "--memory",
        "64m",
        "--pids-limit",
        "20",
        "box:1",
        "sh",
        "-c",
        busy,
    ]);
    let four = retry(|| (daemon.ok(&["top", "busy"]).lines().count() == 5).then_some(()));
    assert!(four.is_some());
    let pid = inspect(&daemon, "busy", "{{.State.Pid}}");
    for _ in 0..5 {
        // What grows lies between what it was before and what it is after.
        let before = counters(&pid);
        let stats = one_shot(&daemon, "busy");
        let after = counters(&pid);
        let told = [
            &stats["cpu_stats"]["cpu_usage"]["total_usage"],
            &stats["networks"]["eth0"]["rx_bytes"],
            &stats["networks"]["eth0"]["tx_bytes"],
        ];
        for ((told, before), after) in told.iter().zip(before).zip(after) {
            let told = told.as_u64().unwrap();
            assert!(
                (before..=after).contains(&told),
                "{before} {told} {after}: {stats}"
            );
        }
        assert_eq!(stats["memory_stats"]["limit"], 64 << 20);
        assert_eq!(stats["pids_stats"]["limit"], 20);
        assert_eq!(stats["pids_stats"]["current"], 4);
        assert_eq!(stats["name"], "/busy");
        let online = std::fs::read_to_string("/proc/stat").unwrap();
        let online = online.lines().filter(|line| line.starts_with("cpu")).count() - 1;
        assert_eq!(stats["cpu_stats"]["online_cpus"], online);
    }
    // What may go to and fro is compared while it stands still.
    daemon.ok(&["pause", "busy"]);
    let memory = group(&pid, "memory");
    let usage =
        || number(&memory.join("memory.usage_in_bytes")).or_else(|| number(&memory.join("memory.current")));
    let same = retry(|| {
        let before = usage().unwrap();
        let stats = one_shot(&daemon, "busy");
        (usage() == Some(before)).then_some((before, stats))
    });
    let (bytes, stats) = same.expect("the memory of a paused container changes");
    assert_eq!(stats["memory_stats"]["usage"], bytes);
    let details = stats["memory_stats"]["stats"].as_object().unwrap();
    for name in ["total_inactive_file", "inactive_file", "anon", "pgfault"] {
        let line = format!("{name} ");
        let (Some(kernel), Some(told)) = (field(&memory.join("memory.stat"), &line), details.get(name))
        else {
            continue;
        };
        assert_eq!(told.as_u64(), Some(kernel), "{name}");
    }
}

/// What never comes waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The samples of a stream, as they come.
fn samples(daemon: &Daemon, name: &str) -> impl Iterator<Item = Value> {
    let mut stream = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Of HTTP/1.0, so that nothing but lines follows the head.
    let head = format!("GET /v1.51/containers/{name}/stats HTTP/1.0\r\nHost: test\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().ends_with("200 OK"));
    lines
        .skip_while(|line| !line.is_empty())
        .skip(1)
        .map(|line| serde_json::from_str(&line).unwrap())
}

#[test]
fn a_stream_carries_the_sample_before_and_ends_with_the_container() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sleep", "1000"]);
    // Each alone waits for a second one, which makes a rate.
    let alone: Vec<Value> = (0..2)
        .map(|_| {
            let path = "/v1.51/containers/one/stats?stream=false";
            serde_json::from_str(&crate::http::request(&daemon, "GET", path, "", b"").body).unwrap()
        })
        .collect();
    let mut stream = samples(&daemon, "one");
    let live: Vec<Value> = stream.by_ref().take(3).collect();
    let time = |stats: &Value, which: &str| stats[which]["system_cpu_usage"].as_u64().unwrap_or(0);
    // The first of a stream has nothing before it, as with Docker.
    assert_eq!(live[0]["preread"], "0001-01-01T00:00:00Z");
    assert_eq!(time(&live[0], "precpu_stats"), 0);
    for stats in alone.iter().chain(&live[1..]) {
        assert!(stats["preread"].as_str() < stats["read"].as_str(), "{stats}");
        assert!(time(stats, "precpu_stats") <= time(stats, "cpu_stats"), "{stats}");
        assert!(time(stats, "precpu_stats") > 0, "{stats}");
    }
    for pair in live.windows(2) {
        assert_eq!(pair[1]["preread"], pair[0]["read"]);
        assert_eq!(pair[1]["precpu_stats"], pair[0]["cpu_stats"]);
    }
    // Of one that does not run everything is zero, and nobody waits.
    daemon.ok(&["kill", "one"]);
    daemon.ok(&["wait", "one"]);
    let ended = one_shot(&daemon, "one");
    assert_eq!(ended["read"], "0001-01-01T00:00:00Z");
    assert_eq!(ended["pids_stats"], serde_json::json!({}));
    let told = stream.by_ref().find(|stats| stats["read"] == ended["read"]);
    assert_eq!(told.unwrap()["pids_stats"], ended["pids_stats"]);
    // It goes on with a container that is started again, and ends with one that is removed.
    daemon.ok(&["start", "one"]);
    let again = stream.by_ref().find(|stats| stats["pids_stats"]["current"] == 1);
    assert!(again.is_some());
    daemon.ok(&["rm", "-f", "one"]);
    assert!(stream.all(|stats| stats["id"] == live[0]["id"]));
}

#[test]
fn the_client_shows_new_samples_until_the_container_is_removed() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sleep", "1000"]);
    let mut client = std::process::Command::new(crate::support::BERTH)
        .args(["stats", "--format", "{{.Name}} {{.PIDs}}.", "one"])
        .env("DOCKER_HOST", daemon.socket())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(client.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(shown.any(|line| line.contains("one 1.")));
    daemon.ok(&["exec", "-d", "one", "sleep", "1000"]);
    assert!(shown.any(|line| line.contains("one 2.")));
    daemon.ok(&["rm", "-f", "one"]);
    // Its output ends, and with it the client.
    assert!(shown.all(|line| !line.contains("one 3.")));
    assert!(client.wait().unwrap().success());
}

/// Each watcher's samples are compared with its own: what another one asks between them is not what was before.
#[test]
fn those_who_watch_one_container_do_not_disturb_each_other() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["run", "-d", "--name", "one", "box:1", "sleep", "1000"]);
    let mut watchers = [(); 3].map(|()| samples(&daemon, "one"));
    let mut before = vec![(Value::from("0001-01-01T00:00:00Z"), Value::Null); watchers.len()];
    for _ in 0..3 {
        for (watcher, (read, time)) in watchers.iter_mut().zip(&mut before) {
            let sample = watcher.next().unwrap();
            assert_eq!(sample["preread"], *read);
            assert_eq!(sample["precpu_stats"]["system_cpu_usage"], *time);
            *read = sample["read"].clone();
            *time = sample["cpu_stats"]["system_cpu_usage"].clone();
        }
    }
}

#[test]
fn dockers_client_shows_the_same_numbers() {
    guard!();
    let client = match crate::docker::client(crate::docker::RECENT) {
        Ok(client) => client,
        Err(why) => {
            println!("skipped: {why}");
            return;
        }
    };
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "idle",
        "--memory",
        "32m",
        "--network",
        "none",
        "box:1",
        "sleep",
        "1000",
    ]);
    let docker = |args: &[&str]| {
        let output = std::process::Command::new(&client)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let format = "{{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}";
    let args = ["stats", "--no-stream", "--format", format, "idle"];
    // Twice the same from one side says that nothing has moved meanwhile.
    let same = retry(|| {
        let before = daemon.ok(&args);
        let theirs = docker(&args);
        (daemon.ok(&args) == before).then_some((before, theirs))
    });
    let (ours, theirs) = same.expect("the numbers of an idle container change");
    assert_eq!(ours, theirs);
    assert!(
        ours.starts_with("idle 0.0") && ours.contains(" / 32MiB "),
        "{ours}"
    );
    let top = ["top", "idle", "-o", "pid,ppid,args"];
    assert_eq!(daemon.ok(&top), docker(&top));
    assert!(daemon.ok(&top).contains("sleep 1000"));
}

#[test]
fn top_shows_the_containers_processes_and_no_others() {
    guard!();
    let daemon = Daemon::start();
    for name in ["one", "other"] {
        daemon.ok(&[
            "run",
            "-d",
            "--name",
            name,
            "box:1",
            "sh",
            "-c",
            "sleep 1000 & sleep 1001; true",
        ]);
    }
    let rows = |name: &str| -> Vec<String> {
        let table = daemon.ok(&["top", name, "-eo", "pid,args"]);
        table.lines().skip(1).map(str::to_owned).collect()
    };
    for name in ["one", "other"] {
        assert!(
            retry(|| (rows(name).len() == 3).then_some(())).is_some(),
            "{:?}",
            rows(name)
        );
        let pid = inspect(&daemon, name, "{{.State.Pid}}");
        let group = std::fs::read_to_string(group(&pid, "pids").join("cgroup.procs")).unwrap();
        let mut told: Vec<&str> = Vec::new();
        let rows = rows(name);
        told.extend(rows.iter().filter_map(|row| row.split_whitespace().next()));
        told.sort_unstable();
        let mut kernel: Vec<&str> = group.lines().collect();
        kernel.sort_unstable();
        assert_eq!(told, kernel, "{name}");
    }
    let (_, error) = daemon.fails(&["top", "one", "-o", "args"]);
    assert!(error.contains("PID"), "{error}");
    daemon.ok(&["kill", "one"]);
    daemon.ok(&["wait", "one"]);
    let (_, error) = daemon.fails(&["top", "one"]);
    assert!(error.contains("is not running"), "{error}");
}
