//! The server over real sockets of the loopback interface: local names, forwarding, falling back, both transports.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dns::table::{self, Container, Membership, Network};
use dns::{Config, Server, Sockets};
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, Question, RCODE, ResourceRecord, TYPE};

struct Fixture {
    udp: SocketAddr,
    tcp: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    dir: tempfile::TempDir,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(upstreams: Vec<SocketAddr>, forward: bool) -> Fixture {
    serve_as(Container {
        upstreams,
        forward,
        ..Container::default()
    })
}

/// With the container's own table, but its networks.
fn serve_as(own: Container) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut network = Network {
        name: "mynet".into(),
        ..Network::default()
    };
    network
        .hosts
        .insert("web".into(), vec![address("10.9.0.2"), address("fd00:9::2")]);
    network.hosts.insert("four".into(), vec![address("10.9.0.4")]);
    network.hosts.insert(
        "all".into(),
        (1..=8).map(|n| address(&format!("10.9.1.{n}"))).collect(),
    );
    network.hosts.insert(
        "many".into(),
        (0..300)
            .map(|n| address(&format!("10.9.{}.{}", 2 + n / 250, n % 250)))
            .collect(),
    );
    network.reverse.insert(address("10.9.0.2"), "web".into());
    table::write(&table::path(dir.path(), "aa"), &network).unwrap();
    let networks = vec![Membership {
        network: "aa".into(),
        links: BTreeMap::new(),
    }];
    let container = table::path(dir.path(), "cc");
    table::write(&container, &Container { networks, ..own }).unwrap();

    let (sockets, ports) = Sockets::open().unwrap();
    let mut server = Server::new(sockets, Config { container }).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    let thread = std::thread::spawn(move || server.run(|| seen.load(Ordering::SeqCst)).unwrap());
    Fixture {
        udp: (dns::ADDRESS, ports.0).into(),
        tcp: (dns::ADDRESS, ports.1).into(),
        stop,
        thread: Some(thread),
        dir,
    }
}

fn query(name: &str, kind: TYPE) -> Vec<u8> {
    let mut packet = Packet::new_query(77);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(name).unwrap().into_owned(),
        kind.into(),
        CLASS::IN.into(),
        false,
    ));
    packet.build_bytes_vec().unwrap()
}

fn ask(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.send_to(query, server).unwrap();
    let mut buffer = vec![0; 65535];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn ask_stream(stream: &mut TcpStream, query: &[u8]) -> Vec<u8> {
    stream.write_all(&(query.len() as u16).to_be_bytes()).unwrap();
    stream.write_all(query).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).unwrap();
    message
}

fn addresses(message: &[u8]) -> Vec<String> {
    let packet = Packet::parse(message).unwrap();
    let text = |record: &ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
        RData::AAAA(a) => std::net::Ipv6Addr::from(a.address).to_string(),
        other => format!("{other:?}"),
    };
    packet.answers.iter().map(text).collect()
}

/// An upstream that answers every question with one address, or one code, over both transports.
fn upstream(code: RCODE, address: &str) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(at).unwrap();
    let address: std::net::Ipv4Addr = address.parse().unwrap();
    let answer = move |query: &[u8]| {
        let question = Packet::parse(query).unwrap();
        let mut reply = question.into_reply();
        *reply.rcode_mut() = code;
        let name = reply.questions[0].qname.clone();
        if code == RCODE::NoError {
            let data = RData::A(simple_dns::rdata::A {
                address: address.into(),
            });
            reply.answers.push(ResourceRecord::new(name, CLASS::IN, 5, data));
        }
        reply.build_bytes_vec().unwrap()
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&answer(&buffer[..length]), from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut message).unwrap();
            let reply = answer(&message);
            stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&reply).unwrap();
        }
    });
    at
}

