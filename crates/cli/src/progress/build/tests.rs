use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexLog, VertexStatus, VertexWarning};

use super::*;

#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<u8>>>);

impl Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Shown {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn at(tenths: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: 1000 + tenths / 10,
        nanos: i32::try_from(tenths % 10).unwrap() * 100_000_000,
    })
}

fn vertex(digest: &str, ended: Option<Timestamp>) -> StatusResponse {
    StatusResponse {
        vertexes: vec![Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            started: at(0),
            completed: ended,
            ..Vertex::default()
        }],
        ..StatusResponse::default()
    }
}

fn said(digest: &str, text: &str) -> StatusResponse {
    StatusResponse {
        logs: vec![VertexLog {
            vertex: digest.to_owned(),
            timestamp: at(1),
            stream: 1,
            msg: text.as_bytes().to_vec(),
        }],
        ..StatusResponse::default()
    }
}

fn part(digest: &str, id: &str, current: i64, ended: bool) -> StatusResponse {
    StatusResponse {
        statuses: vec![VertexStatus {
            id: id.to_owned(),
            vertex: digest.to_owned(),
            current,
            total: current,
            started: at(0),
            completed: ended.then(|| at(3)).flatten(),
            ..VertexStatus::default()
        }],
        ..StatusResponse::default()
    }
}

/// Two steps at once: one is known, one speaks and fails.
fn build(screen: &mut Screen) {
    let mut known = vertex("a", at(0));
    known.vertexes[0].cached = true;
    let mut failed = vertex("b", at(12));
    failed.vertexes[0].error = "exit code: 3".to_owned();
    screen.take(&vertex("a", None));
    screen.take(&vertex("b", None));
    screen.take(&part("b", "cache miss: file src/a changed", 0, true));
    screen.take(&part("b", "layer", 2_000_000, false));
    screen.take(&said("b", "half a "));
    screen.take(&known);
    screen.take(&said("b", "line\nthe \u{1b}[2Jlast\n"));
    screen.take(&part("b", "layer", 2_000_000, true));
    screen.take(&failed);
}

/// An engine may tell of many steps in one message.
#[test]
fn a_step_that_begins_and_ends_at_once_is_shown_in_one_piece() {
    let shown = Shown::default();
    let mut screen = Screen::on(Mode::Plain, Box::new(shown.clone()));
    let mut all = StatusResponse::default();
    for digest in ["a", "b"] {
        for ended in [None, at(0)] {
            let mut known = vertex(digest, ended);
            known.vertexes[0].cached = ended.is_some();
            all.vertexes.extend(known.vertexes);
        }
    }
    all.vertexes.extend(vertex("c", None).vertexes);
    all.vertexes.extend(vertex("c", at(10)).vertexes);
    all.logs.extend(said("c", "its last\n").logs);
    screen.take(&all);
    let text = shown.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..7],
        [
            "#1 step a",
            "#1 CACHED",
            "",
            "#2 step b",
            "#2 CACHED",
            "",
            "#3 step c"
        ]
    );
    assert!(lines[7].ends_with("its last"), "{text}");
    assert_eq!(lines[8..], ["#3 DONE 1.0s"]);
}

#[test]
fn lines_have_numbers() {
    let shown = Shown::default();
    let mut screen = Screen::on(Mode::Plain, Box::new(shown.clone()));
    build(&mut screen);
    screen.fail();
    let text = shown.text();
    // The time at which something was said is that of this machine.
    let text: Vec<String> = text
        .lines()
        .map(|line| match line.split(' ').nth(1) {
            Some(word) if word.contains('.') && word.parse::<f64>().is_ok() => line.replacen(word, "TIME", 1),
            _ => line.to_owned(),
        })
        .collect();
    assert_eq!(
        text,
        [
            "#1 step a",
            "",
            "#2 step b",
            "#2 cache miss: file src/a changed",
            "#2 TIME half a ",
            "",
            "#1 step a",
            "#1 CACHED",
            "",
            "#2 step b",
            "#2 TIME line",
            "#2 TIME the \u{fffd}[2Jlast",
            "#2 layer 2MB / 2MB 0.3s done",
            "#2 ERROR: exit code: 3",
        ]
    );
}

