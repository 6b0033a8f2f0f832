//! `run` against a small engine: the order of requests, the copied output, and the exit codes.
#![allow(clippy::unwrap_used, clippy::panic)]

mod daemon;

use daemon::{Answer, Daemon, Request};
use std::io::{Read, Write};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

const ID: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// An engine whose container waits for its start, echoes its stdin's length and exits with `code`.
fn engine(code: i64, start: (u16, &'static str)) -> Daemon {
    let (started, wait_start) = mpsc::channel::<()>();
    let (ended, wait_end) = mpsc::channel::<()>();
    let (wait_start, wait_end) = (
        Arc::new(Mutex::new(Some(wait_start))),
        Arc::new(Mutex::new(Some(wait_end))),
    );
    let (started, ended) = (Mutex::new(started), Mutex::new(ended));
    Daemon::start(move |request: &Request| {
        let path = request.path.split('?').next().unwrap_or_default();
        match (
            request.method.as_str(),
            path.rsplit('/').next().unwrap_or_default(),
        ) {
            ("POST", "create") => Answer::Json(201, format!(r#"{{"Id":"{ID}","Warnings":[]}}"#)),
            ("POST", "attach") => {
                let wait_start = wait_start.lock().unwrap().take().unwrap();
                let ended = ended.lock().unwrap().clone();
                Answer::Hijack(Box::new(move |mut stream| {
                    if wait_start.recv().is_ok() {
                        let mut input = Vec::new();
                        stream.read_to_end(&mut input).unwrap();
                        let text = format!("got {} bytes\n", input.len());
                        let mut frame = vec![1, 0, 0, 0];
                        frame.extend((text.len() as u32).to_be_bytes());
                        frame.extend(text.bytes());
                        stream.write_all(&frame).unwrap();
                    }
                    let _ = ended.send(());
                }))
            }
            ("POST", "wait") => {
                let wait_end = wait_end.lock().unwrap().take().unwrap();
                Answer::Late(Box::new(move || {
                    let _ = wait_end.recv();
                    format!(r#"{{"StatusCode":{code}}}"#)
                }))
            }
            ("POST", "start") if start.0 == 204 => {
                started.lock().unwrap().send(()).unwrap();
                Answer::Json(204, String::new())
            }
            ("POST", "start") => {
                // What a failed start does to the others: the streams end.
                *started.lock().unwrap() = mpsc::channel().0;
                Answer::Json(start.0, format!(r#"{{"message":"{}"}}"#, start.1))
            }
            _ => Answer::Json(404, r#"{"message":"no such thing"}"#.into()),
        }
    })
}

#[test]
fn attach_and_wait_come_before_start_and_the_exit_code_is_the_containers() {
    let engine = engine(7, (204, ""));
    assert_eq!(engine.run(&["run", "--rm", "busybox", "true"]), 7);
    let paths = engine.paths();
    assert_eq!(paths.len(), 4, "{paths:?}");
    assert_eq!(paths[0], "POST /containers/create");
    let mut middle = paths[1..3].to_vec();
    middle.sort();
    assert_eq!(
        middle,
        [
            format!("POST /containers/{ID}/attach"),
            format!("POST /containers/{ID}/wait")
        ]
    );
    assert_eq!(paths[3], format!("POST /containers/{ID}/start"));
    let requests = engine.requests.lock().unwrap();
    assert!(
        requests
            .iter()
            .any(|request| request.path.ends_with("/wait?condition=removed"))
    );
    assert!(
        requests
            .iter()
            .any(|request| request.path.ends_with("/attach?stderr=1&stdout=1&stream=1"))
    );
}

#[test]
fn failed_starts_have_their_own_codes() {
    for (message, code) in [
        ("exec: nosuch: executable file not found in $PATH", 127),
        ("exec: /etc: permission denied", 126),
        ("driver failed: port is already allocated", 125),
    ] {
        let engine = engine(0, (400, message));
        assert_eq!(engine.run(&["run", "busybox", "x"]), code, "{message}");
    }
}

#[test]
fn detached_runs_neither_attach_nor_wait() {
    let engine = engine(0, (204, ""));
    assert_eq!(engine.run(&["run", "-d", "--name", "n", "busybox"]), 0);
    assert_eq!(
        engine.paths(),
        [
            "POST /containers/create".to_owned(),
            format!("POST /containers/{ID}/start")
        ]
    );
    assert!(engine.requests.lock().unwrap()[0].path.ends_with("?name=n"));
}

#[test]
fn refusals_are_125_and_unknown_objects_1() {
    let engine = engine(0, (204, ""));
    assert_eq!(
        engine.run(&["run", "--restart", "always", "--rm", "busybox"]),
        125
    );
    assert_eq!(engine.run(&["run", "--nosuch"]), 125);
    assert_eq!(engine.run(&["run", "UPPER"]), 125);
    assert_eq!(engine.run(&["inspect", "nosuch"]), 1);
    assert_eq!(engine.run(&["frob"]), 1);
}