#[test]
fn local_names_by_both_transports() {
    let server = serve(vec![], true);
    assert_eq!(addresses(&ask(server.udp, &query("WEB", TYPE::A))), ["10.9.0.2"]);
    assert_eq!(
        addresses(&ask(server.udp, &query("web.mynet", TYPE::AAAA))),
        ["fd00:9::2"]
    );
    // The name exists, the family does not: no error, no records.
    let empty = ask(server.udp, &query("four", TYPE::AAAA));
    assert_eq!(Packet::parse(&empty).unwrap().rcode(), RCODE::NoError);
    assert!(addresses(&empty).is_empty());
    let pointer = ask(server.udp, &query("2.0.9.10.in-addr.arpa", TYPE::PTR));
    let packet = Packet::parse(&pointer).unwrap();
    assert!(matches!(&packet.answers[0].rdata, RData::PTR(p) if p.0.to_string() == "web.mynet"));

    let mut stream = TcpStream::connect(server.tcp).unwrap();
    assert_eq!(
        addresses(&ask_stream(&mut stream, &query("web", TYPE::A))),
        ["10.9.0.2"]
    );
    assert_eq!(
        addresses(&ask_stream(&mut stream, &query("four", TYPE::A))),
        ["10.9.0.4"]
    );
}

#[test]
fn shared_names_come_in_changing_order() {
    let server = serve(vec![], true);
    let query = query("all", TYPE::A);
    let first: std::collections::BTreeSet<String> = (0..40)
        .map(|_| addresses(&ask(server.udp, &query))[0].clone())
        .collect();
    assert!(first.len() > 1, "forty answers began with the same address");
}

#[test]
fn foreign_names_are_forwarded_and_bad_servers_passed_over() {
    let good = upstream(RCODE::NoError, "192.0.2.99");
    let failing = upstream(RCODE::ServerFailure, "0.0.0.0");
    let closed = { UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let server = serve(vec![closed, failing, good], true);
    let answer = ask(server.udp, &query("example.com", TYPE::A));
    assert_eq!(Packet::parse(&answer).unwrap().id(), 77);
    assert_eq!(addresses(&answer), ["192.0.2.99"]);
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    assert_eq!(
        addresses(&ask_stream(&mut stream, &query("example.com", TYPE::A))),
        ["192.0.2.99"]
    );
}

#[test]
fn an_upstream_that_says_no_such_name_is_believed() {
    let server = serve(
        vec![
            upstream(RCODE::NameError, "0.0.0.0"),
            upstream(RCODE::NoError, "192.0.2.1"),
        ],
        true,
    );
    let answer = ask(server.udp, &query("nosuch.example", TYPE::A));
    assert_eq!(Packet::parse(&answer).unwrap().rcode(), RCODE::NameError);
}

#[test]
fn with_nobody_left_to_ask_the_answer_is_a_server_failure() {
    let good = upstream(RCODE::NoError, "192.0.2.99");
    for server in [serve(vec![], true), serve(vec![good], false)] {
        let answer = ask(server.udp, &query("example.com", TYPE::A));
        assert_eq!(Packet::parse(&answer).unwrap().rcode(), RCODE::ServerFailure);
    }
}

#[test]
fn a_silent_server_is_given_up_for_the_next() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let good = upstream(RCODE::NoError, "192.0.2.7");
    let server = serve(vec![silent.local_addr().unwrap(), good], true);
    assert_eq!(
        addresses(&ask(server.udp, &query("example.com", TYPE::A))),
        ["192.0.2.7"]
    );
}

#[test]
fn garbage_does_not_stop_the_server() {
    let server = serve(vec![], true);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in 0..64usize {
        let bytes: Vec<u8> = (0..length).map(|n| (n * 37 + length * 11) as u8).collect();
        socket.send_to(&bytes, server.udp).unwrap();
    }
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    stream.write_all(&[0, 0, 0, 3, 1, 2, 3, 0xff]).unwrap();
    drop(stream);
    for _ in 0..40 {
        drop(TcpStream::connect(server.tcp).unwrap());
    }
    assert_eq!(addresses(&ask(server.udp, &query("web", TYPE::A))), ["10.9.0.2"]);
}

/// An upstream that answers after a while.
fn slow(address: &'static str, after: Duration) -> SocketAddr {
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = udp.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            let mut reply = Packet::parse(&buffer[..length]).unwrap().into_reply();
            let name = reply.questions[0].qname.clone();
            let address: std::net::Ipv4Addr = address.parse().unwrap();
            let data = RData::A(simple_dns::rdata::A {
                address: address.into(),
            });
            reply.answers.push(ResourceRecord::new(name, CLASS::IN, 5, data));
            let bytes = reply.build_bytes_vec().unwrap();
            std::thread::sleep(after);
            let _ = udp.send_to(&bytes, from);
        }
    });
    at
}

