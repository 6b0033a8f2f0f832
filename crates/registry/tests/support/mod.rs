//! What tests of the registry client and of the image store share: a real registry, a server of canned answers,
//! and a proxy that cuts connections. All of them on loopback, all gone when dropped.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: not every test uses everything, and a failed fixture fails the test"
)]

pub mod memory;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Debian's docker-registry on a free port with its own storage.
pub struct DistributionRegistry {
    child: Child,
    pub port: u16,
    pub storage: tempfile::TempDir,
}

/// A bcrypt line for user `user`, password `secret`.
const HTPASSWD: &str = "user:$2b$05$T9he9qgdaMYHsMr.7H.saeA0zwQ1oEkGNmCdXxXjGVqL4N8UvfdSu\n";

impl DistributionRegistry {
    /// Starts it; `None` with a printed reason where it is not installed.
    pub fn start(with_password: bool) -> Option<DistributionRegistry> {
        let program = "/usr/bin/docker-registry";
        if !Path::new(program).exists() {
            println!("skipped: {program} is not installed");
            return None;
        }
        for _ in 0..5 {
            let storage = tempfile::tempdir().unwrap();
            let port = free_port();
            let mut config = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n\
                 http: {{addr: \"127.0.0.1:{port}\"}}\n",
                storage.path().join("data").display()
            );
            if with_password {
                let passwords = storage.path().join("htpasswd");
                std::fs::write(&passwords, HTPASSWD).unwrap();
                config += &format!(
                    "auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
                    passwords.display()
                );
            }
            let file = storage.path().join("config.yml");
            std::fs::write(&file, config).unwrap();
            let mut child = Command::new(program)
                .args(["serve".as_ref(), file.as_os_str()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Some(DistributionRegistry { child, port, storage });
                }
                thread::sleep(Duration::from_millis(20));
            }
            // Somebody took the port between the question and the start.
        }
        panic!("docker-registry does not start");
    }

    pub fn name(&self, repository: &str) -> String {
        format!("127.0.0.1:{}/{repository}", self.port)
    }
}

impl Drop for DistributionRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// Path with query.
    pub target: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
    /// All of the body came; else the connection broke before its end, and nobody hears the answer.
    pub whole: bool,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Announce this length instead of the body's.
    pub claim: Option<usize>,
    pub end: End,
}

/// What comes after the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection closes.
    Closed,
    /// Nothing, and the connection stays until the client closes it.
    Silent,
    /// Blanks without end, of which no length is announced.
    Endless,
}

impl Answer {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status,
            headers: Vec::new(),
            body: body.into(),
            claim: None,
            end: End::Closed,
        }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Answer {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

/// An HTTP server whose answers a closure gives. Records every request.
pub struct Canned {
    pub port: u16,
    pub requests: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
}

impl Canned {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Canned {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, ended, answer) = (requests.clone(), stop.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || stream.ok().and_then(|s| serve(&s, &log, &*answer)));
            }
        });
        Canned { port, requests, stop }
    }

    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    stream: &TcpStream,
    log: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(&Request) -> Answer + Send + Sync),
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    reader.by_ref().take(8192).read_until(b'\n', &mut line).ok()?;
    // A TLS handshake is not HTTP: hang up, as servers do.
    let line = String::from_utf8(line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers
        .get("content-length")
        .and_then(|l| l.parse().ok())
        .unwrap_or(0);
    let mut body = Vec::new();
    let _ = reader.by_ref().take(length as u64).read_to_end(&mut body);
    let whole = body.len() == length;
    let request = Request {
        method,
        target,
        headers,
        body,
        whole,
    };
    log.lock().unwrap().push(request.clone());
    let answer = answer(&request);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if answer.end != End::Endless {
        let length = answer.claim.unwrap_or(answer.body.len());
        head += &format!("content-length: {length}\r\n");
    }
    head += "\r\n";
    let mut stream = stream;
    stream.write_all(head.as_bytes()).ok()?;
    if request.method != "HEAD" {
        stream.write_all(&answer.body).ok()?;
        match answer.end {
            End::Closed => {}
            // Until the client has had enough.
            End::Silent => {
                let _ = reader.read(&mut [0]);
            }
            End::Endless => while stream.write_all(&[b' '; 64 << 10]).is_ok() {},
        }
    }
    stream.shutdown(Shutdown::Write).ok()
}

/// Passes connections on to a port, but cuts the first few after a number of bytes from the server.
pub struct CuttingProxy {
    pub port: u16,
    pub cuts: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl CuttingProxy {
    /// Cuts one connection once more than `after` bytes went to the server; then nobody listens for a while.
    pub fn start_leaving(to: u16, after: usize, away: Duration) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ended) = (cuts.clone(), stop.clone());
        thread::spawn(move || {
            // Until the cut, and after the pause.
            let mut present = Some(listener);
            for pause in [Duration::ZERO, away] {
                thread::sleep(pause);
                let listener = present
                    .take()
                    .unwrap_or_else(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
                listener.set_nonblocking(true).unwrap();
                let listens = || {
                    let is_cut = count.load(Ordering::SeqCst) > 0;
                    !ended.load(Ordering::SeqCst) && (pause > Duration::ZERO || !is_cut)
                };
                while listens() {
                    match listener.accept() {
                        Ok((client, _)) => pass_on(&client, to, 1, after, true, &count),
                        Err(_) => thread::sleep(Duration::from_millis(2)),
                    }
                }
            }
        });
        CuttingProxy { port, cuts, stop }
    }

    /// Cuts `times` connections once more than `after` bytes went to (`upload`) or came from the server.
    pub fn start(to: u16, times: usize, after: usize, upload: bool) -> CuttingProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (count, ended) = (cuts.clone(), stop.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                if let Ok(client) = client {
                    pass_on(&client, to, times, after, upload, &count);
                }
            }
        });
        CuttingProxy { port, cuts, stop }
    }
}

impl Drop for CuttingProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Both ways, until one side ends or is cut.
fn pass_on(client: &TcpStream, to: u16, times: usize, after: usize, upload: bool, cuts: &Arc<AtomicUsize>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else {
        return;
    };
    let limit = |times| Limit {
        times,
        after,
        cuts: cuts.clone(),
    };
    let (up, down) = if upload {
        (limit(times), limit(0))
    } else {
        (limit(0), limit(times))
    };
    let copies = || (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (from, into) = copies();
    thread::spawn(move || pump(&from, &into, &up));
    let (into, from) = copies();
    thread::spawn(move || pump(&from, &into, &down));
}

struct Limit {
    times: usize,
    after: usize,
    cuts: Arc<AtomicUsize>,
}

fn pump(mut from: &TcpStream, mut to: &TcpStream, limit: &Limit) {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => {
                if to.write_all(&buffer[..read]).is_err() {
                    break;
                }
                passed += read;
                if passed > limit.after
                    && limit
                        .cuts
                        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |c| {
                            (c < limit.times).then_some(c + 1)
                        })
                        .is_ok()
                {
                    let _ = from.shutdown(Shutdown::Both);
                    break;
                }
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Bytes that no compression and no accident makes equal.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
