//! Published ports that come to sockets of this host (see the crate `relay`). The monitor holds the sockets and looks
//! whether a client has come; then it starts a process that serves them all, which ends when nobody was there for a
//! while. So what a client does takes none of the monitor's time or descriptors, and a port without clients costs a
//! descriptor and no process.
//!
//! When other ports are to be served, or for other targets, the next client gets a new process, and the old one keeps
//! its connections until they end. When the container ends all of them hand on what it has said, and end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use relay::{Port, Transport};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::SendFlags;
use rustix::process::Pid;
use spec::ErrorClass;
use sys::process::{Child, Exit};

use super::internal;
use super::poller::Token;
use super::supervisor::{Phase, Supervisor};
use crate::protocol::{Failed, Response};

/// Between two attempts to start a process that could not be started, or died.
const AGAIN: Duration = Duration::from_secs(1);
/// How long a process may take to leave the ports. It does nothing that takes long.
const LEAVE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 200_000_000,
};
const SIGKILL: i32 = 9;

#[derive(Debug)]
pub(super) struct Relay {
    ports: Vec<(Port, OwnedFd)>,
    /// Readable when a client has come to one of the ports.
    ready: OwnedFd,
    workers: Vec<Worker>,
    /// The one that has the ports.
    serving: Option<i32>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Worker {
    process: Child,
    /// Its end says that the container is over.
    line: Option<UnixStream>,
}

impl Relay {
    /// Of no ports.
    pub(super) fn new() -> io::Result<Relay> {
        Ok(Relay {
            ports: Vec::new(),
            ready: epoll::create(CreateFlags::CLOEXEC)?,
            workers: Vec::new(),
            serving: None,
            not_before: None,
        })
    }

