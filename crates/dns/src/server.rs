//! The server: takes queries, answers the local ones, keeps the forwarded ones in the air.
//!
//! Single-threaded and non-blocking. Bounds: [`MOST_EXCHANGES`] forwarded queries at a time (more are answered
//! SERVFAIL at once), [`MOST_CLIENTS`] connections (the oldest goes), [`BURST`] datagrams per turn, so that the driver
//! gets back to its other work.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

use crate::exchange::{Asker, Exchange, Progress};
use crate::log::{self, Log};
use crate::stream::Framed;
use crate::table::{Known, Tables};
use crate::wire::{self, Data, Question, Unreadable};
use crate::{Config, Sockets};

const MOST_EXCHANGES: usize = 256;
const MOST_CLIENTS: usize = 32;
const BURST: usize = 64;
/// A connection without traffic is closed after this (RFC 7766 §6.2.3 suggests seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long new connections wait when the process has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(500);

/// How many answers of one query are written down.
const MOST_NOTED: usize = 16;
/// Who answered where nobody did.
const NOBODY: &str = "nobody";

const UDP: u64 = 0;
const TCP: u64 = 1;

#[derive(Debug)]
struct Client {
    framed: Framed,
    idle_until: Instant,
}

/// A resolver for one container. See the crate's documentation.
#[derive(Debug)]
pub struct Server {
    epoll: OwnedFd,
    udp: UdpSocket,
    tcp: TcpListener,
    tables: Tables,
    clients: BTreeMap<u64, Client>,
    exchanges: BTreeMap<u64, Exchange>,
    next_token: u64,
    accept_again: Option<Instant>,
    noise: Noise,
    log: Log,
}

