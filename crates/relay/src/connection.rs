//! One connection: a client's socket, the container's, and what is on its way between them.
//!
//! Each direction ends by itself, as the two sides end it. What one side does not take is at most [`CHUNK`] and what
//! fits into the kernel's buffers; nothing more is read for it meanwhile.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

/// What is read at a time.
pub(crate) const CHUNK: usize = 32 * 1024;
/// How many times a direction is read before others have their turn.
const ROUNDS: u32 = 16;

#[derive(Debug)]
pub(crate) struct Connection {
    client: TcpStream,
    container: TcpStream,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The container's side does not stand yet.
    Connecting,
    Open {
        /// From the client to the container.
        inward: Direction,
        outward: Direction,
    },
}

/// What is to be done about a connection next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Nothing, until something happens to one of its sockets.
    Waiting,
    /// It has had its share and could go on at once.
    More,
    Done,
}

impl Connection {
    /// Connects to the container. Both sockets never wait from here on.
    pub(crate) fn begin(client: TcpStream, target: SocketAddr) -> io::Result<Connection> {
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connected =
            rustix::net::socket_with(family, SocketType::STREAM, flags, None).and_then(|socket| {
                match rustix::net::connect(&socket, &target) {
                    Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
                    Err(errno) => Err(errno),
                }
            });
        let container = connected.map_err(|errno| {
            refuse(&client);
            io::Error::from(errno)
        })?;
        client.set_nonblocking(true)?;
        for side in [&client, &container] {
            // A side that has vanished is found some time, and what is handed on is not held back once more.
            let _ = sockopt::set_socket_keepalive(side, true);
            let _ = side.set_nodelay(true);
        }
        Ok(Connection {
            client,
            container,
            stage: Stage::Connecting,
        })
    }

    /// The client's socket and the container's.
    pub(crate) fn sides(&self) -> [&TcpStream; 2] {
        [&self.client, &self.container]
    }

    /// Moves what can be moved. When the container is `over`, what it has said is all that is left to do.
    pub(crate) fn proceed(&mut self, buffer: &mut [u8], over: bool) -> Progress {
        if matches!(self.stage, Stage::Connecting) {
            match self.is_connected() {
                Ok(true) => {
                    self.stage = Stage::Open {
                        inward: Direction::default(),
                        outward: Direction::default(),
                    };
                }
                Ok(false) if !over => return Progress::Waiting,
                Ok(false) | Err(_) => {
                    refuse(&self.client);
                    return Progress::Done;
                }
            }
        }
        let Stage::Open { inward, outward } = &mut self.stage else {
            return Progress::Waiting;
        };
        let moved = [
            inward.advance(&self.client, &self.container, buffer),
            outward.advance(&self.container, &self.client, buffer),
        ];
        if outward.has_ended() && (over || inward.has_ended()) {
            Progress::Done
        } else if moved.contains(&Progress::More) {
            Progress::More
        } else {
            Progress::Waiting
        }
    }

    fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.container.take_error()? {
            return Err(error);
        }
        match self.container.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Has the client told that nobody listens (a reset), as soon as its socket is closed, instead of an end.
pub(crate) fn refuse(client: &TcpStream) {
    let _ = sockopt::set_socket_linger(client, Some(Duration::ZERO));
}

#[derive(Debug, Default)]
struct Direction {
    /// What was read and not taken yet, from `sent` on.
    pending: Vec<u8>,
    sent: usize,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Its source has said everything; what is pending goes out, then the end.
    Ending,
    Ended,
}

/// What a socket took.
enum Taken {
    All,
    /// So much, and nothing more for now.
    Part(usize),
    /// It takes nothing any more.
    Never,
}

impl Direction {
    fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    fn advance(&mut self, from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> Progress {
        for _ in 0..ROUNDS {
            match give(to, self.pending.get(self.sent..).unwrap_or_default()) {
                Taken::All => {
                    self.pending = Vec::new();
                    self.sent = 0;
                }
                Taken::Part(count) => {
                    self.sent += count;
                    return Progress::Waiting;
                }
                Taken::Never => self.cut(),
            }
            match self.state {
                State::Open => {}
                State::Ending => {
                    // One that is gone by itself has been told already.
                    let _ = rustix::net::shutdown(to, Shutdown::Write);
                    self.state = State::Ended;
                    return Progress::Waiting;
                }
                State::Ended => return Progress::Waiting,
            }
            let count = match rustix::net::recv(from.as_fd(), &mut *buffer, RecvFlags::empty()) {
                Err(Errno::AGAIN) => return Progress::Waiting,
                Err(Errno::INTR) => continue,
                // A side that breaks off has said all that it will.
                Ok((0, _)) | Err(_) => {
                    self.state = State::Ending;
                    continue;
                }
                Ok((count, _)) => count,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            match give(to, bytes) {
                Taken::All => {}
                Taken::Part(taken) => {
                    self.pending = bytes.get(taken..).unwrap_or_default().to_vec();
                    return Progress::Waiting;
                }
                Taken::Never => self.cut(),
            }
        }
        Progress::More
    }

    /// Nobody takes it any more. The other direction goes on: who does not listen may still have something to say.
    fn cut(&mut self) {
        *self = Direction {
            state: State::Ended,
            ..Direction::default()
        };
    }
}

fn give(to: &TcpStream, bytes: &[u8]) -> Taken {
    let mut given = 0;
    while let Some(rest) = bytes.get(given..).filter(|rest| !rest.is_empty()) {
        match rustix::net::send(to.as_fd(), rest, SendFlags::NOSIGNAL) {
            Ok(count) => given += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Taken::Part(given),
            Err(_) => return Taken::Never,
        }
    }
    Taken::All
}
