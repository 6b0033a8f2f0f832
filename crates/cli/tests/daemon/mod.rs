//! A tiny engine for tests: speaks just enough HTTP/1.1 on a unix socket, records every request, answers from a closure.

// Each test file uses its own part of this.
#![allow(dead_code, clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Without the version.
    pub path: String,
    pub body: Vec<u8>,
}

/// What to answer.
pub enum Answer {
    Json(u16, String),
    /// Takes the connection over; the closure gets the raw stream.
    Hijack(Box<dyn FnOnce(UnixStream) + Send>),
    /// Headers at once, the body when the closure is done.
    Late(Box<dyn FnOnce() -> String + Send>),
}

pub struct Daemon {
    pub requests: Arc<Mutex<Vec<Request>>>,
    pub socket: PathBuf,
    _dir: tempfile::TempDir,
}

type Handler = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

impl Daemon {
    pub fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("d.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, handler): (_, Handler) = (requests.clone(), Arc::new(handler));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, handler) = (seen.clone(), handler.clone());
                thread::spawn(move || serve(stream, &seen, &handler));
            }
        });
        Daemon {
            requests,
            socket,
            _dir: dir,
        }
    }

    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Runs our client against it; answers with the exit code.
    pub fn run(&self, words: &[&str]) -> i32 {
        let host = self.host();
        cli::main(
            ["-H", host.as_str()]
                .iter()
                .chain(words)
                .map(Into::into)
                .collect(),
        )
    }

    pub fn paths(&self) -> Vec<String> {
        let bare = |request: &Request| {
            format!(
                "{} {}",
                request.method,
                request.path.split('?').next().unwrap_or_default()
            )
        };
        self.requests.lock().unwrap().iter().map(bare).collect()
    }
}

fn serve(mut stream: UnixStream, seen: &Mutex<Vec<Request>>, handler: &Handler) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = buffer.split_off(end + 4);
                break String::from_utf8_lossy(&std::mem::replace(&mut buffer, rest)).into_owned();
            }
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            }
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.trim().parse().unwrap());
        while buffer.len() < length {
            let mut chunk = [0; 4096];
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            }
        }
        let rest = buffer.split_off(length);
        let body = std::mem::replace(&mut buffer, rest);
        let mut words = head.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let path = words.next().unwrap_or_default();
        let path = match path.strip_prefix("/v1.").and_then(|tail| tail.split_once('/')) {
            Some((_, tail)) => format!("/{tail}"),
            None => path.to_owned(),
        };
        let request = Request { method, path, body };
        let common = "Api-Version: 1.50\r\nOstype: linux\r\nContent-Type: application/json\r\n";
        if request.path == "/_ping" {
            let text = format!("HTTP/1.1 200 OK\r\n{common}Content-Length: 0\r\n\r\n");
            stream.write_all(text.as_bytes()).unwrap();
            continue;
        }
        seen.lock().unwrap().push(request.clone());
        match handler(&request) {
            Answer::Json(status, text) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\n{common}Content-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                stream.write_all(head.as_bytes()).unwrap();
            }
            Answer::Late(done) => {
                stream
                    .write_all(
                        format!("HTTP/1.1 200 OK\r\n{common}Transfer-Encoding: chunked\r\n\r\n").as_bytes(),
                    )
                    .unwrap();
                let text = done();
                stream
                    .write_all(format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()).as_bytes())
                    .unwrap();
            }
            Answer::Hijack(take) => {
                let head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                take(stream);
                return;
            }
        }
    }
}
