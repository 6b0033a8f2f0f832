//! `--metrics-addr`: what Prometheus reads, before and after some work.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use crate::support::Daemon;

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
