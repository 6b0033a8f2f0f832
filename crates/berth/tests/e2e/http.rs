//! Requests as a foreign client would write them: bytes on the socket, status and body back.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::support::{Daemon, retry};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// The text of a refusal; clients too old for JSON get it bare.
    pub fn message(&self) -> String {
        match serde_json::from_str::<serde_json::Value>(&self.body) {
            Ok(value) => value["message"].as_str().unwrap_or_default().to_owned(),
            Err(_) => self.body.trim().to_owned(),
        }
    }
}

/// One request with a body of the given media type (none when empty), on a connection of its own.
pub fn request(daemon: &Daemon, method: &str, path: &str, media_type: &str, body: &[u8]) -> Answer {
    request_with(daemon, method, path, &[("Content-Type", media_type)], body)
}

/// The same with any headers; those with an empty value are left out.
pub fn request_with(
    daemon: &Daemon,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n");
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    // A refusal may come before the body was taken.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    // The connection may be reset behind an answer, where the rest of the body was not wanted.
    let _ = stream.read_to_end(&mut bytes);
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok());
    let mut body = bytes[end + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answer {
        status: status.unwrap_or_else(|| panic!("no status: {head}")),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
        let length = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
        let rest = &bytes[end + 2..];
        if length == 0 || rest.len() < length {
            break;
        }
        whole.extend_from_slice(&rest[..length]);
        bytes = rest[length..].strip_prefix(b"\r\n").unwrap_or_default();
    }
    whole
}

/// A request of which the client says at once that nothing follows it.
fn half_closed(daemon: &Daemon, method: &str, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}

fn listeners(daemon: &Daemon) -> String {
    daemon
        .ok(&["info", "-f", "{{.NEventsListener}}"])
        .trim()
        .to_owned()
}

#[test]
fn a_client_that_sends_no_more_gets_its_answer_and_one_that_is_gone_is_let_go() {
    guard!();
    let daemon = Daemon::start();
    let answer = |mut stream: UnixStream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        parse(&bytes)
    };
    let ping = answer(half_closed(&daemon, "GET", "/_ping"));
    assert_eq!((ping.status, ping.body.as_str()), (200, "OK"));
    // One that has to wait for something, too.
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "box:1",
        "sh",
        "-c",
        "read line </tmp/none; sleep 1; exit 3",
    ]);
    let waited = answer(half_closed(&daemon, "POST", "/v1.51/containers/one/wait"));
    assert_eq!(waited.status, 200);
    assert_eq!(waited.body.trim(), r#"{"StatusCode":3}"#);
    // It stays while it listens, and goes with its socket.
    let following = half_closed(&daemon, "GET", "/v1.51/events");
    assert!(retry(|| (listeners(&daemon) == "1").then_some(())).is_some());
    daemon.ok(&["volume", "create", "heard"]);
    let mut first = [0; 15];
    let mut reader = following;
    reader.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    assert_eq!(listeners(&daemon), "1");
    drop(reader);
    assert!(retry(|| (listeners(&daemon) == "0").then_some(())).is_some());
}

/// One exchange instead of three, for a client that asks for it; others see Docker's API.
#[test]
fn an_exec_is_made_started_and_ended_in_one_exchange() {
    guard!();
    let daemon = Daemon::start();
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "idle",
        "--network",
        "none",
        "box:1",
        "sleep",
        "1000",
    ]);
    let exchange = |name: &str, command: &str| {
        let document = serde_json::json!({
            "AttachStdout": true, "AttachStderr": true, "Cmd": ["sh", "-c", command],
        });
        let body = document.to_string();
        let mut stream = UnixStream::connect(daemon.dir.path().join("run/berth.sock")).unwrap();
        let head = format!(
            "POST /v1.51/containers/{name}/exec HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: berth-exec\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        parse(&bytes)
    };
    let answer = exchange("idle", "echo to-out; echo to-err >&2; exit 7");
    assert_eq!(answer.status, 101);
    let frames = [
        "\u{1}\0\0\0\0\0\0\u{7}to-out\n",
        "\u{2}\0\0\0\0\0\0\u{7}to-err\n",
        "\u{4}\0\0\0\0\0\0\u{1}7",
    ];
    let length: usize = frames.iter().map(|frame| frame.len()).sum();
    assert!(
        frames.iter().all(|frame| answer.body.contains(frame)),
        "{answer:?}"
    );
    assert!(
        answer.body.len() == length && answer.body.ends_with(frames[2]),
        "{answer:?}"
    );
    // What cannot be made is refused as ever, and what cannot be started ends with its code.
    let missing = exchange("nosuch", "true");
    assert_eq!(
        (missing.status, missing.message().as_str()),
        (404, "No such container: nosuch")
    );
    let (code, complaint) = daemon.fails(&["exec", "idle", "/no/such/program"]);
    assert_eq!(code, 127, "{complaint}");
}
