//! One question to a plugin and its answer: HTTP/1.1 with JSON in both directions, a connection for each.
//!
//! The whole exchange has one deadline, and the answer a limit, whatever the other side does.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// More than any list of volumes needs.
const LIMIT: u64 = 16 << 20;
const KIND: &str = "application/vnd.docker.plugins.v1.2+json";

/// Where a plugin listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Address, String> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Address::Unix(path.into()));
        }
        if let Some(host) = text.strip_prefix("tcp://").filter(|host| !host.is_empty()) {
            return Ok(Address::Tcp(host.trim_end_matches('/').to_owned()));
        }
        Err(format!(
            "the address {text:?} is neither unix:///PATH nor tcp://HOST:PORT"
        ))
    }
}

/// Status and body.
pub(super) fn ask(
    address: &Address,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> io::Result<(u16, Vec<u8>)> {
    let deadline = Instant::now() + timeout;
    match address {
        // A listener whose queue is full makes the caller wait for as long as it can be written to.
        Address::Unix(socket) => exchange(UnixStream::connect(socket)?, deadline, path, body),
        Address::Tcp(host) => {
            let mut addresses = host.to_socket_addrs()?;
            let first = addresses
                .next()
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")))?;
            exchange(TcpStream::connect_timeout(&first, timeout)?, deadline, path, body)
        }
    }
}

/// A connection that can be told how long it may wait.
trait Connection: Read + Write {
    fn wait_at_most(&self, time: Duration) -> io::Result<()>;
}

impl Connection for UnixStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Connection for TcpStream {
    fn wait_at_most(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

fn exchange(
    mut connection: impl Connection,
    deadline: Instant,
    path: &str,
    body: &[u8],
) -> io::Result<(u16, Vec<u8>)> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: plugin\r\nUser-Agent: berth\r\nAccept: {KIND}\r\nContent-Type: {KIND}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    wait(&connection, deadline)?;
    connection.write_all(head.as_bytes()).map_err(timed_out)?;
    connection.write_all(body).map_err(timed_out)?;
    let mut answer = Vec::new();
    let mut part = [0; 8192];
    loop {
        if let Some(whole) = parse(&answer, false)? {
            return Ok(whole);
        }
        if answer.len() as u64 > LIMIT {
            return Err(io::Error::other("the answer does not end"));
        }
        wait(&connection, deadline)?;
        match connection.read(&mut part).map_err(timed_out)? {
            0 => break,
            read => answer.extend_from_slice(part.get(..read).unwrap_or_default()),
        }
    }
    parse(&answer, true)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the connection ended before the answer did",
        )
    })
}

fn wait(connection: &impl Connection, deadline: Instant) -> io::Result<()> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => connection.wait_at_most(left),
        _ => Err(late()),
    }
}

fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => late(),
        _ => error,
    }
}

fn late() -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        "its time is over (--volume-plugin-timeout)",
    )
}

/// The answer, if all of it is there; `ended` when no more will come.
fn parse(answer: &[u8], ended: bool) -> io::Result<Option<(u16, Vec<u8>)>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else {
        return match answer.len() > 64 << 10 {
            true => Err(wrong()),
            false => Ok(None),
        };
    };
    let (head, rest) = answer.split_at(end);
    let body = rest.get(4..).unwrap_or_default();
    let head = std::str::from_utf8(head).map_err(|_| wrong())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    let status = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let status: u16 = status.and_then(|code| code.parse().ok()).ok_or_else(wrong)?;
    let mut length = None;
    let mut chunked = false;
    for line in lines {
        let (key, value) = line.split_once(':').ok_or_else(wrong)?;
        match key.to_ascii_lowercase().as_str() {
            "content-length" => length = Some(value.trim().parse::<usize>().map_err(|_| wrong())?),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let whole = match (chunked, length) {
        (true, _) => join(body).ok_or_else(wrong)?,
        (false, Some(length)) => body.get(..length).map(<[u8]>::to_vec),
        (false, None) => ended.then(|| body.to_vec()),
    };
    Ok(whole.map(|body| (status, body)))
}

/// The chunks of a body as one; nothing inside while some are missing, nothing at all where it is not made of chunks.
fn join(mut body: &[u8]) -> Option<Option<Vec<u8>>> {
    let mut whole = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|part| part == b"\r\n") else {
            return Some(None);
        };
        let size = std::str::from_utf8(body.get(..end)?).ok()?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(Some(whole));
        }
        let from = end + 2;
        let Some(chunk) = body.get(from..from.checked_add(size)?) else {
            return Some(None);
        };
        whole.extend_from_slice(chunk);
        body = match body.get(from + size..) {
            Some(rest) if rest.len() >= 2 => rest.strip_prefix(b"\r\n")?,
            _ => return Some(None),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, ended: bool) -> Option<(u16, String)> {
        let parsed = parse(text.as_bytes(), ended).unwrap()?;
        Some((parsed.0, String::from_utf8(parsed.1).unwrap()))
    }

    #[test]
    fn answers_are_read_when_they_are_whole() {
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", false),
            Some((200, "{}".into()))
        );
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", false),
            None
        );
        assert_eq!(whole("HTTP/1.0 500 No\r\n\r\nx", false), None);
        assert_eq!(whole("HTTP/1.0 500 No\r\n\r\nx", true), Some((500, "x".into())));
        let chunks =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
        assert_eq!(whole(chunks, false), Some((200, "abcd".into())));
        for cut in [50, 55, 60, 64] {
            assert_eq!(whole(&chunks[..cut], true), None, "{cut}");
        }
    }

    #[test]
    fn what_is_not_http_is_told() {
        for wrong in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nx",
        ] {
            assert!(parse(wrong.as_bytes(), true).is_err(), "{wrong:?}");
        }
        assert!(parse(&[b'x'; 70_000], false).is_err());
    }

    #[test]
    fn addresses() {
        assert_eq!(
            Address::parse("unix:///run/x"),
            Ok(Address::Unix("/run/x".into()))
        );
        assert_eq!(Address::parse("tcp://host:1/"), Ok(Address::Tcp("host:1".into())));
        for wrong in ["", "unix://x", "http://x", "tcp://"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
