//! Registries behind a proxy, and Docker Hub's search: a proxy of the test's own leads every name to a server on loopback,
//! so that names count which no resolver knows, and Docker Hub's as well.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::certificates::certificate;
use crate::support::{Daemon, Running, retry, text};
use crate::tarball::{Image, Tar};
use crate::web::Web;

/// A forward proxy (RFC 9110, sections 7.1 and 9.3.6); it ends with the test's process.
#[derive(Clone)]
struct Proxy {
    address: String,
    /// Where everything is led to: plain requests, and tunnels.
    plain: String,
    tunnels: String,
    /// What was asked for, in the order it came: method, host with port, credentials.
    asked: Arc<Mutex<Vec<(String, String, String)>>>,
}

impl Proxy {
    fn start(plain: &str, tunnels: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap().to_string(),
            plain: plain.to_owned(),
            tunnels: tunnels.to_owned(),
            asked: Arc::default(),
        };
        let server = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                std::thread::spawn(move || server.serve(stream));
            }
        });
        proxy
    }

    /// One request for each connection.
    fn serve(&self, mut client: TcpStream) -> Option<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if client.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut words = head.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let credentials = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("proxy-authorization: ")
                    .map(|_| line[21..].to_owned())
            })
            .unwrap_or_default();
        let ask = |host: &str| {
            let mut asked = self.asked.lock().unwrap();
            asked.push((method.clone(), host.to_owned(), credentials.clone()));
        };
        if method == "CONNECT" {
            ask(&target);
            let server = TcpStream::connect(&self.tunnels).ok()?;
            client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let up = std::thread::spawn(move || copy(from, to));
            copy(server, client);
            up.join().unwrap();
            return Some(());
        }
        // A proxy is asked for the whole URL, a server for the path.
        let (host, path) = target.strip_prefix("http://")?.split_once('/')?;
        ask(host);
        let mut server = TcpStream::connect(&self.plain).ok()?;
        write!(server, "{method} /{path} HTTP/1.1\r\nHost: {host}\r\n\r\n").ok()?;
        server.shutdown(Shutdown::Write).ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).ok()?;
        let line = answer.iter().position(|byte| *byte == b'\n')? + 1;
        answer.splice(line..line, *b"Connection: close\r\n");
        client.write_all(&answer).ok()
    }

    /// The hosts that were asked for since the last time.
    fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<String> = self
            .asked
            .lock()
            .unwrap()
            .drain(..)
            .map(|(_, host, _)| host)
            .collect();
        hosts.dedup();
        hosts
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn image() -> Image {
    Image::of(&[Tar::default().file("etc/motd", b"from afar\n").finish()])
}

/// A daemon that has the configuration file `config`.
fn configured(dir: &Path, config: &str, environment: &[(&str, &str)]) -> Daemon {
    let file = dir.join("daemon.json");
    std::fs::write(&file, config).unwrap();
    Daemon::start_in(&["--config-file", &file.display().to_string()], environment)
}

