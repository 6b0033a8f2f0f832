//! Whatever comes from outside is answered as the format says, refused, or passed over, and the next asker is answered: a
//! server over real sockets under a corpus of packets (`tests/corpus/{asked,told}`) and what becomes of it when bytes are changed, left
//! out and doubled. Queries come by both transports, answers from an upstream server. `PROPTEST_CASES=100000` runs it for
//! longer; the parser alone has its own (`wire`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use dns::table::{self, Container, Membership, Network};
use dns::{Config, Server, Sockets};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use simple_dns::Packet;

/// The packets of `tests/corpus/<kind>`: hexadecimal digits, and lines of comment.
fn corpus(kind: &str) -> Vec<Vec<u8>> {
    let dir = format!("{}/tests/corpus/{kind}", env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let packet = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        let digits: String = text.lines().filter(|line| !line.starts_with('#')).collect();
        let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
        (0..digits.len()).step_by(2).map(byte).collect::<Vec<u8>>()
    };
    paths.iter().map(packet).collect()
}

/// One change of some bytes.
#[derive(Debug, Clone)]
enum Change {
    Set(prop::sample::Index, u8),
    Leave(prop::sample::Index, usize),
    Double(prop::sample::Index, usize),
    Insert(prop::sample::Index, &'static [u8]),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    // Pointers, ends of names, labels, records, and counts.
    let pieces: [&[u8]; 8] = [
        b"\xc0\x0c",
        b"\xff\xff",
        b"\0",
        b"\x3f",
        b"\x03web",
        b"\0\0\x29\xff\xff\0\0\0\0\0\0",
        b"\0\x01\0\x01",
        b"\xc0\x00\xc0\x02",
    ];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 1usize..20).prop_map(|(at, length)| Change::Leave(at, length)),
        (at(), 1usize..100).prop_map(|(at, length)| Change::Double(at, length)),
        (at(), prop::sample::select(pieces.to_vec())).prop_map(|(at, piece)| Change::Insert(at, piece)),
    ]
}