#[test]
fn a_terminal_shows_the_last_lines_of_what_runs_and_opens_what_failed() {
    let mut steps = Steps::default();
    let tty = Tty::default();
    steps.take(&vertex("a", at(5)));
    steps.take(&vertex("b", None));
    for line in 0..20 {
        steps.take(&said("b", &format!("line {line}\n")));
    }
    steps.take(&part("b", "layer", 1_500_000, false));
    let lines = tty.lines(&steps, 24, 60);
    assert!(lines[0].ends_with("(1/2)"), "{lines:?}");
    assert!(
        lines[1].starts_with(" => step a ") && lines[1].ends_with(" 0.5s"),
        "{lines:?}"
    );
    assert_eq!(lines[1].chars().count(), 60);
    assert_eq!(lines[3], " => => layer 1.5MB / 1.5MB");
    assert_eq!(
        lines[4..],
        (14..20).map(|n| format!(" => => # line {n}")).collect::<Vec<_>>()
    );
    // What has ended makes place.
    let few = tty.lines(&steps, 4, 60);
    assert_eq!(few.len(), 4);
    assert!(!few.iter().any(|line| line.contains("step a")), "{few:?}");

    let shown = Shown::default();
    let mut screen = Screen::on(Mode::Tty, Box::new(shown.clone()));
    build(&mut screen);
    screen.draw();
    screen.fail();
    let text = shown.text();
    assert!(
        text.contains(" => CACHED step a") && text.contains(" => ERROR step b"),
        "{text}"
    );
    assert!(text.contains("made because file src/a changed"), "{text}");
    assert!(
        text.ends_with("------\n > step b:\nhalf a line\nthe \u{fffd}[2Jlast\n------\n"),
        "{text}"
    );
    assert!(text.contains("\x1b[4A\r"), "it is drawn in place: {text:?}");
}

#[test]
fn nothing_is_shown_of_a_quiet_build_unless_it_fails() {
    let shown = Shown::default();
    let mut screen = Screen::on(Mode::Quiet, Box::new(shown.clone()));
    build(&mut screen);
    screen.finish();
    assert_eq!(shown.text(), "");
    screen.fail();
    assert!(shown.text().contains("#2 ERROR: exit code: 3"));
}

#[test]
fn messages_are_written_as_json() {
    let shown = Shown::default();
    let mut screen = Screen::on(Mode::Raw, Box::new(shown.clone()));
    screen.take(&vertex("a", at(5)));
    screen.take(&said("a", "x"));
    screen.take(&StatusResponse {
        warnings: vec![VertexWarning {
            vertex: "a".to_owned(),
            level: 1,
            short: b"w".to_vec(),
            ..VertexWarning::default()
        }],
        ..StatusResponse::default()
    });
    let text = shown.text();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["vertexes"][0]["digest"], "a");
    assert_eq!(lines[0]["vertexes"][0]["completed"], "1970-01-01T00:16:40.5Z");
    assert_eq!(lines[0]["vertexes"][0].get("cached"), None);
    assert_eq!(lines[1]["logs"][0]["data"], "eA==");
    assert_eq!(lines[2]["warnings"][0]["short"], "dw==");
}

#[test]
fn a_warning_is_counted_once() {
    let warned = |vertex: &str, url: &str| StatusResponse {
        warnings: vec![VertexWarning {
            vertex: vertex.to_owned(),
            url: url.to_owned(),
            short: b"beware".to_vec(),
            ..VertexWarning::default()
        }],
        ..StatusResponse::default()
    };
    let mut steps = Steps::default();
    for _ in 0..2 {
        steps.take(&warned("a", "one"));
    }
    assert_eq!(steps.warnings().matches(" - beware\n").count(), 1);
    steps.take(&warned("b", "one"));
    steps.take(&warned("b", "two"));
    let text = steps.warnings();
    assert!(text.starts_with("\n3 warnings found"), "{text}");
}

#[test]
fn modes_are_known_by_name() {
    assert_eq!(Mode::of("rawjson"), Ok(Mode::Raw));
    assert!(
        check("fancy")
            .unwrap_err()
            .contains("use auto, plain, tty, rawjson or quiet")
    );
    assert!(check("tty").is_ok());
}
