//! One forwarded query: which servers were asked, which are left, and when it is given up.
//!
//! Servers race: one that has not answered after [`HEAD_START`] is not given up, but the next is asked beside it, and the
//! first good answer wins. So a server that is down costs a fraction of a second, not its whole time-out, and a slow one
//! is still heard.
//!
//! Each question has its own socket, connected to the server, so that the kernel drops what others send and every
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

/// How long a server has before the next is asked as well.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long is waited once the last was asked.
const PATIENCE: Duration = Duration::from_secs(4);
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

/// A question to one server.
#[derive(Debug)]
struct Asked {
    server: SocketAddr,
    link: Link,
}

/// What an event on the upstream socket came to.
#[derive(Debug)]
pub(crate) enum Progress {
    Waiting,
    /// Nobody who was asked is of use; try the next.
    Useless,
    /// A response, its transaction number already the asker's, and who gave it.
    Answer(Vec<u8>, SocketAddr),
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) asker: Asker,
    pub(crate) query: Vec<u8>,
    pub(crate) question: Question,
    /// When the next server is asked, or nobody is waited for any longer.
    pub(crate) deadline: Instant,
    pub(crate) since: Instant,
    /// The best refusal so far, better than one of our own making.
    pub(crate) refusal: Option<(Vec<u8>, SocketAddr)>,
    id: u16,
    servers: VecDeque<SocketAddr>,
    asked: Vec<Asked>,
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
            since: now,
            refusal: None,
            id,
            servers,
            asked: Vec::new(),
        }
    }

    /// Asks the next server that can be spoken to at all, beside those that were asked. `None`: none is left. The
    /// descriptor given is to be watched for input, and for output too when the flag is set.
    pub(crate) fn next_server(&mut self, now: Instant) -> Option<(BorrowedFd<'_>, bool)> {
        while let Some(server) = self.servers.pop_front() {
            let Ok(link) = self.reach(server) else { continue };
            self.deadline = now
                + if self.servers.is_empty() {
                    PATIENCE
                } else {
                    HEAD_START
                };
            let output = matches!(link, Link::Stream(_));
            self.asked.push(Asked { server, link });
            return self.asked.last().map(|asked| (asked.link.descriptor(), output));
        }
        None
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

    /// A server's socket has something to say. `quiet` is given the descriptors that need be woken for output no longer.
    pub(crate) fn proceed(&mut self, mut quiet: impl FnMut(BorrowedFd<'_>)) -> Progress {
        let mut waiting = Vec::new();
        for mut asked in std::mem::take(&mut self.asked) {
            let message = match asked.link.message() {
                Heard::Message(message) => message,
                Heard::Nothing { sent } => {
                    if sent {
                        quiet(asked.link.descriptor());
                    }
                    waiting.push(asked);
                    continue;
                }
                // The server's port is closed, or the way to it is.
                Heard::End => continue,
            };
            match self.judge(message, asked.server) {
                Some(Progress::Answer(message, server)) => return Progress::Answer(message, server),
                Some(_) => {}
                // Not an answer to this question: somebody guesses. The right one may still come.
                None => waiting.push(asked),
            }
        }
        self.asked = waiting;
        if self.asked.is_empty() {
            Progress::Useless
        } else {
            Progress::Waiting
        }
    }

    /// `None`: it is no answer to what was asked.
    fn judge(&mut self, mut message: Vec<u8>, server: SocketAddr) -> Option<Progress> {
        if !wire::answers(&message, &self.query, &self.question, self.id) {
            return None;
        }
        wire::set_id(&mut message, wire::id(&self.query).unwrap_or_default());
        Some(match wire::response_code(&message) {
            Some(wire::SERVER_FAILURE | wire::REFUSED | wire::NOT_IMPLEMENTED) => {
                self.refusal.get_or_insert((message, server));
                Progress::Useless
            }
            _ => Progress::Answer(message, server),
        })
    }
}

/// What a link had to say.
enum Heard {
    Message(Vec<u8>),
    /// Nothing yet; whether the question is out.
    Nothing {
        sent: bool,
    },
    /// Nothing any more.
    End,
}

impl Link {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Link::Datagram(socket) => socket.as_fd(),
            Link::Stream(framed) => framed.stream.as_fd(),
        }
    }

    fn message(&mut self) -> Heard {
        match self {
            Link::Datagram(socket) => {
                let mut buffer = vec![0u8; 65535];
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        buffer.truncate(length);
                        Heard::Message(buffer)
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::Nothing { sent: true },
                    Err(_) => Heard::End,
                }
            }
            Link::Stream(framed) => {
                match framed.flush() {
                    Ok(true) => {}
                    Ok(false) => return Heard::Nothing { sent: false },
                    Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                        return Heard::Nothing { sent: false };
                    }
                    Err(_) => return Heard::End,
                }
                let open = framed.fill().unwrap_or(false);
                match framed.next_message() {
                    Some(message) => Heard::Message(message),
                    None if open => Heard::Nothing { sent: true },
                    None => Heard::End,
                }
            }
        }
    }
}