impl Server {
    /// A server on `sockets`. Nothing is read before [`Server::handle_ready`].
    pub fn new(sockets: Sockets, config: Config) -> io::Result<Server> {
        let udp = UdpSocket::from(sockets.udp);
        let tcp = TcpListener::from(sockets.tcp);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &udp,
            epoll::EventData::new_u64(UDP),
            epoll::EventFlags::IN,
        )?;
        epoll::add(
            &epoll,
            &tcp,
            epoll::EventData::new_u64(TCP),
            epoll::EventFlags::IN,
        )?;
        Ok(Server {
            epoll,
            udp,
            tcp,
            log: Log::new(&config.container),
            tables: Tables::new(config.container),
            clients: BTreeMap::new(),
            exchanges: BTreeMap::new(),
            next_token: TCP + 1,
            accept_again: None,
            noise: Noise::default(),
        })
    }

    /// When [`Server::handle_ready`] must be called even though nothing is readable.
    pub fn next_deadline(&self) -> Option<Instant> {
        let exchanges = self.exchanges.values().map(|e| e.deadline);
        let clients = self.clients.values().map(|c| c.idle_until);
        exchanges.chain(clients).chain(self.accept_again).min()
    }

    /// Does everything that can be done without waiting.
    pub fn handle_ready(&mut self) -> io::Result<()> {
        let now = Instant::now();
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        let none = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&none)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in events {
            match event.data.u64() {
                UDP => self.read_datagrams(now),
                TCP => self.accept(now),
                token if self.clients.contains_key(&token) => self.serve_client(token, now),
                token => self.proceed(token, now),
            }
        }
        self.expire(now);
        Ok(())
    }

    /// Drives the server until an unrecoverable error, or until `stop` says so (asked at least every 50 ms).
    pub fn run(&mut self, stop: impl Fn() -> bool) -> io::Result<()> {
        while !stop() {
            let mut events: Vec<epoll::Event> = Vec::with_capacity(1);
            let slice = Timespec {
                tv_sec: 0,
                tv_nsec: 50_000_000,
            };
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&slice)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => self.handle_ready()?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn read_datagrams(&mut self, now: Instant) {
        self.tables.refresh();
        let mut buffer = vec![0u8; 4096];
        for _ in 0..BURST {
            match self.udp.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let query = buffer.get(..length).unwrap_or_default().to_vec();
                    self.ask(query, Asker::Datagram(from), now);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An error here is about one earlier answer (its asker is gone); the next call reads on.
                Err(_) => break,
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..BURST {
            let stream = match self.tcp.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
                    ) =>
                {
                    continue;
                }
                Err(_) => {
                    // Out of descriptors: the connection stays in the queue and would wake us without end.
                    let silent = epoll::EventFlags::empty();
                    let _ = epoll::modify(&self.epoll, &self.tcp, epoll::EventData::new_u64(TCP), silent);
                    self.accept_again = Some(now + EXHAUSTED);
                    return;
                }
            };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() >= MOST_CLIENTS {
                self.clients.pop_first();
            }
            let token = self.token();
            if epoll::add(
                &self.epoll,
                &stream,
                epoll::EventData::new_u64(token),
                epoll::EventFlags::IN,
            )
            .is_ok()
            {
                self.clients.insert(
                    token,
                    Client {
                        framed: Framed::new(stream),
                        idle_until: now + IDLE,
                    },
                );
            }
        }
    }

    fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    fn serve_client(&mut self, token: u64, now: Instant) {
        self.tables.refresh();
        let Some(client) = self.clients.get_mut(&token) else {
            return;
        };
        client.idle_until = now + IDLE;
        let Ok(mut open) = client.framed.fill() else {
            // Reset: nobody is there to get an answer.
            self.clients.remove(&token);
            return;
        };
        let mut queries = VecDeque::new();
        while let Some(query) = client.framed.next_message() {
            queries.push_back(query);
        }
        for query in queries {
            self.ask(query, Asker::Stream(token), now);
        }
        open &= self.flush_client(token);
        // A half-closed connection is kept while answers are due to it.
        let due = self
            .exchanges
            .values()
            .any(|e| matches!(e.asker, Asker::Stream(t) if t == token));
        if !open && !due {
            self.clients.remove(&token);
        } else if !open && let Some(client) = self.clients.get(&token) {
            let _ = epoll::modify(
                &self.epoll,
                &client.framed.stream,
                epoll::EventData::new_u64(token),
                epoll::EventFlags::empty(),
            );
        }
    }

    /// Writes what waits for a connection, and asks to be woken when it takes more. False when it is broken.
    fn flush_client(&mut self, token: u64) -> bool {
        let Some(client) = self.clients.get_mut(&token) else {
            return false;
        };
        let Ok(done) = client.framed.flush() else {
            return false;
        };
        let mut interest = epoll::EventFlags::IN;
        interest.set(epoll::EventFlags::OUT, !done);
        epoll::modify(
            &self.epoll,
            &client.framed.stream,
            epoll::EventData::new_u64(token),
            interest,
        )
        .is_ok()
    }

    /// Answers a query, now or later.
    fn ask(&mut self, query: Vec<u8>, asker: Asker, now: Instant) {
        let question = match wire::question(&query) {
            Ok(question) => question,
            Err(Unreadable::Silent) => return,
            Err(Unreadable::Answer(code)) => {
                let response = wire::respond(&query, None, code, &[], usize::MAX);
                return self.reply(asker, &response);
            }
        };
        if let Some(data) = self.local(&question) {
            let limit = match asker {
                Asker::Datagram(_) => wire::udp_limit(&question),
                Asker::Stream(_) => usize::from(u16::MAX),
            };
            let response = wire::respond(&query, Some(&question), wire::NO_ERROR, &data, limit);
            self.reply(asker, &response);
            return self.note(&question, "names", wire::NO_ERROR, &data, now);
        }
        if self.tables.upstreams().is_empty() || self.exchanges.len() >= MOST_EXCHANGES {
            let response = wire::respond(&query, Some(&question), wire::SERVER_FAILURE, &[], usize::MAX);
            self.reply(asker, &response);
            return self.note(&question, NOBODY, wire::SERVER_FAILURE, &[], now);
        }
        let id = self.noise.next() as u16;
        let exchange = Exchange::new(asker, query, question, id, self.tables.upstreams(), now);
        let token = self.token();
        self.exchanges.insert(token, exchange);
        self.next_server(token, now);
    }

    /// The records of a name that is ours; empty when it has none of the type; `None` when it is not ours.
    fn local(&mut self, question: &Question) -> Option<Vec<Data>> {
        let name = question.name.as_deref().filter(|_| question.internet)?;
        if let Some(address) = wire::reverse_address(name) {
            let owner = self.tables.name_of(address)?;
            return Some(if question.kind == wire::PTR {
                vec![Data::Name(owner)]
            } else {
                Vec::new()
            });
        }
        let Known::Addresses(mut addresses) = self.tables.addresses(name) else {
            // No answer, but no denial either: the asker goes on with its search domains.
            let is_address = matches!(question.kind, wire::A | wire::AAAA);
            return (is_address && self.tables.stays(name)).then(Vec::new);
        };
        addresses.retain(|address| match address {
            IpAddr::V4(_) => question.kind == wire::A,
            IpAddr::V6(_) => question.kind == wire::AAAA,
        });
        self.noise.shuffle(&mut addresses);
        Some(addresses.into_iter().map(Data::Address).collect())
    }

    fn reply(&mut self, asker: Asker, response: &[u8]) {
        match asker {
            // A full send buffer loses the answer, as any datagram may be lost; the asker asks again.
            Asker::Datagram(to) => drop(self.udp.send_to(response, to)),
            Asker::Stream(token) => {
                let sent = self
                    .clients
                    .get_mut(&token)
                    .is_some_and(|c| c.framed.queue(response))
                    && self.flush_client(token);
                if !sent {
                    self.clients.remove(&token);
                }
            }
        }
    }

    fn next_server(&mut self, token: u64, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(&token) else {
            return;
        };
        while let Some((fd, output)) = exchange.next_server(now) {
            let mut interest = epoll::EventFlags::IN;
            interest.set(epoll::EventFlags::OUT, output);
            if epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token), interest).is_ok() {
                return;
            }
        }
        let Some(exchange) = self.exchanges.remove(&token) else {
            return;
        };
        let (response, by) = match exchange.refusal {
            Some((refusal, server)) => (refusal, server.to_string()),
            None => {
                let (query, question) = (&exchange.query, &exchange.question);
                let failure = wire::respond(query, Some(question), wire::SERVER_FAILURE, &[], usize::MAX);
                (failure, NOBODY.to_owned())
            }
        };
        self.reply(exchange.asker, &response);
        let code = wire::response_code(&response).unwrap_or(wire::SERVER_FAILURE);
        self.note(&exchange.question, &by, code, &[], exchange.since);
    }

    fn proceed(&mut self, token: u64, now: Instant) {
        let Some(exchange) = self.exchanges.get_mut(&token) else {
            return;
        };
        let epoll = &self.epoll;
        let quiet = |fd: BorrowedFd<'_>| {
            let _ = epoll::modify(epoll, fd, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
        };
        match exchange.proceed(quiet) {
            Progress::Waiting => {}
            Progress::Useless => self.next_server(token, now),
            Progress::Answer(response, server) => {
                let Some(exchange) = self.exchanges.remove(&token) else {
                    return;
                };
                self.reply(exchange.asker, &response);
                let code = wire::response_code(&response).unwrap_or_default();
                self.note(&exchange.question, &server.to_string(), code, &[], exchange.since);
            }
        }
    }

    /// Writes down what was asked and who answered.
    fn note(&mut self, question: &Question, by: &str, code: u8, data: &[Data], since: Instant) {
        let answers = data.iter().map(|data| match data {
            Data::Address(address) => address.to_string(),
            Data::Name(name) => name.clone(),
        });
        self.log.write(&log::Entry {
            time: log::now(),
            name: question.name.clone().unwrap_or_default(),
            kind: log::kind(question.kind),
            by: by.to_owned(),
            code: log::code(code),
            answers: answers.take(MOST_NOTED).collect(),
            took: u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
    }

    fn expire(&mut self, now: Instant) {
        let late: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, e)| e.deadline <= now)
            .map(|(t, _)| *t)
            .collect();
        for token in late {
            self.next_server(token, now);
        }
        self.clients.retain(|_, client| client.idle_until > now);
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            let _ = epoll::modify(
                &self.epoll,
                &self.tcp,
                epoll::EventData::new_u64(TCP),
                epoll::EventFlags::IN,
            );
        }
    }
}

impl AsFd for Server {
    /// The descriptor to watch for input.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Random numbers: from the kernel, a page's worth at a time. Transaction numbers must not be guessable.
#[derive(Debug, Default)]
struct Noise {
    bytes: Vec<u8>,
}

impl Noise {
    fn next(&mut self) -> u32 {
        if self.bytes.len() < 4 {
            self.bytes = vec![0; 256];
            // getrandom(2) for 256 bytes neither fails nor stops half-way once the pool is ready.
            let _ = rustix::rand::getrandom(&mut self.bytes[..], rustix::rand::GetRandomFlags::empty());
        }
        let rest = self.bytes.split_off(self.bytes.len() - 4);
        <[u8; 4]>::try_from(rest).map_or(0, u32::from_ne_bytes)
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.next() as usize % (last + 1));
        }
    }
}