    /// Serves these ports, and gives up those that are not among them. For those of the given numbers there are new
    /// sockets; the others keep theirs, and one that has none is not served. A port that cannot be served keeps no other
    /// from it; the first failure is told.
    pub(super) fn set(&mut self, ports: Vec<Port>, mut sockets: Vec<(usize, OwnedFd)>) -> io::Result<()> {
        if sockets.is_empty() && self.ports.iter().map(|(port, _)| port).eq(&ports) {
            return Ok(());
        }
        self.retire();
        let mut old = std::mem::take(&mut self.ports);
        // What was watched is open in other processes, too, so the kernel forgets it only with the whole of this.
        self.ready = epoll::create(CreateFlags::CLOEXEC)?;
        let mut outcome = Ok(());
        for (number, port) in ports.into_iter().enumerate() {
            let new = sockets.iter().position(|(of, _)| *of == number);
            let known = old.iter().position(|(known, _)| known.is_at(&port));
            let socket = match (new, known) {
                (Some(new), _) => sockets.swap_remove(new).1,
                (None, Some(known)) => old.swap_remove(known).1,
                (None, None) => continue,
            };
            match self.watch(&port, &socket) {
                Ok(()) => self.ports.push((port, socket)),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome
    }

    fn watch(&self, port: &Port, socket: &OwnedFd) -> io::Result<()> {
        if port.transport == Transport::Tcp {
            relay::listen(socket)?;
        }
        Ok(epoll::add(
            &self.ready,
            socket,
            EventData::new_u64(0),
            EventFlags::IN,
        )?)
    }

    /// Whether a client that comes is to be heard of.
    pub(super) fn is_awaiting(&self, now: Instant) -> bool {
        !self.ports.is_empty() && self.serving.is_none() && self.not_before.is_none_or(|at| at <= now)
    }

    /// When clients that have come meanwhile are to be looked for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = !self.ports.is_empty() && self.serving.is_none();
        self.not_before.filter(|_| waits)
    }

    /// A client has come.
    pub(super) fn begin(&mut self) {
        // Also when the container has ended in this very turn.
        if self.serving.is_some() || self.ports.is_empty() {
            return;
        }
        self.not_before = None;
        match self.start() {
            Ok(worker) => {
                self.serving = Some(worker.process.pid);
                self.workers.push(worker);
            }
            // The client stays in the queue of its port.
            Err(_) => self.not_before = Some(Instant::now() + AGAIN),
        }
    }

    fn start(&self) -> io::Result<Worker> {
        let (line, theirs) = UnixStream::pair()?;
        line.set_nonblocking(true)?;
        let own = rustix::process::getpid();
        let process = sys::process::spawn(sys::process::Options::default(), || {
            i32::from(work(own, &theirs, &self.ports).is_err())
        })?;
        Ok(Worker {
            process,
            line: Some(line),
        })
    }

    /// Has the process that serves the ports leave them, and waits for that: who is told that they are free tries to have
    /// them.
    fn retire(&mut self) {
        let serving = self.serving.take();
        let mut workers = self.workers.iter();
        let worker = workers.find(|worker| Some(worker.process.pid) == serving);
        if let Some(line) = worker.and_then(|worker| worker.line.as_ref()) {
            // One that does not hear it is dead.
            if rustix::net::send(line, &[relay::RETIRE], SendFlags::NOSIGNAL).is_ok() {
                let _ = rustix::event::poll(&mut [PollFd::new(line, PollFlags::IN)], Some(&LEAVE));
            }
        }
    }

    /// A child was reaped; false when it was none of these.
    pub(super) fn ended(&mut self, pid: i32, exit: Exit) -> bool {
        let Some(at) = self.workers.iter().position(|worker| worker.process.pid == pid) else {
            return false;
        };
        self.workers.swap_remove(at);
        if self.serving == Some(pid) {
            self.serving = None;
            if exit != Exit::Code(0) {
                self.not_before = Some(Instant::now() + AGAIN);
            }
        }
        true
    }

    /// The container is over: the ports are given up, and what it has said is handed on.
    pub(super) fn end(&mut self) {
        self.ports.clear();
        for worker in &mut self.workers {
            worker.line = None;
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.workers.is_empty()
    }

    /// Waits for nobody any longer. Afterwards the ports are free.
    pub(super) fn kill(self) {
        for Worker { process, .. } in &self.workers {
            let _ = sys::process::send_signal(process.pidfd.as_fd(), SIGKILL);
            let _ = sys::process::wait(process.pidfd.as_fd());
        }
    }
}

impl AsFd for Relay {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

/// The process that serves the ports. It is a copy of the monitor, and keeps nothing of it but these sockets.
fn work(monitor: Pid, line: &UnixStream, ports: &[(Port, OwnedFd)]) -> io::Result<()> {
    relay::confine(monitor)?;
    // Under numbers of its own, since the others are the monitor's to close.
    let line = line.try_clone()?;
    let ports = ports
        .iter()
        .map(|(port, socket)| Ok((port.clone(), socket.try_clone()?)))
        .collect::<io::Result<Vec<(Port, OwnedFd)>>>()?;
    let sockets = ports.iter().map(|(_, socket)| socket.as_raw_fd());
    let keep: Vec<RawFd> = sockets.chain([line.as_raw_fd()]).collect();
    sys::fd::close_all_except(&keep)?;
    relay::serve(line, ports)
}

impl Supervisor {
    pub(super) fn set_relay(
        &mut self,
        ports: Vec<Port>,
        new: Vec<usize>,
        sockets: Vec<OwnedFd>,
    ) -> Result<Response, Failed> {
        if !matches!(self.phase, Phase::Running) {
            return Err(Failed::new(
                ErrorClass::Conflict,
                format!("container {} is not running", self.launch.id),
            ));
        }
        if new.len() != sockets.len() {
            let text = format!("{} sockets came for {} ports", sockets.len(), new.len());
            return Err(Failed::new(ErrorClass::Invalid, text));
        }
        let failed = |error: io::Error| internal("serve published ports", &error);
        let relay = match self.relay.take() {
            Some(relay) => relay,
            None => Relay::new().map_err(failed)?,
        };
        let relay = self.relay.insert(relay);
        // It gets another descriptor.
        let _ = self.poller.want(Token::Relay, &*relay, None);
        relay
            .set(ports, new.into_iter().zip(sockets).collect())
            .map_err(failed)?;
        Ok(Response::Done)
    }

    /// Says whether clients of the ports are to be heard of.
    pub(super) fn settle_relay(&mut self, now: Instant) {
        if let Some(relay) = &mut self.relay {
            // One that has passed is nothing to wake for any more.
            relay.not_before = relay.not_before.filter(|at| *at > now);
            let wanted = relay.is_awaiting(now).then_some(EventFlags::IN);
            let _ = self.poller.want(Token::Relay, &*relay, wanted);
        }
    }

    /// The container is over, and so are its ports.
    pub(super) fn end_relay(&mut self) {
        if let Some(relay) = &mut self.relay {
            let _ = self.poller.want(Token::Relay, &*relay, None);
            relay.end();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn port(at: SocketAddr, target: SocketAddr) -> Port {
        let SocketAddr::V6(host) = at else { unreachable!() };
        Port {
            transport: Transport::Tcp,
            host,
            target: Some(target),
        }
    }

    /// Waits for a client and serves it.
    fn serve(relay: &mut Relay) {
        let mut ready = [PollFd::new(&*relay, PollFlags::IN)];
        rustix::event::poll(&mut ready, None).unwrap();
        relay.begin();
    }

    #[test]
    fn a_process_serves_until_others_ports_take_its_place() {
        // Processes are copied from this one, which must have one thread; so it is a copy itself.
        let child = sys::process::spawn(sys::process::Options::default(), || {
            let Ok(first) = TcpListener::bind("[::1]:0") else {
                println!("skipped: the host has no IPv6");
                return 0;
            };
            let second = TcpListener::bind("[::1]:0").unwrap();
            let container = TcpListener::bind("127.0.0.1:0").unwrap();
            let target = container.local_addr().unwrap();
            let (one, two) = (first.local_addr().unwrap(), second.local_addr().unwrap());
            let mut relay = Relay::new().unwrap();
            relay
                .set(vec![port(one, target)], vec![(0, first.into())])
                .unwrap();
            assert!(relay.is_awaiting(Instant::now()));
            let client = TcpStream::connect(one).unwrap();
            serve(&mut relay);
            assert!(!relay.is_awaiting(Instant::now()));
            let (served, _) = container.accept().unwrap();
            // The same again changes nothing; another port does.
            relay.set(vec![port(one, target)], Vec::new()).unwrap();
            assert!(relay.serving.is_some());
            let both = vec![port(one, target), port(two, target)];
            relay.set(both, vec![(1, second.into())]).unwrap();
            assert!(relay.is_awaiting(Instant::now()));
            let mut other = TcpStream::connect(two).unwrap();
            serve(&mut relay);
            assert_eq!(relay.workers.len(), 2);
            let (mut answering, _) = container.accept().unwrap();
            answering.write_all(b"new").unwrap();
            drop(answering);
            let mut answer = String::new();
            other.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "new");
            // The old one keeps its connection.
            for (mut from, mut to) in [(&client, &served), (&served, &client)] {
                from.write_all(b"x").unwrap();
                to.read_exact(&mut [0]).unwrap();
            }
            // One that is given up is free, even though it was held by several processes.
            relay.set(vec![port(two, target)], Vec::new()).unwrap();
            assert!(TcpListener::bind(one).is_ok());
            drop(served);
            relay.end();
            while let Some(worker) = relay.workers.first() {
                let pid = worker.process.pid;
                let exit = sys::process::wait(worker.process.pidfd.as_fd()).unwrap();
                assert_eq!(exit, Exit::Code(0));
                assert!(relay.ended(pid, exit));
            }
            assert!(relay.is_over());
            0
        });
        let exit = sys::process::wait(child.unwrap().pidfd.as_fd()).unwrap();
        assert_eq!(exit, Exit::Code(0));
    }
}
