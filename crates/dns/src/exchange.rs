//! One forwarded query: which servers are left, how the present one is reached, and when it is given up.
//!
//! Each exchange has its own socket, connected to the server, so that the kernel drops what others send and every
//! query leaves from a port of its own. The transaction number is ours and random for the same reason; the asker's is
//! put back on the way home.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::stream::Framed;
use crate::wire::{self, Question};

/// How long a server is waited for while others are left, and when it is the last.
const PATIENCE: Duration = Duration::from_secs(2);
const LAST_PATIENCE: Duration = Duration::from_secs(4);
/// How many servers are asked at most, as in Docker's resolver.
const MOST_SERVERS: usize = 3;

/// Who gets the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asker {
    Datagram(SocketAddr),
    /// The token of a connection, which may be gone by then.
    Stream(u64),
}

#[derive(Debug)]
enum Link {
    Datagram(UdpSocket),
    Stream(Framed),
}

/// What an event on the upstream socket came to.
#[derive(Debug)]
pub(crate) enum Progress {
    Waiting,
    /// The server is of no use; try the next.
    Useless,
    /// A response, its transaction number already the asker's.
    Answer(Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) asker: Asker,
    pub(crate) query: Vec<u8>,
    pub(crate) question: Question,
    pub(crate) deadline: Instant,
    /// The best refusal so far, better than one of our own making.
    pub(crate) refusal: Option<Vec<u8>>,
    id: u16,
    servers: VecDeque<SocketAddr>,
    link: Option<Link>,
}

impl Exchange {
    pub(crate) fn new(
        asker: Asker,
        query: Vec<u8>,
        question: Question,
        id: u16,
        servers: &[SocketAddr],
        now: Instant,
    ) -> Exchange {
        let servers = servers.iter().copied().take(MOST_SERVERS).collect();
        Exchange {
            asker,
            query,
            question,
            deadline: now,
            refusal: None,
            id,
            servers,
            link: None,
        }
    }

    /// Turns to the next server that can be spoken to at all. `None`: none is left. The descriptor given is to be
    /// watched for input, and for output too when the flag is set; the earlier one is closed by then.
    pub(crate) fn next_server(&mut self, now: Instant) -> Option<(BorrowedFd<'_>, bool)> {
        self.link = None;
        while let Some(server) = self.servers.pop_front() {
            if let Ok(link) = self.reach(server) {
                self.deadline = now
                    + if self.servers.is_empty() {
                        LAST_PATIENCE
                    } else {
                        PATIENCE
                    };
                self.link = Some(link);
                break;
            }
        }
        let output = matches!(self.link, Some(Link::Stream(_)));
        self.descriptor().map(|fd| (fd, output))
    }

    /// The socket towards the present server.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.link.as_ref().map(|link| match link {
            Link::Datagram(socket) => socket.as_fd(),
            Link::Stream(framed) => framed.stream.as_fd(),
        })
    }

    fn reach(&self, server: SocketAddr) -> io::Result<Link> {
        let mut message = self.query.clone();
        wire::set_id(&mut message, self.id);
        match self.asker {
            Asker::Datagram(_) => {
                let any: SocketAddr = match server {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(server)?;
                socket.send(&message)?;
                Ok(Link::Datagram(socket))
            }
            Asker::Stream(_) => {
                let family = if server.is_ipv4() {
                    AddressFamily::INET
                } else {
                    AddressFamily::INET6
                };
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
                match rustix::net::connect(&socket, &server) {
                    Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
                    Err(error) => return Err(error.into()),
                }
                let mut framed = Framed::new(TcpStream::from(socket));
                framed.queue(&message);
                Ok(Link::Stream(framed))
            }
        }
    }

    /// The present server's socket has something to say. The second value asks to be woken for output no longer.
    pub(crate) fn proceed(&mut self) -> (Progress, bool) {
        let (message, sent) = match &mut self.link {
            None => return (Progress::Useless, false),
            Some(Link::Datagram(socket)) => {
                let mut buffer = vec![0u8; 65535];
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        buffer.truncate(length);
                        (buffer, true)
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return (Progress::Waiting, true);
                    }
                    // The server's port is closed, or the way to it is.
                    Err(_) => return (Progress::Useless, true),
                }
            }
            Some(Link::Stream(framed)) => {
                let sent = match framed.flush() {
                    Ok(sent) => sent,
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => false,
                    Err(_) => return (Progress::Useless, true),
                };
                if !sent {
                    return (Progress::Waiting, false);
                }
                let open = framed.fill().unwrap_or(false);
                match framed.next_message() {
                    Some(message) => (message, true),
                    None if open => return (Progress::Waiting, true),
                    None => return (Progress::Useless, true),
                }
            }
        };
        (self.judge(message), sent)
    }

    fn judge(&mut self, mut message: Vec<u8>) -> Progress {
        if !wire::answers(&message, &self.query, &self.question, self.id) {
            // Not an answer to this question: somebody guesses. The right one may still come.
            return Progress::Waiting;
        }
        wire::set_id(&mut message, wire::id(&self.query).unwrap_or_default());
        match wire::response_code(&message) {
            Some(wire::SERVER_FAILURE | wire::REFUSED | wire::NOT_IMPLEMENTED) => {
                self.refusal.get_or_insert(message);
                Progress::Useless
            }
            _ => Progress::Answer(message),
        }
    }
}
