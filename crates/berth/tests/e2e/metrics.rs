//! What can be seen of a daemon at work: `--metrics-addr`, `debug tasks`, `run --timings`.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use crate::support::{BERTH, Daemon, retry, text};

/// An address that is free now; nobody on this machine hands it out again so soon.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The text of one scrape by a client that reads this, with the kind of the answer.
fn scrape_as(address: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let kind = answer
        .lines()
        .find_map(|line| line.strip_prefix("content-type: "))
        .unwrap_or_else(|| panic!("{answer}"));
    (kind.to_owned(), answer)
}

/// The text of one scrape by Prometheus.
fn scrape(address: &str) -> String {
    // What it sends since version 2.49.
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
                  text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let (kind, text) = scrape_as(address, accept);
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    text
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
    let address = free_address();
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
    let started = "engine_daemon_health_check_start_duration_seconds_count";
    assert!(value(&after, started) > 0.0, "{after}");
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

/// The value of the one series of this name, whatever its labels are.
fn only(text: &str, name: &str) -> (String, f64) {
    let mut found = text.lines().filter(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(['{', ' ']))
    });
    let line = found.next().unwrap_or_else(|| panic!("no {name} in\n{text}"));
    assert_eq!(found.next(), None, "a second one in\n{text}");
    let (series, number) = line.rsplit_once(' ').unwrap();
    (series.to_owned(), number.parse().unwrap())
}

