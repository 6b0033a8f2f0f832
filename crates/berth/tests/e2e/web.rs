//! A web server on loopback whose answers a test decides: honest files, a registry, and every kind of lie.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::tarball::{Image, MANIFEST};

/// What is answered at one path.
#[derive(Clone, Default)]
pub struct Page {
    /// 0 stands for 200.
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body, which was announced in full.
    pub cut: Option<usize>,
    /// The connection ends without an answer.
    pub hangs_up: bool,
}

impl Page {
    pub fn of(body: impl Into<Vec<u8>>) -> Page {
        Page {
            body: body.into(),
            ..Page::default()
        }
    }

    pub fn status(status: u16) -> Page {
        Page {
            status,
            ..Page::default()
        }
    }
}

/// The server; it ends with the test's process.
#[derive(Clone)]
pub struct Web {
    pub address: String,
    pages: Arc<Mutex<HashMap<String, Page>>>,
}

impl Web {
    pub fn start() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Web {
            address: listener.local_addr().unwrap().to_string(),
            pages: Arc::default(),
        };
        let server = web.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        web
    }

    pub fn put(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    /// Changes a page that is there.
    pub fn change(&self, path: &str, change: impl FnOnce(&mut Page)) {
        change(self.pages.lock().unwrap().get_mut(path).unwrap());
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Serves `image` as a registry does; gives the paths of its first layer and of its manifest.
    pub fn serve_image(&self, repository: &str, image: &Image) -> Served {
        self.put("/v2/", Page::of("{}"));
        let manifest = Page {
            headers: vec![
                ("Content-Type", MANIFEST.to_owned()),
                ("Docker-Content-Digest", image.digest().to_string()),
            ],
            ..Page::of(image.manifest.clone())
        };
        let by_digest = format!("/v2/{repository}/manifests/{}", image.digest());
        let by_tag = format!("/v2/{repository}/manifests/1");
        self.put(&by_digest, manifest.clone());
        self.put(&by_tag, manifest);
        let mut paths = Vec::new();
        for (digest, bytes) in image.blobs().into_iter().skip(1) {
            let path = format!("/v2/{repository}/blobs/{digest}");
            self.put(&path, Page::of(bytes));
            paths.push(path);
        }
        Served {
            name: format!("{}/{repository}:1", self.address),
            manifests: [by_tag, by_digest],
            config: paths.remove(0),
            layers: paths,
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        while let Some((method, path)) = read_request(&mut stream) {
            let page = {
                let pages = self.pages.lock().unwrap();
                // A server of plain files does not look at the query.
                let plain = path.split('?').next().unwrap_or_default();
                pages.get(&path).or_else(|| pages.get(plain)).cloned()
            };
            let page = page.unwrap_or_else(|| Page::status(404));
            if page.hangs_up {
                return;
            }
            let status = if page.status == 0 { 200 } else { page.status };
            let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", page.body.len());
            for (name, value) in &page.headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let mut answer = head.into_bytes();
            answer.extend_from_slice(b"\r\n");
            if method != "HEAD" {
                let end = page.cut.unwrap_or(page.body.len());
                answer.extend_from_slice(&page.body[..end]);
            }
            if stream.write_all(&answer).is_err() || page.cut.is_some() && method != "HEAD" {
                return;
            }
        }
    }
}

/// Where a served image is.
pub struct Served {
    /// What to pull.
    pub name: String,
    pub manifests: [String; 2],
    pub config: String,
    pub layers: Vec<String>,
}

/// Method and path; what else the head says does not matter here, and a body is taken and forgotten.
fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
        // A client that begins with TLS hears at once that there is none, and does not wait for an answer.
        if head == [0x16] {
            return None;
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let small = head.to_ascii_lowercase();
    if small.contains("\r\ntransfer-encoding: chunked") {
        let mut end = [0; 5];
        while end != *b"0\r\n\r\n" {
            stream.read_exact(&mut byte).ok()?;
            end.rotate_left(1);
            end[4] = byte[0];
        }
    } else if let Some((_, rest)) = small.split_once("\r\ncontent-length: ") {
        let length = rest.lines().next()?.trim().parse().ok()?;
        std::io::copy(&mut stream.take(length), &mut std::io::sink()).ok()?;
    }
    let mut words = head.split_whitespace();
    let method = words.next()?.to_owned();
    // What a query asks beyond the path makes no difference here.
    Some((method, words.next()?.split('?').next()?.to_owned()))
}
