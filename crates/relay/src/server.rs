//! The process's loop: clients are accepted and connected to the container, datagrams are handed on, and the monitor is
//! heard.
//!
//! ```text
//!   Serving ──(the monitor says RETIRE)──> Retired ──(the last connection ends)──> gone
//!      │ │                                     │                                    ^
//!      │ └──(nobody there for IDLE)────────────┼────────────────────────────────────┤
//!      └──────────(the line's end)─────────────┴─> Ending ──(the same, or 0.5 s)────┘
//! ```
//!
//! Retired, it holds no port, and has said so: another process takes its place, with other ports or for other targets, and
//! what was connected before goes on here. Ending, its container or monitor is over: what the container has said is still handed
//! on.
//!
//! Sockets of clients and of the container are watched for changes alone (edge-triggered), and whatever a change allows
//! is done, or what is left of it noted in `ready`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use crate::connection::{CHUNK, Connection, Progress, refuse};
use crate::flows::{Flows, LONGEST};
use crate::poll::Poll;
use crate::{Port, Transport};

/// What the monitor says when another process is to take this one's place, and what it is told when the ports are free.
pub const RETIRE: u8 = b'r';
/// How long the process waits for the next client.
const IDLE: Duration = Duration::from_secs(10);
/// How often it looks for flows that are over.
const SWEEP: Duration = Duration::from_secs(5);
/// How long the last words of a container may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// More have to wait until one of these ends.
const MOST_CONNECTIONS: usize = 4096;
/// How long new ones wait where there is no room for them.
const EXHAUSTED: Duration = Duration::from_millis(200);
/// Clients of one port that are accepted before others have their turn.
const BURST: usize = 64;

/// A published port for connections.
#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    target: Option<SocketAddr>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Serving,
    Retired,
    Ending(Instant),
}

struct Server {
    poll: Poll,
    /// The number of the line to the monitor.
    line: u64,
    listeners: BTreeMap<u64, Listener>,
    connections: BTreeMap<u64, Connection>,
    /// Connections for which something can be done.
    ready: BTreeSet<u64>,
    flows: Flows,
    phase: Phase,
    /// When new clients are accepted again.
    accept_again: Option<Instant>,
    sweep: Instant,
    /// When somebody was there last.
    busy: Instant,
    buffer: Vec<u8>,
}

/// Relays until it is not needed any more. The sockets are bound to the ports, and those for connections listen already.
/// `monitor` is the line to it, whose end says that the container is over.
pub fn serve(mut monitor: UnixStream, ports: Vec<(Port, OwnedFd)>) -> io::Result<()> {
    monitor.set_nonblocking(true)?;
    let mut server = Server::new(&monitor, ports)?;
    while !server.is_done(Instant::now()) {
        let timeout = server
            .next_deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let happened = server.poll.wait(timeout)?;
        let now = Instant::now();
        for number in happened {
            match number == server.line {
                true => server.hear(&mut monitor, now),
                false => server.proceed(number, now),
            }
        }
        server.settle(now);
    }
    Ok(())
}

impl Server {
    fn new(monitor: &UnixStream, ports: Vec<(Port, OwnedFd)>) -> io::Result<Server> {
        let now = Instant::now();
        let mut poll = Poll::new()?;
        let line = poll.number();
        poll.watch(line, monitor, EventFlags::IN)?;
        let mut server = Server {
            poll,
            line,
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            ready: BTreeSet::new(),
            flows: Flows::default(),
            phase: Phase::Serving,
            accept_again: None,
            sweep: now + SWEEP,
            busy: now,
            buffer: vec![0; LONGEST],
        };
        for (port, socket) in ports {
            match port.transport {
                Transport::Tcp => server.listen(TcpListener::from(socket), port.target)?,
                Transport::Udp => server.flows.add(&mut server.poll, socket, port.target)?,
            }
        }
        Ok(server)
    }