/// By the names that dashboards for Docker's daemon ask for, with what `info` says.
#[test]
fn the_engine_and_its_host_are_told_by_dockers_names() {
    guard!();
    let address = free_address();
    let daemon = Daemon::start_with(&["--metrics-addr", &address]);
    let follower = Command::new(BERTH)
        .arg("events")
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let mut follower = follower.unwrap();
    let subscribed = "engine_daemon_events_subscribers_total";
    let followed = retry(|| (value(&scrape(&address), subscribed) == 1.0).then_some(()));
    assert!(followed.is_some(), "{}", scrape(&address));

    let format = "{{.NCPU}}\n{{.MemTotal}}\n{{.ID}}\n{{.KernelVersion}}\n{{.Architecture}}\n{{.Driver}}\n\
                  {{.OperatingSystem}}\n{{.OSVersion}}\n{{.ServerVersion}}";
    let told = daemon.ok(&["info", "--format", format]);
    let told: Vec<&str> = told.lines().collect();
    daemon.ok(&["run", "--name", "one", "box:1", "true"]);
    daemon.ok(&["network", "create", "other"]);
    daemon.ok(&["run", "-d", "--name", "two", "box:1", "sleep", "100"]);
    daemon.ok(&["network", "connect", "other", "two"]);
    daemon.ok(&["tag", "box:1", "named:1"]);
    daemon.ok(&["rmi", "named:1"]);

    // As curl asks: the format that everybody reads.
    let (kind, text) = scrape_as(&address, "*/*");
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    assert!(!text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    assert!(
        text.contains("# TYPE engine_daemon_events_total counter\n"),
        "{text}"
    );
    assert_eq!(
        value(&text, "engine_daemon_engine_cpus_cpus").to_string(),
        told[0]
    );
    assert_eq!(
        value(&text, "engine_daemon_engine_memory_bytes").to_string(),
        told[1]
    );
    let (engine, number) = only(&text, "engine_daemon_engine_info");
    assert_eq!(number, 1.0);
    for (label, wanted) in [
        ("daemon_id", told[2]),
        ("kernel", told[3]),
        ("architecture", told[4]),
        ("graphdriver", told[5]),
        ("os", told[6]),
        ("os_type", "linux"),
        ("os_version", told[7]),
        ("version", told[8]),
        ("commit", ""),
    ] {
        assert!(
            engine.contains(&format!("{label}=\"{wanted}\"")),
            "{label} in {engine}"
        );
    }
    for (series, least) in [
        (
            "engine_daemon_network_actions_seconds_count{action=\"allocate\"}",
            2.0,
        ),
        (
            "engine_daemon_network_actions_seconds_count{action=\"connect\"}",
            1.0,
        ),
        (
            "engine_daemon_network_actions_seconds_count{action=\"release\"}",
            1.0,
        ),
        (
            "engine_daemon_image_actions_seconds_count{action=\"delete\"}",
            1.0,
        ),
        (
            "engine_daemon_host_info_functions_seconds_count{function=\"system_info\"}",
            1.0,
        ),
        (
            "engine_daemon_container_actions_seconds_count{action=\"start\"}",
            2.0,
        ),
    ] {
        assert!(value(&text, series) >= least, "{series} in\n{text}");
    }
    // There before the first one.
    for action in ["changes", "commit", "delete"] {
        let series = format!("engine_daemon_container_actions_seconds_count{{action=\"{action}\"}} 0");
        assert!(text.contains(&series), "{series} in\n{text}");
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// Whichever client builds, and however it fails.
#[test]
fn builds_are_counted_with_the_reasons_of_those_that_fail() {
    guard!();
    let address = free_address();
    let daemon = Daemon::start_with(&["--metrics-addr", &address]);
    let failed = |text: &str, reason: &str| {
        value(
            text,
            &format!("builder_builds_failed_total{{reason=\"{reason}\"}}"),
        )
    };
    let before = scrape(&address);
    assert!(before.contains("builder_builds_triggered_total 0"), "{before}");
    let reasons = [
        "dockerfile_syntax_error",
        "dockerfile_empty_error",
        "command_not_supported_error",
        "error_processing_commands_error",
        "build_target_not_reachable_error",
        "missing_onbuild_arguments_error",
        "unknown_instruction_error",
        "build_canceled",
    ];
    for reason in reasons {
        let series = format!("builder_builds_failed_total{{reason=\"{reason}\"}} 0");
        assert!(before.contains(&series), "{series} in\n{before}");
    }
    let context = daemon.dir.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let place = context.display().to_string();
    let build = |dockerfile: &str, more: &[&str]| {
        std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        daemon.run(&[&["build", "-q"][..], more, &[place.as_str()]].concat())
    };
    assert!(build("FROM box:1\nRUN true\n", &[]).status.success());
    let failures: [(&str, &[&str], &str); 5] = [
        ("FROM box:1\nRUN exit 3\n", &[], "error_processing_commands_error"),
        ("FROM box:1\nFORM x\n", &[], "unknown_instruction_error"),
        ("FROM box:1 AS\n", &[], "dockerfile_syntax_error"),
        ("# nothing\n", &[], "dockerfile_empty_error"),
        (
            "FROM box:1\n",
            &["--target", "nosuch"],
            "build_target_not_reachable_error",
        ),
    ];
    for (dockerfile, more, reason) in failures {
        let before = failed(&scrape(&address), reason);
        assert!(!build(dockerfile, more).status.success(), "{dockerfile}");
        let after = scrape(&address);
        assert_eq!(failed(&after, reason), before + 1.0, "{reason} in\n{after}");
    }
    // As a client without BuildKit asks.
    let archive = crate::tarball::Tar::default()
        .file("Dockerfile", b"FROM box:1\nRUN exit 3\n")
        .finish();
    crate::http::request(&daemon, "POST", "/v1.47/build", "application/x-tar", &archive);
    let after = scrape(&address);
    assert_eq!(failed(&after, "error_processing_commands_error"), 2.0, "{after}");
    assert_eq!(value(&after, "builder_builds_triggered_total"), 7.0, "{after}");
}

#[test]
fn monitors_that_die_and_restarts_are_counted() {
    guard!();
    let address = free_address();
    let daemon = Daemon::start_with(&["--metrics-addr", &address]);
    daemon.ok(&["run", "-d", "--name", "lost", "box:1", "sleep", "1000"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "again",
        "--restart",
        "always",
        "box:1",
        "true",
    ]);
    let before = scrape(&address);
    assert!(before.contains("engine_daemon_monitors_lost_total 0"), "{before}");
    let pid = daemon.ok(&["inspect", "-f", "{{.State.Pid}}", "lost"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    crate::support::signal(monitor.unwrap().trim(), "-KILL");
    let counted = retry(|| {
        let text = scrape(&address);
        let lost = value(&text, "engine_daemon_monitors_lost_total");
        let again = value(&text, "engine_daemon_container_restarts_total");
        (lost == 1.0 && again >= 2.0).then_some(())
    });
    assert!(counted.is_some(), "{}", scrape(&address));
    daemon.ok(&["rm", "-f", "again"]);
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
