//! A connection that is made when it is needed and made again after a failure.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::net::RecvFlags;

use super::config::{Address, Transport};
use super::tls;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that takes nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum Open {
    Tcp(TcpStream),
    Tls(Box<tls::Connection>),
    Unix(UnixStream),
    Udp(UdpSocket),
    UnixDatagram(UnixDatagram),
}

#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    write_timeout: Duration,
    read_timeout: Option<Duration>,
    open: Option<Open>,
}

impl Connection {
    pub(super) fn new(transport: &Transport) -> Self {
        Self {
            transport: transport.clone(),
            write_timeout: WRITE_TIMEOUT,
            read_timeout: None,
            open: None,
        }
    }

    pub(super) fn with_timeouts(mut self, write: Option<Duration>, read: Option<Duration>) -> Self {
        self.write_timeout = write.unwrap_or(WRITE_TIMEOUT);
        self.read_timeout = read;
        self
    }

    /// Connects unless there is a connection that the peer has not closed.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        if self.open.as_ref().is_some_and(Open::is_closed) {
            self.open = None;
        }
        if self.open.is_none() {
            let open = self
                .connected()
                .map_err(|error| io::Error::new(error.kind(), format!("dial {}: {error}", self.transport)))?;
            self.open = Some(open);
        }
        Ok(())
    }

    fn connected(&self) -> io::Result<Open> {
        match &self.transport {
            Transport::Tcp(address) => Ok(Open::Tcp(self.tcp(address)?)),
            Transport::Tls(address, settings) => {
                let stream = self.tcp(address)?;
                Ok(Open::Tls(Box::new(tls::connect(
                    stream,
                    &address.host,
                    settings,
                )?)))
            }
            Transport::Udp(address) => {
                let mut last = no_address();
                for found in (address.host.as_str(), address.port).to_socket_addrs()? {
                    let any = if found.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                    match UdpSocket::bind(any).and_then(|socket| socket.connect(found).map(|()| socket)) {
                        Ok(socket) => return Ok(Open::Udp(socket)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
            Transport::Unix(path) => self.unix(path),
            Transport::UnixDatagram(path) => datagram(path),
            Transport::FirstUnix(paths) => {
                let mut last = no_address();
                for path in paths {
                    match datagram(path).or_else(|_| self.unix(path)) {
                        Ok(open) => return Ok(open),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn tcp(&self, address: &Address) -> io::Result<TcpStream> {
        let mut last = no_address();
        for found in (address.host.as_str(), address.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&found, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream.set_write_timeout(Some(self.write_timeout))?;
                    stream.set_read_timeout(Some(self.read_timeout.unwrap_or(WRITE_TIMEOUT)))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn unix(&self, path: &Path) -> io::Result<Open> {
        let stream = UnixStream::connect(path)?;
        stream.set_write_timeout(Some(self.write_timeout))?;
        stream.set_read_timeout(Some(self.read_timeout.unwrap_or(WRITE_TIMEOUT)))?;
        Ok(Open::Unix(stream))
    }

    /// Whether messages must be told apart by what stands between them.
    pub(super) fn is_stream(&self) -> bool {
        !matches!(self.open, Some(Open::Udp(_) | Open::UnixDatagram(_)))
    }

    /// Sends all of a stream's bytes, or one datagram. After a failure the connection is closed.
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let outcome = match &mut self.open {
            Some(Open::Tcp(stream)) => stream.write_all(bytes),
            Some(Open::Tls(stream)) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Some(Open::Unix(stream)) => stream.write_all(bytes),
            Some(Open::Udp(socket)) => send_datagram(bytes, |part| socket.send(part)),
            Some(Open::UnixDatagram(socket)) => send_datagram(bytes, |part| socket.send(part)),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        outcome.map_err(|error| self.close(error))
    }

    /// Reads what a stream's peer answers.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let outcome = match &mut self.open {
            Some(Open::Tcp(stream)) => stream.read(buffer),
            Some(Open::Tls(stream)) => stream.read(buffer),
            Some(Open::Unix(stream)) => stream.read(buffer),
            _ => Err(io::ErrorKind::NotConnected.into()),
        };
        match outcome {
            Ok(0) => Err(self.close(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => Ok(count),
            Err(error) => Err(self.close(error)),
        }
    }

    fn close(&mut self, error: io::Error) -> io::Error {
        self.open = None;
        io::Error::new(error.kind(), format!("{}: {error}", self.transport))
    }
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such address")
}

fn datagram(path: &Path) -> io::Result<Open> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    socket.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(Open::UnixDatagram(socket))
}

/// What is too long for a datagram is cut.
fn send_datagram(bytes: &[u8], send: impl Fn(&[u8]) -> io::Result<usize>) -> io::Result<()> {
    let mut length = bytes.len();
    let mut refused = false;
    loop {
        match send(bytes.get(..length).unwrap_or(bytes)) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // That was about an earlier datagram.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && !refused => refused = true,
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
                    && length > 512 =>
            {
                length /= 2;
            }
            Err(error) => return Err(error),
        }
    }
}

impl Open {
    /// A peer that has closed a stream would take one more write, and drop it.
    fn is_closed(&self) -> bool {
        let peek = |socket: std::os::fd::BorrowedFd<'_>| {
            let mut byte = [0u8; 1];
            let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
            match rustix::net::recv(socket, &mut byte, flags) {
                Ok((0, _)) => true,
                Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
                Err(_) => true,
            }
        };
        use std::os::fd::AsFd;
        match self {
            Self::Tcp(stream) => peek(stream.as_fd()),
            Self::Tls(stream) => peek(stream.socket().as_fd()),
            Self::Unix(stream) => peek(stream.as_fd()),
            Self::Udp(_) | Self::UnixDatagram(_) => false,
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Udp(address) => write!(f, "udp {address}"),
            Self::Tcp(address) => write!(f, "tcp {address}"),
            Self::Tls(address, _) => write!(f, "tcp+tls {address}"),
            Self::Unix(path) => write!(f, "unix {}", path.display()),
            Self::UnixDatagram(path) => write!(f, "unixgram {}", path.display()),
            Self::FirstUnix(paths) => {
                let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
                write!(f, "unix {}", paths.join(" or "))
            }
        }
    }
}