    fn listen(&mut self, socket: TcpListener, target: Option<SocketAddr>) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        let number = self.poll.number();
        self.poll.watch(number, &socket, EventFlags::IN)?;
        self.listeners.insert(number, Listener { socket, target });
        Ok(())
    }

    fn is_deserted(&self) -> bool {
        self.connections.is_empty() && self.flows.is_empty()
    }

    fn is_done(&self, now: Instant) -> bool {
        match self.phase {
            Phase::Serving => self.is_deserted() && now >= self.busy + IDLE,
            Phase::Retired => self.connections.is_empty(),
            Phase::Ending(until) => self.connections.is_empty() || now >= until,
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(self.busy);
        }
        let phase = match self.phase {
            Phase::Serving if self.is_deserted() => Some(self.busy + IDLE),
            Phase::Serving | Phase::Retired => None,
            Phase::Ending(until) => Some(until),
        };
        let sweep = (!self.flows.is_empty()).then_some(self.sweep);
        phase.into_iter().chain(sweep).chain(self.accept_again).min()
    }

    fn hear(&mut self, monitor: &mut UnixStream, now: Instant) {
        let mut word = [0];
        self.phase = match monitor.read(&mut word) {
            Ok(1) if word == [RETIRE] => Phase::Retired,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            _ => {
                // It is told once; the line would go on to be readable.
                self.poll.forget(&*monitor);
                Phase::Ending(now + FAREWELL)
            }
        };
        self.leave();
        if let Phase::Retired = self.phase {
            // Who does not hear it does not wait.
            let _ = monitor.write(&[RETIRE]);
        }
        // What waits for the container need not wait any longer.
        self.ready.extend(self.connections.keys());
    }

    /// Gives up the ports.
    fn leave(&mut self) {
        for listener in self.listeners.values() {
            self.poll.forget(&listener.socket);
        }
        self.listeners.clear();
        self.flows.leave(&self.poll);
        self.accept_again = None;
    }

    fn proceed(&mut self, number: u64, now: Instant) {
        if self.connections.contains_key(&number) {
            self.ready.insert(number);
        } else if self.listeners.contains_key(&number) {
            self.accept(number, now);
        } else {
            self.flows.proceed(&mut self.poll, number, &mut self.buffer, now);
        }
    }

    fn accept(&mut self, number: u64, now: Instant) {
        for _ in 0..BURST {
            let Some(listener) = self.listeners.get(&number) else {
                return;
            };
            if self.connections.len() >= MOST_CONNECTIONS {
                return self.pause(now);
            }
            let client = match listener.socket.accept() {
                Ok((client, _)) => client,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => continue,
                    // Out of descriptors or memory: the client stays in the queue and would wake us without end.
                    _ => return self.pause(now),
                },
            };
            let Some(target) = listener.target else {
                refuse(&client);
                continue;
            };
            // A client that cannot be connected has been told.
            if let Ok(connection) = Connection::begin(client, target) {
                let number = self.poll.number();
                let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                let watched = connection
                    .sides()
                    .into_iter()
                    .try_for_each(|side| self.poll.watch(number, side, wanted));
                if watched.is_ok() {
                    self.connections.insert(number, connection);
                    self.ready.insert(number);
                }
            }
        }
    }

    /// Lets new clients wait.
    fn pause(&mut self, now: Instant) {
        self.accept_again = Some(now + EXHAUSTED);
        self.watch_listeners(EventFlags::empty());
    }

    fn watch_listeners(&self, wanted: EventFlags) {
        for (number, listener) in &self.listeners {
            self.poll.change(*number, &listener.socket, wanted);
        }
    }

    /// Does for connections what can be done, and what is due by the clock.
    fn settle(&mut self, now: Instant) {
        let over = matches!(self.phase, Phase::Ending(_));
        for number in std::mem::take(&mut self.ready) {
            let Some(connection) = self.connections.get_mut(&number) else {
                continue;
            };
            let Some(chunk) = self.buffer.get_mut(..CHUNK) else {
                continue;
            };
            match connection.proceed(chunk, over) {
                Progress::Waiting => {}
                Progress::More => {
                    self.ready.insert(number);
                }
                // Nobody else has its sockets.
                Progress::Done => drop(self.connections.remove(&number)),
            }
        }
        if now >= self.sweep {
            self.flows.expire(now);
            self.sweep = now + SWEEP;
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.watch_listeners(EventFlags::IN);
        }
        if !self.is_deserted() {
            self.busy = now;
        }
    }
}
