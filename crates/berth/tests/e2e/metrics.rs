//! What can be seen of a daemon at work: `--metrics-addr`, `debug tasks`, `run --timings`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::support::{BERTH, Daemon, retry, text};

/// The text of one scrape.
fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    answer
}

/// The value of a series; 0 where it was never counted.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |number| number.trim().parse().unwrap())
}

#[test]
fn prometheus_reads_what_happened() {
    guard!();
    // A port that is free now; nobody on this machine hands it out again so soon.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let daemon = Daemon::start_with(&["--metrics-addr", &address]);
    let before = scrape(&address);
    assert_eq!(
        value(
            &before,
            "engine_daemon_container_states_containers{state=\"running\"}"
        ),
        0.0
    );
    let started = "engine_daemon_container_actions_seconds_count{action=\"start\"}";
    assert_eq!(value(&before, started), 0.0);

    let check = [
        "--health-cmd",
        "false",
        "--health-interval",
        "100ms",
        "--health-retries",
        "1",
    ];
    daemon.ok(&[
        &["run", "-d", "--name", "web"],
        &check[..],
        &["box:1", "sleep", "100"],
    ]
    .concat());
    daemon.ok(&["run", "-d", "--name", "still", "box:1", "sleep", "100"]);
    daemon.ok(&["pause", "still"]);
    daemon.ok(&["run", "--name", "ended", "box:1", "true"]);
    daemon.fails(&["start", "nosuch"]);
    daemon.fails(&["run", "--name", "bad", "box:1", "nosuch"]);
    daemon.ok(&["volume", "create", "kept"]);
    let after = crate::support::retry(|| {
        let text = scrape(&address);
        (value(&text, "engine_daemon_health_checks_failed_total") > 0.0).then_some(text)
    });
    let after = after.expect("a health check failed");

    for (series, expected) in [
        (
            "engine_daemon_container_states_containers{state=\"running\"}",
            1.0,
        ),
        ("engine_daemon_container_states_containers{state=\"paused\"}", 1.0),
        (
            "engine_daemon_container_states_containers{state=\"stopped\"}",
            2.0,
        ),
        (started, 3.0),
        (
            "engine_daemon_container_actions_seconds_count{action=\"create\"}",
            4.0,
        ),
        (
            "engine_daemon_container_actions_failed_total{action=\"start\"}",
            1.0,
        ),
        ("engine_daemon_objects{kind=\"volume\"}", 1.0),
        (
            "http_request_duration_seconds_count{method=\"POST\",route=\"/containers/{name}/start\",code=\"404\"}",
            1.0,
        ),
        (
            "http_request_duration_seconds_count{method=\"POST\",route=\"/containers/{name}/pause\",code=\"204\"}",
            1.0,
        ),
    ] {
        assert_eq!(value(&after, series), expected, "{series} in\n{after}");
    }
    for phase in ["network", "configuration", "process"] {
        let series = format!("engine_daemon_container_start_phase_seconds_count{{phase=\"{phase}\"}}");
        assert!(value(&after, &series) >= 3.0, "{series} in\n{after}");
    }
    assert!(value(&after, "engine_daemon_events_total") > value(&before, "engine_daemon_events_total"));
    assert!(value(&after, "engine_daemon_content_bytes") > 0.0, "{after}");
    assert!(
        !after.contains("web") && !after.contains("nosuch"),
        "names are no labels:\n{after}"
    );
    // Nothing else is served there.
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "GET /info HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[test]
fn what_is_under_way_is_shown_with_its_age_and_number() {
    guard!();
    let mut daemon = Daemon::start_with(&["--debug"]);
    daemon.ok(&["run", "-d", "--name", "deaf", "box:1", "sleep", "1000"]);
    let client = |args: &[&str]| {
        Command::new(BERTH)
            .args(args)
            .env("DOCKER_HOST", daemon.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let clients = [
        client(&["stop", "-t", "60", "deaf"]),
        client(&["events"]),
        client(&["exec", "deaf", "sleep", "1000"]),
    ];
    let wanted = [
        ("container", "wait for the end", "deaf"),
        ("request", "POST", "/containers/deaf/stop"),
        ("request", "GET", "/events"),
        // Its connection was taken over, and is still its client's.
        ("request", "POST", "/containers/deaf/exec"),
    ];
    let shown = retry(|| {
        let text = daemon.ok(&["debug", "tasks", "--format", "json"]);
        let tasks: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tasks = tasks["Tasks"].as_array().unwrap().clone();
        let has = |(kind, action, subject): &(&str, &str, &str)| {
            tasks.iter().any(|task| {
                task["Kind"] == *kind
                    && task["Action"] == *action
                    && task["Subject"].as_str().unwrap().ends_with(subject)
                    && task["Seconds"].as_f64().unwrap() > 0.0
                    && task["Request"].is_u64() == (*kind == "request")
            })
        };
        wanted.iter().all(has).then_some(tasks)
    });
    let tasks = shown.unwrap_or_else(|| panic!("{}", daemon.ok(&["debug", "tasks"])));
    // The number is that of the log.
    let events = tasks
        .iter()
        .find(|task| task["Subject"].as_str().unwrap().ends_with("/events"))
        .unwrap();
    let line = format!("request{{id={}}}", events["Request"]);
    let log = daemon.log();
    let logged = log
        .lines()
        .any(|text| text.contains(&line) && text.contains("/events"));
    assert!(logged, "{line} in {log}");
    for mut client in clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    daemon.ok(&["kill", "deaf"]);
    let over = retry(|| (daemon.ok(&["debug", "tasks"]).lines().count() == 2).then_some(()));
    assert!(over.is_some(), "{}", daemon.ok(&["debug", "tasks"]));
    daemon.crash_and_restart();
    assert_eq!(daemon.ok(&["debug", "tasks"]).lines().count(), 2);
}

#[test]
fn a_start_tells_where_its_time_went() {
    guard!();
    let daemon = Daemon::start();
    let output = daemon.run(&["run", "--rm", "--timings", "box:1", "echo", "out"]);
    assert_eq!(text(&output.stdout), "out\n");
    let shown = text(&output.stderr);
    let rows: Vec<(String, f64)> = shown
        .lines()
        .map(|line| {
            let line = line.strip_suffix(" ms").unwrap_or_else(|| panic!("{shown}"));
            let (name, took) = line.rsplit_once(' ').unwrap();
            (name.trim_end().to_owned(), took.parse().unwrap())
        })
        .collect();
    let names: Vec<&str> = rows.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "create",
            "attach",
            "start",
            "  network",
            "  configuration",
            "  monitor",
            "  control group",
            "  namespaces and mounts",
            "  exec",
            "  record",
            "run and remove",
            "total"
        ]
    );
    let sum = |wanted: fn(&str) -> bool| -> f64 {
        rows.iter()
            .filter(|(name, _)| wanted(name))
            .map(|(_, took)| took)
            .sum()
    };
    let total = rows.last().unwrap().1;
    let parts = sum(|name| name.starts_with(' '));
    assert!(
        parts > 0.0 && parts <= sum(|name| name == "start") + 0.1,
        "{shown}"
    );
    // Each row is rounded.
    let whole = sum(|name| !name.starts_with(' ') && name != "total");
    assert!(whole <= total + 0.1, "{shown}");
    // Others are not told.
    let output = daemon.run(&["run", "--rm", "box:1", "true"]);
    assert_eq!(text(&output.stderr), "");
}
