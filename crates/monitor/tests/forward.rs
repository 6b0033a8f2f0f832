//! The forwarder against small real listeners: what arrives, what happens when nobody listens, what is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use monitor::forward::{self, Forward};
use monitor::log::{LogConfig, Subject};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn forward(driver: &str, options: &[(&str, &str)]) -> Forward {
    let options = options
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let labels = BTreeMap::from([("com.example".to_owned(), "yes".to_owned())]);
    let subject = Subject {
        id: "0123456789abcdef0123456789abcdef",
        name: "web",
        image_id: "sha256:abc",
        image: "app:1",
        command: "run it".to_owned(),
        created: "2025-01-02T03:04:05Z".parse().unwrap(),
        env: &[],
        labels: &labels,
        hostname: "host".to_owned(),
    };
    let config = LogConfig::of(driver, &options, Path::new("/nonexistent"), &subject).unwrap();
    config.forward.unwrap()
}

/// A forwarder in a thread of this process, and the monitor's end of its socket.
struct Running {
    socket: UnixStream,
    reports: BufReader<UnixStream>,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(forward: &Forward) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        let thread = std::thread::spawn(move || forward::run(theirs).unwrap());
        let mut line = serde_json::to_vec(forward).unwrap();
        line.push(b'\n');
        (&ours).write_all(&line).unwrap();
        Self {
            reports: BufReader::new(ours.try_clone().unwrap()),
            socket: ours,
            thread,
        }
    }

    fn ready(forward: &Forward) -> Self {
        let mut running = Self::start(forward);
        assert_eq!(running.report(), "\"ready\"");
        running
    }

    fn report(&mut self) -> String {
        let mut line = String::new();
        self.reports.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// An entry as the monitor frames it; see Docker's `local` format.
    fn send(&mut self, source: &str, time: u64, text: &[u8]) {
        let mut message = vec![10, u8::try_from(source.len()).unwrap()];
        message.extend_from_slice(source.as_bytes());
        message.push(16);
        varint(time, &mut message);
        message.push(26);
        varint(text.len() as u64, &mut message);
        message.extend_from_slice(text);
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        self.socket
            .write_all(&[&length[..], &message, &length].concat())
            .unwrap();
    }

    fn end(self) {
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
        self.thread.join().unwrap();
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

/// 2025-11-23T21:26:04.938190936Z
const TIME: u64 = 1_763_933_164_938_190_936;

fn udp() -> (UdpSocket, String) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = format!("udp://{}", socket.local_addr().unwrap());
    (socket, address)
}

fn datagram(receive: impl Fn(&mut [u8]) -> std::io::Result<usize>) -> Vec<u8> {
    let mut buffer = vec![0; 70_000];
    let count = receive(&mut buffer).unwrap();
    buffer.truncate(count);
    buffer
}

#[test]
fn syslog_in_its_forms() {
    let (socket, address) = udp();
    let pid = std::process::id();
    for (format, wanted) in [
        (
            "rfc5424",
            format!("<27>1 2025-11-23T21:26:04Z host tag {pid} tag - oops\n"),
        ),
        (
            "rfc5424micro",
            format!("<27>1 2025-11-23T21:26:04.938190Z host tag {pid} tag - oops\n"),
        ),
        ("rfc3164", format!("<27>Nov 23 21:26:04 host tag[{pid}]: oops\n")),
        ("", format!("<27>Nov 23 21:26:04 tag[{pid}]: oops\n")),
    ] {
        let options = [
            ("syslog-address", address.as_str()),
            ("syslog-format", format),
            ("tag", "tag"),
        ];
        let mut running = Running::ready(&forward("syslog", &options));
        running.send("stderr", TIME, b"oops");
        let got = String::from_utf8(datagram(|buffer| socket.recv(buffer))).unwrap();
        if jiff::tz::TimeZone::system() == jiff::tz::TimeZone::UTC {
            assert_eq!(got, wanted);
        } else {
            println!("skipped in part: the exact text needs the time zone UTC");
        }
        running.end();
    }
}

#[test]
fn syslog_over_streams_and_local_sockets() {
    let root = tempfile::tempdir().unwrap();
    let (gram, stream) = (root.path().join("gram"), root.path().join("stream"));
    let local = UnixDatagram::bind(&gram).unwrap();
    local.set_read_timeout(Some(PATIENCE)).unwrap();
    let unix = UnixListener::bind(&stream).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    // A datagram socket and a stream under the same scheme, as the C library has it.
    let address = format!("unix://{}", gram.display());
    let mut running = Running::ready(&forward("syslog", &[("syslog-address", &address)]));
    running.send("stdout", TIME, b"one");
    let got = datagram(|buffer| local.recv(buffer));
    assert!(got.starts_with(b"<30>"));
    assert!(String::from_utf8(got).unwrap().ends_with(": one\n"));
    running.end();
    let address = format!("unix://{}", stream.display());
    let accepting = std::thread::spawn(move || {
        let mut text = String::new();
        unix.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    let mut running = Running::ready(&forward("syslog", &[("syslog-address", &address)]));
    running.send("stdout", TIME, b"two");
    running.send("stdout", TIME, b"three");
    running.end();
    let text = accepting.join().unwrap();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.ends_with(": three\n"));
    let address = format!("tcp://{}", tcp.local_addr().unwrap());
    let accepting = std::thread::spawn(move || {
        let mut text = String::new();
        tcp.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    let options = [
        ("syslog-address", address.as_str()),
        ("syslog-facility", "local0"),
    ];
    let mut running = Running::ready(&forward("syslog", &options));
    running.send("stdout", TIME, b"four");
    running.end();
    let text = accepting.join().unwrap();
    assert!(text.starts_with("<134>") && text.ends_with(": four\n"), "{text}");
}

#[test]
fn the_journal_gets_dockers_fields() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    journal.set_read_timeout(Some(PATIENCE)).unwrap();
    let socket = path.display().to_string();
    let options = [
        ("journald-socket", socket.as_str()),
        ("labels", "com.example"),
        ("tag", "{{.Name}}"),
    ];
    let mut running = Running::ready(&forward("journald", &options));
    running.send("stderr", TIME, b"bad");
    let text = String::from_utf8(datagram(|buffer| journal.recv(buffer))).unwrap();
    for field in [
        "MESSAGE=bad",
        "PRIORITY=3",
        "CONTAINER_ID=0123456789ab",
        "CONTAINER_ID_FULL=0123456789abcdef0123456789abcdef",
        "CONTAINER_NAME=web",
        "CONTAINER_TAG=web",
        "SYSLOG_IDENTIFIER=web",
        "IMAGE_NAME=app:1",
        "COM_EXAMPLE=yes",
        "SYSLOG_TIMESTAMP=2025-11-23T21:26:04.938190936Z",
        "CONTAINER_LOG_ORDINAL=1",
    ] {
        assert!(
            text.lines().any(|line| line == field),
            "{field} is missing:\n{text}"
        );
    }
    running.end();
}

#[test]
fn gelf_in_chunks_and_over_tcp() {
    let (socket, address) = udp();
    for kind in ["gzip", "zlib", "none"] {
        let options = [
            ("gelf-address", address.as_str()),
            ("gelf-compression-type", kind),
            ("labels", "com.example"),
        ];
        let mut running = Running::ready(&forward("gelf", &options));
        // Random enough that no compression brings it into one datagram.
        let mut text = String::new();
        let mut state = 1u64;
        while text.len() < 9000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            text.push_str(&format!("{state:x}"));
        }
        running.send("stdout", TIME, text.as_bytes());
        let mut parts: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
        loop {
            let part = datagram(|buffer| socket.recv(buffer));
            assert!(part.len() <= 1420 && part.starts_with(&[0x1e, 0x0f]), "{kind}");
            parts.insert(part[10], part[12..].to_vec());
            if parts.len() == usize::from(part[11]) {
                break;
            }
        }
        assert!(parts.len() > 1);
        let packed: Vec<u8> = parts.into_values().flatten().collect();
        let mut document = Vec::new();
        match kind {
            "gzip" => drop(
                flate2::read::GzDecoder::new(&packed[..])
                    .read_to_end(&mut document)
                    .unwrap(),
            ),
            "zlib" => drop(
                flate2::read::ZlibDecoder::new(&packed[..])
                    .read_to_end(&mut document)
                    .unwrap(),
            ),
            _ => document = packed,
        }
        let value: Value = serde_json::from_slice(&document).unwrap();
        assert_eq!(value["short_message"], text.as_str());
        assert_eq!(value["version"], "1.1");
        assert_eq!(value["level"], 6);
        assert_eq!(value["timestamp"], 1_763_933_164.938);
        assert_eq!(value["_container_name"], "web");
        assert_eq!(value["_command"], "run it");
        assert_eq!(value["_com.example"], "yes");
        running.end();
    }
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", tcp.local_addr().unwrap());
    let accepting = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        tcp.accept().unwrap().0.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut running = Running::ready(&forward("gelf", &[("gelf-address", &address)]));
    running.send("stderr", TIME, b"one");
    running.send("stdout", TIME, b"");
    running.send("stdout", TIME, b"two");
    running.end();
    let bytes = accepting.join().unwrap();
    let documents: Vec<Value> = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| serde_json::from_slice(part).unwrap())
        .collect();
    assert_eq!(documents.len(), 2, "the format has no empty messages");
    assert_eq!(documents[0]["level"], 3);
    assert_eq!(documents[1]["short_message"], "two");
}

/// The MessagePack that occurs here.
fn unpack(bytes: &mut &[u8]) -> Value {
    let head = bytes[0];
    *bytes = &bytes[1..];
    let mut number = |width: usize| {
        let (taken, rest) = bytes.split_at(width);
        *bytes = rest;
        taken
            .iter()
            .fold(0usize, |sum, byte| sum << 8 | usize::from(*byte))
    };
    let (kind, count) = match head {
        0x80..=0x8f => ('m', usize::from(head & 15)),
        0x90..=0x9f => ('a', usize::from(head & 15)),
        0xa0..=0xbf => ('s', usize::from(head & 31)),
        0xd9 => ('s', number(1)),
        0xda => ('s', number(2)),
        0xdc => ('a', number(2)),
        0xce => return number(4).into(),
        0xd7 => {
            number(1);
            let seconds = number(4);
            return format!("{seconds}.{:09}", number(4)).into();
        }
        other => panic!("{other:x}"),
    };
    match kind {
        's' => {
            let (text, rest) = bytes.split_at(count);
            *bytes = rest;
            String::from_utf8(text.to_vec()).unwrap().into()
        }
        'a' => (0..count).map(|_| unpack(bytes)).collect(),
        _ => (0..count)
            .map(|_| (unpack(bytes).as_str().unwrap().to_owned(), unpack(bytes)))
            .collect(),
    }
}

#[test]
fn fluentd_acknowledges_and_gets_again_what_it_did_not() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    let accepting = std::thread::spawn(move || {
        let mut seen = Vec::new();
        // The first connection is lost without an acknowledgement, then the batch comes again.
        for lost in [true, false] {
            let (mut stream, _) = tcp.accept().unwrap();
            let mut buffer = vec![0; 65_536];
            let count = stream.read(&mut buffer).unwrap();
            let batch = unpack(&mut &buffer[..count]);
            if !lost {
                let chunk = batch[2]["chunk"].as_str().unwrap();
                let mut answer = vec![0x81, 0xa3];
                answer.extend_from_slice(b"ack");
                answer.push(0xa0 | u8::try_from(chunk.len()).unwrap());
                answer.extend_from_slice(chunk.as_bytes());
                stream.write_all(&answer).unwrap();
                // Until the forwarder leaves.
                let _ = stream.read(&mut buffer);
            }
            seen.push(batch);
        }
        seen
    });
    let options = [
        ("fluentd-address", address.as_str()),
        ("fluentd-request-ack", "true"),
        ("fluentd-sub-second-precision", "true"),
        ("fluentd-retry-wait", "10ms"),
        ("tag", "docker.{{.Name}}"),
        ("labels-regex", "^com"),
    ];
    let mut running = Running::ready(&forward("fluentd", &options));
    running.send("stdout", TIME, b"hello");
    running.end();
    let seen = accepting.join().unwrap();
    for batch in &seen {
        assert_eq!(batch[0], "docker.web");
        assert_eq!(batch[1][0][0], "1763933164.938190936");
        let record = &batch[1][0][1];
        assert_eq!(record["log"], "hello");
        assert_eq!(record["source"], "stdout");
        assert_eq!(record["container_name"], "/web");
        assert_eq!(record["com.example"], "yes");
        assert_eq!(batch[2]["size"], 1);
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_collector_that_is_away_is_told_at_the_start() {
    // Bound and closed again: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = address.to_string();
    let mut running = Running::start(&forward("fluentd", &[("fluentd-address", &text)]));
    let report = running.report();
    assert!(
        report.starts_with("{\"failed\":\"dial tcp 127.0.0.1:") && report.contains("refused"),
        "{report}"
    );
    running.thread.join().unwrap();
}

#[test]
fn what_does_not_fit_is_dropped_counted_and_told() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = address.to_string();
    let options = [
        ("fluentd-address", text.as_str()),
        ("fluentd-async", "true"),
        ("fluentd-retry-wait", "50ms"),
        ("mode", "non-blocking"),
        ("max-buffer-size", "10k"),
    ];
    let mut running = Running::ready(&forward("fluentd", &options));
    running.send("stdout", TIME, b"first");
    assert!(running.report().starts_with("{\"unreachable\":\"dial tcp"));
    for _ in 0..50 {
        running.send("stdout", TIME, &[b'x'; 1000]);
    }
    let listener = TcpListener::bind(address).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let dropped: u64 = {
        let report: Value = serde_json::from_str(&running.report()).unwrap();
        report["dropped"]["entries"].as_u64().unwrap()
    };
    running.end();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let (mut rest, mut logs) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let batch = unpack(&mut rest);
        for entry in batch[1].as_array().unwrap() {
            logs.push(entry[1]["log"].as_str().unwrap().to_owned());
        }
    }
    let told = logs.last().unwrap();
    assert!(
        told.starts_with(&format!("berth: {dropped} log entries were dropped")),
        "{told}"
    );
    assert_eq!(
        logs.len() as u64 - 1 + dropped,
        51,
        "nothing is lost without being counted"
    );
}

