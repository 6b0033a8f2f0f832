//! Events: which there are, with what, and that they are known to the next daemon.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::support::Daemon;

fn past(daemon: &Daemon, filters: &[&str]) -> Vec<Value> {
    let mut args = vec![
        "events",
        "--since",
        "1",
        "--until",
        "0s",
        "--format",
        "{{json .}}",
    ];
    args.extend(filters.iter().flat_map(|filter| ["--filter", filter]));
    let text = daemon.ok(&args);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn actions(events: &[Value]) -> Vec<String> {
    let words = events
        .iter()
        .map(|event| event["Action"].as_str().unwrap().to_owned());
    words.collect()
}

#[test]
fn a_containers_life_in_events_and_after_a_crash() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.ok(&[
        "run", "-d", "--name", "one", "--label", "team=a", "box:1", "sleep", "1000",
    ]);
    daemon.ok(&["exec", "one", "true"]);
    daemon.ok(&["pause", "one"]);
    daemon.ok(&["unpause", "one"]);
    daemon.ok(&["rename", "one", "two"]);
    daemon.ok(&["update", "--cpu-shares", "512", "two"]);
    daemon.ok(&["top", "two"]);
    let copy = daemon.dir.path().join("copy").display().to_string();
    daemon.ok(&["cp", "two:/etc/passwd", &copy]);
    daemon.ok(&["kill", "two"]);
    daemon.ok(&["wait", "two"]);
    daemon.ok(&["commit", "two", "made:1"]);
    daemon.ok(&["rm", "two"]);
    let life = past(&daemon, &["type=container"]);
    let words = actions(&life);
    for wanted in [
        "create",
        "start",
        "exec_create: true ",
        "exec_start: true ",
        "exec_die",
        "pause",
        "unpause",
        "rename",
        "update",
        "top",
        "archive-path",
        "kill",
        "die",
        "commit",
        "destroy",
    ] {
        let found = words.iter().any(|word| word.trim_end() == wanted.trim_end());
        assert!(found, "{wanted} is missing: {words:?}");
    }
    let of = |action: &str| {
        let event = life.iter().find(|event| event["Action"] == action).unwrap();
        event["Actor"]["Attributes"].clone()
    };
    assert_eq!(of("create")["name"], "one");
    assert_eq!(of("create")["image"], "box:1");
    assert_eq!(of("create")["team"], "a");
    assert_eq!(of("rename")["oldName"], "/one");
    assert_eq!(of("rename")["name"], "two");
    assert_eq!(of("kill")["signal"], "9");
    assert_eq!(of("die")["exitCode"], "137");
    assert_eq!(of("exec_die")["exitCode"], "0");
    // By every kind of filter.
    assert_eq!(actions(&past(&daemon, &["event=die"])), ["die"]);
    assert_eq!(past(&daemon, &["container=one", "event=create"]).len(), 1);
    assert_eq!(past(&daemon, &["label=team=a", "event=start"]).len(), 1);
    assert_eq!(past(&daemon, &["label=team=b"]).len(), 0);
    assert_eq!(past(&daemon, &["image=box", "event=start"]).len(), 1);
    let network = past(&daemon, &["type=network"]);
    assert_eq!(actions(&network), ["connect", "disconnect"]);
    let attributes = &network[0]["Actor"]["Attributes"];
    assert_eq!(attributes["name"], "bridge");
    assert_eq!(attributes["container"], life[0]["Actor"]["ID"]);
    let all = past(&daemon, &[]);
    daemon.crash_and_restart();
    assert_eq!(past(&daemon, &[]), all, "the next daemon knows what happened");
}

#[test]
fn the_stream_has_the_form_that_was_asked_for() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&["create", "--name", "one", "box:1", "true"]);
    let ask = |version: &str, accept: &str| {
        let mut socket = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
        // A moment that has passed, so that the stream ends.
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs_f64();
        let filters = "%7B%22event%22%3A%5B%22create%22%5D%7D";
        write!(
            socket,
            "GET /{version}/events?since=1&until={now:.9}&filters={filters} HTTP/1.0\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        let _ = socket.set_read_timeout(Some(std::time::Duration::from_secs(5)));
        let _ = socket.read_to_string(&mut answer);
        answer
    };
    for (accept, kind, head) in [
        ("application/json", "application/json", "{"),
        ("application/x-ndjson", "application/x-ndjson", "{"),
        ("application/jsonl", "application/jsonl", "{"),
        ("application/json-seq", "application/json-seq", "\u{1e}{"),
    ] {
        let answer = ask("v1.51", accept);
        let (headers, body) = answer
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("{answer:?}"));
        let headers = headers.to_ascii_lowercase();
        assert!(headers.contains(&format!("content-type: {kind}")), "{headers}");
        assert!(
            body.starts_with(head) && body.contains("\"Action\":\"create\""),
            "{body:?}"
        );
    }
}
