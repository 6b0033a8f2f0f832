//! The protocol as it was said in each version, held against the types of the present one: monitors of earlier releases
//! live on under later daemons, and the other way round. What is in `protocol/` is never changed, only added to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use monitor::protocol::{Event, ExitRecord, Heard, Hello, Request, Response, VERSION};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const VERSIONS: [&str; 4] = [
    include_str!("protocol/1.txt"),
    include_str!("protocol/2.txt"),
    include_str!("protocol/3.txt"),
    include_str!("protocol/4.txt"),
];

/// Kind and line of every message that was recorded.
fn recorded() -> Vec<(&'static str, &'static str)> {
    let lines = VERSIONS.iter().flat_map(|text| text.lines());
    lines
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .collect()
}

/// What is understood of a line, said again.
fn again<T: DeserializeOwned + Serialize>(line: &str) -> Value {
    let known: T = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    serde_json::to_value(known).unwrap()
}

/// Whether `said` has everything that is in `known`, which is all that another version looks for.
fn holds(said: &Value, known: &Value) -> bool {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => known
            .iter()
            .all(|(key, value)| said.get(key).is_some_and(|found| holds(found, value))),
        _ => said == known,
    }
}

/// The line with something that is not known in every object of it.
fn grown(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: serde_json::Map<_, _> = fields
                .iter()
                // The name of a message is one key; what it carries grows.
                .map(|(key, field)| (key.clone(), grown(field)))
                .collect();
            if fields.len() != 1 {
                fields.insert("of_a_later_release".to_owned(), json!({"deep": [1]}));
            }
            Value::Object(fields)
        }
        other => other.clone(),
    }
}

#[test]
fn what_was_ever_said_is_understood_and_still_said_so() {
    for (kind, line) in recorded() {
        let read = match kind {
            "request" => again::<Request>,
            "response" => again::<Response>,
            "event" => again::<Event>,
            other => panic!("{other}"),
        };
        let known: Value = serde_json::from_str(line).unwrap();
        let said = read(line);
        assert!(holds(&said, &known), "{line} became {said}");
        let later = grown(&known).to_string();
        assert_eq!(read(&later), said, "{later}");
        if kind == "event" {
            assert!(
                matches!(serde_json::from_str(line), Ok(Heard::Event(_))),
                "{line}"
            );
        }
    }
}

#[test]
fn every_message_was_recorded() {
    // A message that is added makes these incomplete: it goes into the file of a new version as well.
    let request = |request: &Request| match request {
        Request::State => "state",
        Request::Attach(_) => "attach",
        Request::Kill { .. } => "kill",
        Request::Resize { .. } => "resize",
        Request::Exec(_) => "exec",
        Request::ExecResize { .. } => "exec_resize",
        Request::ExecKill { .. } => "exec_kill",
        Request::ExecState { .. } => "exec_state",
        Request::Execs { .. } => "execs",
        Request::Relay { .. } => "relay",
        Request::Watch => "watch",
        Request::Release => "release",
    };
    let response = |response: &Response| match response {
        Response::Done => "done",
        Response::State(_) => "state",
        Response::ExecStarted { .. } => "exec_started",
        Response::ExecState(_) => "exec_state",
        Response::Execs(_) => "execs",
        Response::Watching(_) => "watching",
        Response::Failed(_) => "failed",
    };
    let event = |event: &Event| match event {
        Event::ExecExited { .. } => "exec_exited",
        Event::Oom => "oom",
        Event::LogFailed { .. } => "log_failed",
        Event::LogUnreachable { .. } => "log_unreachable",
        Event::LogDropped { .. } => "log_dropped",
        Event::ListenerBehind => "listener_behind",
        Event::Exited(_) => "exited",
    };
    let mut seen = BTreeSet::new();
    for (kind, line) in recorded() {
        let name = match kind {
            "request" => request(&serde_json::from_str(line).unwrap()),
            "response" => response(&serde_json::from_str(line).unwrap()),
            _ => event(&serde_json::from_str(line).unwrap()),
        };
        seen.insert((kind, name));
    }
    assert_eq!(seen.len(), 12 + 7 + 7, "{seen:?}");
    assert_eq!(usize::try_from(VERSION).unwrap(), VERSIONS.len());
    assert_eq!(Hello::own().version, VERSION);
}

#[test]
fn an_exit_record_of_an_earlier_release_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("exit.json");
    // Before runs were measured.
    let text = r#"{"exit_code":3,"signal":null,"oom_killed":false,"started_at":"2026-11-30T02:20:43Z",
        "finished_at":"2026-11-30T02:20:45Z","peak_memory":null,"of_a_later_release":1}"#;
    std::fs::write(&path, text).unwrap();
    let record = ExitRecord::read(&path).unwrap().unwrap();
    assert_eq!((record.exit_code, record.ran().as_secs()), (3, 2));
}