#[test]
fn blocking_mode_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let options = [("syslog-address", address.as_str()), ("mode", "blocking")];
    let mut running = Running::ready(&forward("syslog", &options));
    let (stream, _) = listener.accept().unwrap();
    let reading = std::thread::spawn(move || BufReader::new(stream).lines().map(Result::unwrap).count());
    for number in 0..20_000u32 {
        running.send("stdout", TIME, format!("{number} {}", "z".repeat(200)).as_bytes());
    }
    running.end();
    assert_eq!(reading.join().unwrap(), 20_000);
}

#[test]
fn syslog_over_tls_is_counted_and_checked() {
    let root = tempfile::tempdir().unwrap();
    const MAKE: &str = "set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out request.pem
        echo subjectAltName=DNS:localhost > extensions
        openssl x509 -req -days 2 -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -extfile extensions \
            -out cert.pem";
    let made = std::process::Command::new("sh")
        .args(["-c", MAKE])
        .current_dir(&root)
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: needs openssl (package openssl)");
        return;
    }
    use rustls_pki_types::pem::PemObject;
    let cert = root.path().join("cert.pem");
    let certs = vec![rustls_pki_types::CertificateDer::from_pem_file(&cert).unwrap()];
    let key = rustls_pki_types::PrivateKeyDer::from_pem_file(root.path().join("key.pem")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = std::thread::spawn(move || {
        // One that distrusts the certificate comes first.
        let mut texts = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut tls = rustls::ServerConnection::new(std::sync::Arc::clone(&config)).unwrap();
            let mut text = Vec::new();
            // A peer that leaves without saying goodbye is an error of no matter here.
            let _ = rustls::Stream::new(&mut tls, &mut stream).read_to_end(&mut text);
            texts.push(String::from_utf8(text).unwrap());
        }
        texts
    });
    let address = format!("tcp+tls://localhost:{port}");
    let ca = root.path().join("ca.pem").display().to_string();
    let options = [("syslog-address", address.as_str()), ("syslog-format", "rfc5424")];
    let mut distrusting = Running::start(&forward("syslog", &options));
    let report = distrusting.report();
    assert!(report.contains("certificate"), "{report}");
    distrusting.thread.join().unwrap();
    let options = [&options[..], &[("syslog-tls-ca-cert", ca.as_str())]].concat();
    let mut running = Running::ready(&forward("syslog", &options));
    running.send("stdout", TIME, b"secret");
    running.end();
    let texts = accepting.join().unwrap();
    let (count, message) = texts[1].split_once(' ').unwrap();
    assert_eq!(count.parse::<usize>().unwrap(), message.len());
    assert!(message.starts_with("<30>1 2025-11-23T") && message.ends_with(" - secret\n"));
}
