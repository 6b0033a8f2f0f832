//! The relay between real sockets of the loopback: clients come over IPv6, the container is a thread at 127.0.0.1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use relay::{Port, RETIRE, Transport};

/// Only what never comes waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay of one port, in a thread that ends with the line to it.
struct Relay {
    at: SocketAddrV6,
    line: Option<UnixStream>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Relay {
    /// None, and why is said, where there is no IPv6.
    fn start(transport: Transport, target: Option<SocketAddr>) -> Option<Relay> {
        let bound: std::io::Result<(OwnedFd, SocketAddr)> = match transport {
            Transport::Tcp => TcpListener::bind("[::1]:0").map(|s| {
                let at = s.local_addr().unwrap();
                (s.into(), at)
            }),
            Transport::Udp => UdpSocket::bind("[::1]:0").map(|s| {
                let at = s.local_addr().unwrap();
                (s.into(), at)
            }),
        };
        let Ok((socket, SocketAddr::V6(host))) = bound else {
            println!("skipped: the host has no IPv6");
            return None;
        };
        let port = Port {
            transport,
            host,
            target,
        };
        let (line, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || relay::serve(theirs, vec![(port, socket)]));
        Some(Relay {
            at: host,
            line: Some(line),
            thread: Some(thread),
        })
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.at).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.set_write_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// Until it has ended by itself.
    fn join(mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.line = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn container() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// Bytes in which a part that is lost, doubled or out of order shows.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn each_direction_ends_by_itself() {
    let (listener, at) = container();
    let Some(relay) = Relay::start(Transport::Tcp, Some(at)) else {
        return;
    };
    let mut client = relay.connect();
    let (mut served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    // The end arrives, and the answer goes the other way after it.
    let mut asked = String::new();
    served.read_to_string(&mut asked).unwrap();
    assert_eq!(asked, "question");
    served.write_all(b"answer").unwrap();
    drop(served);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
    // One that ends before the container's side can stand, as `nc </dev/null` does.
    let mut client = relay.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    served.write_all(b"hello").unwrap();
    drop(served);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello");
}

#[test]
fn much_arrives_whole_both_ways_though_neither_side_reads_at_first() {
    let (listener, at) = container();
    let Some(relay) = Relay::start(Transport::Tcp, Some(at)) else {
        return;
    };
    let sent = bytes(24 << 20);
    let client = relay.connect();
    let (served, _) = listener.accept().unwrap();
    served.set_read_timeout(Some(PATIENCE)).unwrap();
    // Another client is not held up by one that takes nothing.
    let write_all = |mut to: &TcpStream| {
        to.write_all(&sent).unwrap();
        to.shutdown(Shutdown::Write).unwrap();
    };
    std::thread::scope(|scope| {
        scope.spawn(|| write_all(&client));
        scope.spawn(|| write_all(&served));
        let mut other = relay.connect();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"hello").unwrap();
        drop(server);
        let mut answer = String::new();
        other.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "hello");
        for mut side in [&client, &served] {
            let sent = &sent;
            scope.spawn(move || {
                let mut got = Vec::new();
                side.read_to_end(&mut got).unwrap();
                assert!(got == *sent, "{} bytes of {}", got.len(), sent.len());
            });
        }
    });
}

#[test]
fn where_nobody_listens_a_client_is_reset() {
    let (listener, at) = container();
    drop(listener);
    for target in [Some(at), None] {
        let Some(relay) = Relay::start(Transport::Tcp, target) else {
            return;
        };
        let mut client = relay.connect();
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{target:?}");
    }
}

#[test]
fn connections_outlive_the_ports_and_end_with_the_container() {
    let (listener, at) = container();
    let Some(mut relay) = Relay::start(Transport::Tcp, Some(at)) else {
        return;
    };
    let mut client = relay.connect();
    let (mut served, _) = listener.accept().unwrap();
    // Another process takes the ports over.
    let line = relay.line.as_mut().unwrap();
    line.write_all(&[RETIRE]).unwrap();
    line.read_exact(&mut [0]).unwrap();
    // They are free as soon as it has said so.
    let refused = TcpStream::connect(relay.at).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    client.write_all(b"?").unwrap();
    served.read_exact(&mut [0]).unwrap();
    served.write_all(b"still here").unwrap();
    let mut answer = [0; 10];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"still here");
    drop(served);
    drop(client);
    // Who came while the ports were being left waits there. The line stays.
    drop(listener);
    relay.join();
}

#[test]
fn a_container_that_is_over_has_its_last_words() {
    let (listener, at) = container();
    let Some(mut relay) = Relay::start(Transport::Tcp, Some(at)) else {
        return;
    };
    let mut client = relay.connect();
    let mut silent = relay.connect();
    let (served, _) = listener.accept().unwrap();
    let (_held, _) = listener.accept().unwrap();
    let said = bytes(256 << 10);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| (&served).write_all(&said).unwrap());
        let mut got = vec![0; 1];
        client.read_exact(&mut got).unwrap();
        let reader = scope.spawn(|| {
            client.read_to_end(&mut got).unwrap();
            got
        });
        writer.join().unwrap();
        served.shutdown(Shutdown::Both).unwrap();
        relay.line = None;
        assert!(reader.join().unwrap() == said);
    });
    // The client has not ended its own side, and one whose container says nothing keeps nobody.
    relay.join();
    match silent.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        other => panic!("left waiting: {other:?}"),
    }
}

#[test]
fn datagrams_find_back_to_who_asked() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let Some(relay) = Relay::start(Transport::Udp, Some(server.local_addr().unwrap())) else {
        return;
    };
    let clients: Vec<UdpSocket> = (0..3)
        .map(|_| {
            let client = UdpSocket::bind("[::1]:0").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.connect(relay.at).unwrap();
            client
        })
        .collect();
    // The longest that IPv6's loopback carries in one piece.
    let mut buffer = vec![0; 65535];
    let mut seen = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        client.send(&vec![number as u8; 60_000]).unwrap();
        let (count, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((count, buffer[0]), (60_000, number as u8));
        assert!(
            !seen.contains(&from),
            "each client is one of its own for the container"
        );
        seen.push(from);
    }
    // Answered in another order, also without having been asked once more.
    for number in [2, 0, 1, 1] {
        server.send_to(&[number as u8; 3], seen[number]).unwrap();
        let count = clients[number].recv(&mut buffer).unwrap();
        assert_eq!(buffer[..count], [number as u8; 3]);
    }
    clients[0].send(b"again").unwrap();
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from, seen[0], "a flow goes on");
    // An empty one is one, too.
    clients[0].send(b"").unwrap();
    assert_eq!(server.recv_from(&mut buffer).unwrap(), (0, seen[0]));
}

#[test]
fn datagrams_to_nobody_cost_nothing_and_are_taken_up_later() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = server.local_addr().unwrap();
    drop(server);
    let Some(relay) = Relay::start(Transport::Udp, Some(at)) else {
        return;
    };
    let client = UdpSocket::bind("[::1]:0").unwrap();
    client.connect(relay.at).unwrap();
    client.send(b"early").unwrap();
    // The program in the container begins to listen.
    let server = UdpSocket::bind(at).unwrap();
    server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 16];
    let mut answered = false;
    for _ in 0..200 {
        client.send(b"late").unwrap();
        if let Ok((4, _)) = server.recv_from(&mut buffer) {
            answered = true;
            break;
        }
    }
    assert!(answered);
}