/// A packet of the corpus with some changes, or none.
fn changed(kind: &str) -> impl Strategy<Value = Vec<u8>> {
    (
        prop::sample::select(corpus(kind)),
        prop::collection::vec(change(), 0..5),
    )
        .prop_map(|(mut bytes, changes)| {
            for change in changes {
                if bytes.is_empty() {
                    break;
                }
                match change {
                    Change::Set(at, byte) => {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    Change::Leave(at, length) => {
                        let at = at.index(bytes.len());
                        bytes.drain(at..(at + length).min(bytes.len()));
                    }
                    Change::Double(at, length) => {
                        let at = at.index(bytes.len());
                        let part = bytes[at..(at + length).min(bytes.len())].to_vec();
                        bytes.splice(at..at, part);
                    }
                    Change::Insert(at, piece) => {
                        let at = at.index(bytes.len());
                        bytes.splice(at..at, piece.iter().copied());
                    }
                }
            }
            // What a datagram and a frame can hold.
            bytes.truncate(4096);
            bytes
        })
}

/// A server with a network of a few names, driven by a thread.
struct Running {
    udp: SocketAddr,
    tcp: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Running {
    fn start(upstreams: Vec<SocketAddr>) -> Running {
        let dir = tempfile::tempdir().unwrap();
        let address = |n: u16| IpAddr::from(Ipv4Addr::new(10, 9, (n / 250) as u8, (n % 250) as u8));
        let mut network = Network {
            name: "mynet".into(),
            ..Network::default()
        };
        network
            .hosts
            .insert("web".into(), vec![address(2), "fd00:9::2".parse().unwrap()]);
        network.hosts.insert("four".into(), vec![address(4)]);
        network
            .hosts
            .insert("many".into(), (0..600).map(address).collect());
        network.reverse.insert(address(2), "web".into());
        table::write(&table::path(dir.path(), "aa"), &network).unwrap();
        let container = table::path(dir.path(), "cc");
        let networks = vec![Membership {
            network: "aa".into(),
            ..Membership::default()
        }];
        let own = Container {
            networks,
            forward: !upstreams.is_empty(),
            upstreams,
            single_labels_stay: false,
        };
        table::write(&container, &own).unwrap();
        let (sockets, ports) = Sockets::open().unwrap();
        let mut server = Server::new(sockets, Config { container }).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = stop.clone();
        let thread = std::thread::spawn(move || server.run(|| seen.load(Ordering::SeqCst)).unwrap());
        Running {
            udp: (dns::ADDRESS, ports.0).into(),
            tcp: (dns::ADDRESS, ports.1).into(),
            stop,
            thread: Some(thread),
            _dir: dir,
        }
    }

    fn socket(&self) -> UdpSocket {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.connect(self.udp).unwrap();
        socket
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A query for `web`, whose number is none of the other packet's.
fn probe(beside: &[u8]) -> Vec<u8> {
    let first = beside.first().map_or(0, |byte| !byte);
    let mut query = vec![first, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    query.extend(b"\x03web\0\0\x01\0\x01");
    query
}

/// What may come back for a query: nothing, or an answer to that and of a size that floods nobody.
fn check_answer(query: &[u8], answer: Option<&[u8]>, largest: usize) -> Result<(), TestCaseError> {
    let Some(answer) = answer else {
        // Whoever asks well is answered.
        let asked = Packet::parse(query).is_ok_and(|packet| packet.questions.len() == 1);
        prop_assert!(!asked || query[2] & 0x80 != 0, "no answer to {query:02x?}");
        return Ok(());
    };
    prop_assert!(
        query.len() >= 12 && query[2] & 0x80 == 0,
        "an answer to {query:02x?}"
    );
    prop_assert!(answer.len() >= 12 && answer[..2] == query[..2] && answer[2] & 0x80 != 0);
    prop_assert!(answer.len() <= largest, "{} bytes", answer.len());
    if answer[4..6] == [0, 0] {
        prop_assert!(answer.len() <= query.len(), "more than was asked");
    } else if let Ok(asked) = Packet::parse(query) {
        let told = Packet::parse(answer);
        let told = told.map_err(|error| TestCaseError::fail(format!("{error} in {answer:02x?}")))?;
        prop_assert_eq!(&told.questions[0].qname, &asked.questions[0].qname);
    }
    Ok(())
}

#[test]
fn datagrams_are_answered_refused_or_passed_over() {
    let server = Running::start(Vec::new());
    let socket = server.socket();
    let property = |query: Vec<u8>| {
        let probe = probe(&query);
        socket.send(&query).unwrap();
        socket.send(&probe).unwrap();
        let mut buffer = vec![0; 65535];
        let mut answer = None;
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            if buffer[..2] == probe[..2] {
                prop_assert_eq!(&buffer[6..8], &[0, 1]);
                break;
            }
            prop_assert!(answer.is_none(), "two answers");
            answer = Some(buffer[..length].to_vec());
        }
        check_answer(&query, answer.as_deref(), 4096)
    };
    run(changed("asked"), property);
}

#[test]
fn so_are_messages_of_a_stream() {
    let server = Running::start(Vec::new());
    let property = |query: Vec<u8>| {
        let mut stream = TcpStream::connect(server.tcp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let probe = probe(&query);
        for message in [&query, &probe] {
            stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(message).unwrap();
        }
        let mut answer = None;
        loop {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            if message[..2] == probe[..2] {
                break;
            }
            prop_assert!(answer.is_none(), "two answers");
            answer = Some(message);
        }
        check_answer(&query, answer.as_deref(), 65535)?;
        // Without a frame it is one that begins with its length; what it lacks never comes.
        let mut stream = TcpStream::connect(server.tcp).unwrap();
        stream.write_all(&query).unwrap();
        Ok(())
    };
    run(changed("asked"), property);
}

/// What the upstream server says next, before the true answer.
static LIE: Mutex<Vec<u8>> = Mutex::new(Vec::new());

/// Answers each question with what is told it, under the question's own number, and then as it should.
fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut lie = LIE.lock().unwrap().clone();
            if let Some(number) = lie.get_mut(..2) {
                number.copy_from_slice(&buffer[..2]);
            }
            let mut truth = buffer[..length].to_vec();
            truth[2] |= 0x80;
            for answer in [&lie, &truth] {
                let _ = socket.send_to(answer, from);
            }
        }
    });
    at
}

#[test]
fn what_upstream_servers_say_is_the_answer_to_the_question_or_nothing() {
    const NAME: &[u8] = b"\x03www\x07example\x03com\0\0\x01\0\x01";
    let server = Running::start(vec![upstream()]);
    let socket = server.socket();
    let property = |lie: Vec<u8>| {
        *LIE.lock().unwrap() = lie;
        let mut query = vec![0x51, 0x7e, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(NAME);
        socket.send(&query).unwrap();
        let mut buffer = vec![0; 65535];
        let length = socket.recv(&mut buffer).unwrap();
        let answer = &buffer[..length];
        prop_assert!(
            answer[..2] == query[..2] && answer[2] & 0x80 != 0,
            "{answer:02x?}"
        );
        let question = answer.get(12..12 + NAME.len()).unwrap_or_default();
        prop_assert!(question.eq_ignore_ascii_case(NAME), "{answer:02x?}");
        Ok(())
    };
    run(changed("told"), property);
}

fn run(strategy: impl Strategy<Value = Vec<u8>>, property: impl Fn(Vec<u8>) -> Result<(), TestCaseError>) {
    let outcome = TestRunner::default().run(&strategy, property);
    outcome.unwrap_or_else(|error| panic!("{error}"));
}