#[test]
fn a_slow_server_is_still_heard_after_the_next_was_asked() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let late = slow("192.0.2.8", Duration::from_millis(900));
    let server = serve(vec![late, silent.local_addr().unwrap()], true);
    assert_eq!(
        addresses(&ask(server.udp, &query("example.com", TYPE::A))),
        ["192.0.2.8"]
    );
    // The other was asked beside it, not instead of it.
    silent.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut buffer = [0; 512];
    assert!(silent.recv(&mut buffer).unwrap() > 12);
}

#[test]
fn the_first_of_two_that_race_wins() {
    let late = slow("192.0.2.8", Duration::from_secs(3));
    let quick = slow("192.0.2.9", Duration::ZERO);
    let server = serve(vec![late, quick], true);
    assert_eq!(
        addresses(&ask(server.udp, &query("example.com", TYPE::A))),
        ["192.0.2.9"]
    );
}

#[test]
fn what_does_not_fit_is_said_to_be_cut_and_whole_over_tcp() {
    let server = serve(vec![], true);
    let mut asked = query("many", TYPE::A);
    let cut = ask(server.udp, &asked);
    let packet = Packet::parse(&cut).unwrap();
    assert!(packet.has_flags(PacketFlag::TRUNCATION));
    assert!(cut.len() <= 512, "{}", cut.len());
    // With EDNS as much as was offered, and no more than 4096 whatever was.
    asked[11] = 1;
    asked.extend([0, 0, 41, 0xff, 0xff, 0, 0, 0, 0, 0, 0]);
    let wide = ask(server.udp, &asked);
    assert!(wide.len() > 512 && wide.len() <= 4096, "{}", wide.len());
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    let whole = ask_stream(&mut stream, &query("many", TYPE::A));
    assert_eq!(addresses(&whole).len(), 300);
}

#[test]
fn every_query_is_written_down_with_who_answered() {
    let good = upstream(RCODE::NoError, "192.0.2.7");
    let bad = upstream(RCODE::Refused, "192.0.2.7");
    let server = serve(vec![bad, good], true);
    ask(server.udp, &query("web", TYPE::A));
    ask(server.udp, &query("example.com", TYPE::AAAA));
    let mut stream = TcpStream::connect(server.tcp).unwrap();
    ask_stream(&mut stream, &query("four", TYPE::AAAA));
    let table = table::path(server.dir.path(), "cc");
    let entries = loop {
        let entries = dns::log::read(&table);
        if entries.len() == 3 {
            break entries;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let shown: Vec<_> = entries
        .iter()
        .map(|e| {
            let answers = e.answers.join(",");
            (
                e.name.as_str(),
                e.kind.as_str(),
                e.by.as_str(),
                e.code.as_str(),
                answers,
            )
        })
        .collect();
    let upstream = good.to_string();
    assert_eq!(
        shown,
        [
            ("web", "A", "names", "NOERROR", "10.9.0.2".to_owned()),
            ("example.com", "AAAA", upstream.as_str(), "NOERROR", String::new()),
            ("four", "AAAA", "names", "NOERROR", String::new()),
        ]
    );
    assert!(entries.iter().all(|e| e.time > 1_600_000_000_000_000));
}

#[test]
fn names_without_a_dot_stay_where_the_asker_completes_them() {
    let server = serve_as(Container {
        upstreams: vec![upstream(RCODE::NoError, "192.0.2.7")],
        forward: true,
        single_labels_stay: true,
        ..Container::default()
    });
    for kind in [TYPE::A, TYPE::AAAA] {
        let answer = ask(server.udp, &query("nobody", kind));
        let answer = Packet::parse(&answer).unwrap();
        assert_eq!((answer.rcode(), answer.answers.len()), (RCODE::NoError, 0));
    }
    assert_eq!(addresses(&ask(server.udp, &query("web", TYPE::A))), ["10.9.0.2"]);
    // With a domain it is a name like others, and without an end of its own one is asked for as ever.
    let answer = ask(server.udp, &query("nobody.example", TYPE::A));
    assert_eq!(addresses(&answer), ["192.0.2.7"]);
    let open = serve(vec![upstream(RCODE::NoError, "192.0.2.7")], true);
    assert_eq!(
        addresses(&ask(open.udp, &query("nobody", TYPE::A))),
        ["192.0.2.7"]
    );
}