#[test]
fn registries_are_reached_through_the_proxies_that_are_configured() {
    guard!();
    let web = Web::start();
    web.serve_image("team/app", &image());
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&web.address, "127.0.0.1:1");
    let named = "far.invalid:5000/team/app:1";
    let config = |proxies: &str| {
        format!(
            r#"{{"insecure-registries": ["far.invalid:5000", "near.invalid:5000"], "proxies": {{{proxies}}}}}"#
        )
    };
    let own = format!("http://user:pa%24%24@{}", proxy.address);
    let daemon = configured(
        dir.path(),
        &config(&format!(
            r#""http-proxy": "{own}", "no-proxy": "near.invalid,other.invalid""#
        )),
        &[("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "far.invalid")],
    );
    daemon.ok(&["pull", named]);
    let asked = proxy.asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    for (method, host, credentials) in &asked {
        assert!(method == "GET" || method == "HEAD", "{method}");
        assert_eq!(host, "far.invalid:5000");
        // user:pa$$ in base64.
        assert_eq!(credentials, "Basic dXNlcjpwYSQk");
    }
    proxy.hosts();
    // Names that are to be reached directly, and loopback, pass the proxy by.
    let (code, said) = daemon.fails(&["pull", "near.invalid:5000/team/app:1"]);
    assert!(code == 1 && said.contains("near.invalid"), "{said}");
    daemon.ok(&["pull", &format!("{}/team/app:1", web.address)]);
    assert_eq!(proxy.hosts(), [""; 0]);
    let shown = daemon.ok(&["info", "-f", "{{.HTTPProxy}} {{.NoProxy}}"]);
    let masked = format!("http://xxxxx:xxxxx@{}/ near.invalid,other.invalid", proxy.address);
    assert_eq!(shown.trim(), masked, "passwords are not told");
    drop(daemon);

    // A proxy that does not answer is told with its registry, and nothing is left behind.
    let daemon = configured(dir.path(), &config(r#""http-proxy": "http://127.0.0.1:1""#), &[]);
    let (code, said) = daemon.fails(&["pull", named]);
    assert!(code == 1 && said.contains("far.invalid:5000"), "{said}");
}

#[test]
fn registries_are_reached_through_the_proxies_of_the_environment() {
    guard!();
    let web = Web::start();
    web.serve_image("team/app", &image());
    let dir = tempfile::tempdir().unwrap();
    let proxy = Proxy::start(&web.address, "127.0.0.1:1");
    let url = format!("http://{}", proxy.address);
    let insecure = r#"{"insecure-registries": ["far.invalid:5000"]}"#;
    for name in ["HTTP_PROXY", "http_proxy"] {
        let daemon = configured(dir.path(), insecure, &[(name, url.as_str())]);
        daemon.ok(&["pull", "far.invalid:5000/team/app:1"]);
        assert_eq!(proxy.hosts(), ["far.invalid:5000"], "{name}");
        assert_eq!(daemon.ok(&["info", "-f", "{{.HTTPProxy}}"]).trim(), url);
    }
    let excepted = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", ".invalid")];
    let daemon = configured(dir.path(), insecure, &excepted);
    daemon.fails(&["pull", "far.invalid:5000/team/app:1"]);
    assert_eq!(proxy.hosts(), [""; 0]);
}

/// Docker Hub is far away and asks nobody twice, so it is played: the name, its certificate and the path are Docker Hub's.
#[test]
fn docker_hub_is_searched_through_a_proxy() {
    guard!();
    let dir = tempfile::tempdir().unwrap();
    if !certificate(dir.path(), "authority", "127.0.0.1", None) {
        return;
    }
    assert!(certificate(
        dir.path(),
        "hub",
        "index.docker.io",
        Some("authority")
    ));
    let trusted = dir.path().join("certs.d/index.docker.io");
    std::fs::create_dir_all(&trusted).unwrap();
    std::fs::copy(dir.path().join("authority.crt"), trusted.join("ca.crt")).unwrap();
    let results = r#"{"num_results":2,"query":"box","results":[
        {"name":"busybox","description":"Base image.","star_count":3000,"is_official":true,"is_automated":false},
        {"name":"me/box","description":"Mine","star_count":2,"is_official":false,"is_automated":false}]}"#;
    std::fs::create_dir_all(dir.path().join("v1")).unwrap();
    std::fs::create_dir_all(dir.path().join("v2")).unwrap();
    let answer = format!(
        "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{results}",
        results.len()
    );
    std::fs::write(dir.path().join("v1/search?q=box&n=25"), &answer).unwrap();
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port().to_string()
    };
    // Its pages are whole answers, each in a file named as its path.
    let server = Command::new("openssl")
        .args([
            "s_server", "-quiet", "-accept", &port, "-cert", "hub.crt", "-key", "hub.key", "-HTTP",
        ])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _server = Running(server);
    let address = format!("127.0.0.1:{port}");
    retry(|| TcpStream::connect(&address).ok()).unwrap();
    let proxy = Proxy::start("127.0.0.1:1", &address);
    let config = format!(r#"{{"proxies": {{"https-proxy": "http://{}"}}}}"#, proxy.address);
    let daemon = configured(dir.path(), &config, &[]);
    let found = daemon.ok(&[
        "search",
        "--format",
        "{{.Name}} {{.StarCount}} {{.IsOfficial}}",
        "box",
    ]);
    assert_eq!(found, "busybox 3000 [OK]\nme/box 2 \n");
    assert_eq!(proxy.hosts(), ["index.docker.io:443"]);
    assert!(
        proxy
            .asked
            .lock()
            .unwrap()
            .iter()
            .all(|(method, ..)| method == "CONNECT")
    );
    let plain = [
        "search",
        "--filter",
        "is-official=true",
        "--format",
        "{{.Name}}",
        "box",
    ];
    assert_eq!(daemon.ok(&plain), "busybox\n");
    // As Docker's client says it.
    if let Some(docker) = daemon.docker(&plain) {
        assert_eq!(text(&docker.stdout), "busybox\n");
    }
}
