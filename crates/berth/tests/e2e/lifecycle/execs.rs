//! Execs that outlive the daemon that started them: the next one knows each, and how it ended.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{BERTH, Daemon, inspect, retry, text};

/// What is told of an exec of the container, by the last word of its command line.
fn execs(daemon: &Daemon, ids: &[String]) -> BTreeMap<String, Value> {
    let told = ids.iter().map(|id| {
        let answer = crate::http::request(daemon, "GET", &format!("/v1.47/exec/{id}/json"), "", b"");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let exec: Value = serde_json::from_str(&answer.body).unwrap();
        let words = exec["ProcessConfig"]["arguments"].as_array().unwrap();
        (words.last().unwrap().as_str().unwrap().to_owned(), exec)
    });
    told.collect()
}

fn open(daemon: &Daemon) -> Vec<String> {
    let told = inspect(daemon, "box", "{{json .ExecIDs}}");
    // None is no list.
    serde_json::from_str::<Option<_>>(&told)
        .unwrap()
        .unwrap_or_default()
}

fn client(daemon: &Daemon, words: &[&str]) -> Child {
    Command::new(BERTH)
        .args(words)
        .env("DOCKER_HOST", daemon.socket())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The exec's exit code and whether it runs.
fn end(exec: &Value) -> (Option<i64>, bool) {
    (exec["ExitCode"].as_i64(), exec["Running"].as_bool().unwrap())
}

#[test]
fn how_an_exec_ended_while_there_was_no_daemon_is_known_to_the_next() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.keep("box", &[], &["sleep", "1000"]);
    let until = |code: &str| format!("while ! [ -e /end ]; do sleep 0.05; done; exit {code}");
    let (seven, nine) = (until("7"), until("9"));
    let lost = client(&daemon, &["exec", "-u", "33:33", "box", "sh", "-c", &seven]);
    daemon.ok(&["exec", "-d", "box", "sh", "-c", &nine]);
    daemon.ok(&["exec", "-d", "box", "sleep", "1000"]);
    assert_eq!(daemon.fails(&["exec", "box", "sh", "-c", "exit 5"]).0, 5);
    let ids = retry(|| Some(open(&daemon)).filter(|ids| ids.len() == 3)).unwrap();
    let before = retry(|| {
        let told = execs(&daemon, &ids);
        told.values()
            .all(|exec| end(exec) == (None, true))
            .then_some(told)
    });
    let before = before.unwrap_or_else(|| panic!("{:?}", execs(&daemon, &ids)));
    let root = format!("/proc/{}/root", inspect(&daemon, "box", "{{.State.Pid}}"));

    daemon.child.kill().unwrap();
    daemon.child.wait().unwrap();
    // A client that is left alone says so, and does not take it for success.
    let left = lost.wait_with_output().unwrap();
    let said = text(&left.stderr);
    assert_eq!(left.status.code(), Some(125), "{said}");
    assert!(
        said.contains("the connection to the daemon was lost") && said.contains("/exec/"),
        "{said}"
    );
    std::fs::write(Path::new(&root).join("end"), "").unwrap();
    for word in [&seven, &nine] {
        let process = format!("/proc/{}", before[word]["Pid"]);
        let gone = retry(|| (!Path::new(&process).exists()).then_some(()));
        assert!(gone.is_some(), "{word} does not end");
    }

    let ends = [(&seven, (Some(7), false)), (&nine, (Some(9), false))];
    // The second time by a daemon that has not started them either.
    for _ in 0..2 {
        daemon.start_again();
        // Asked at once.
        let after = execs(&daemon, &ids);
        for (word, ended) in ends {
            assert_eq!(end(&after[word]), ended, "{after:?}");
            for same in ["ContainerID", "ProcessConfig", "OpenStdout", "OpenStdin"] {
                assert_eq!(after[word][same], before[word][same], "{same} of {word}");
            }
        }
        assert_eq!(end(&after["1000"]), (None, true), "{after:?}");
        assert_eq!(after["1000"]["Pid"], before["1000"]["Pid"]);
        assert_eq!(open(&daemon), [after["1000"]["ID"].as_str().unwrap()]);
        let unknown = crate::http::request(&daemon, "GET", "/v1.47/exec/nosuch/json", "", b"");
        assert_eq!(unknown.status, 404, "{}", unknown.body);
        let mut codes: Vec<String> = daemon
            .told(&["event=exec_die"], "{{.Actor.Attributes.exitCode}}")
            .lines()
            .map(str::to_owned)
            .collect();
        codes.sort_unstable();
        assert_eq!(codes, ["5", "7", "9"], "each once");
        daemon.child.kill().unwrap();
        daemon.child.wait().unwrap();
    }
    // The one that has gone on is as any other.
    daemon.start_again();
    let id = before["1000"]["ID"].as_str().unwrap().to_owned();
    crate::support::signal(&before["1000"]["Pid"].to_string(), "-KILL");
    let ended = retry(|| {
        let told = execs(&daemon, std::slice::from_ref(&id));
        (end(&told["1000"]) == (Some(137), false)).then_some(())
    });
    assert!(ended.is_some(), "{:?}", execs(&daemon, &[id]));
    let told = retry(|| {
        let told = daemon.told(&["event=exec_die"], "{{.Actor.Attributes.exitCode}}");
        told.ends_with("137\n").then_some(())
    });
    assert!(told.is_some());
    assert_eq!(open(&daemon), [""; 0]);
}

/// The daemon came back before the client asked, and the process goes on: that is no exit code 0.
#[test]
fn a_client_that_lost_its_exec_does_not_take_it_for_ended() {
    guard!();
    let mut daemon = Daemon::start();
    daemon.keep("box", &[], &["sleep", "1000"]);
    let lost = client(&daemon, &["exec", "box", "sleep", "1000"]);
    assert!(retry(|| (open(&daemon).len() == 1).then_some(())).is_some());
    // It is stopped while daemons change, so that it asks the second one.
    let process = lost.id().to_string();
    crate::support::signal(&process, "-STOP");
    daemon.crash_and_restart();
    crate::support::signal(&process, "-CONT");
    let left = lost.wait_with_output().unwrap();
    let said = text(&left.stderr);
    assert_eq!(left.status.code(), Some(125), "{said}");
    assert!(said.contains("it runs without this client"), "{said}");
}
