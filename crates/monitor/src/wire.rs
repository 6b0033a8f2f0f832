//! Lines with descriptors over a unix stream socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::MAX_LINE;

/// A message as its line.
pub(crate) fn line_of(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::from)?;
    line.push(b'\n');
    Ok(line)
}

/// Sends a message as a line, the descriptors with its first byte. The socket must block.
pub(crate) fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    sys::fd::send_fds(socket, &line_of(message)?, fds)
}

/// Whether a line was well-formed and is only not known here.
pub(crate) fn is_unknown(error: &io::Error) -> bool {
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    source.is_some_and(serde_json::Error::is_data)
}

/// Collects lines from a socket.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    text: Vec<u8>,
    /// How much of it is known to hold no end of a line.
    searched: usize,
    fds: VecDeque<OwnedFd>,
}

/// What a read brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Filled {
    Something,
    /// The socket has nothing now.
    Nothing,
    End,
}

impl Lines {
    /// Reads once.
    pub(crate) fn fill(&mut self, socket: impl AsFd) -> io::Result<Filled> {
        let mut chunk = [0u8; 4096];
        match sys::fd::recv_fds(socket, &mut chunk) {
            Ok((0, _)) => Ok(Filled::End),
            Ok((count, fds)) => {
                if self.text.len() + count > MAX_LINE {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a message is too long",
                    ));
                }
                self.text
                    .extend_from_slice(chunk.get(..count).unwrap_or_default());
                self.fds.extend(fds);
                Ok(Filled::Something)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
            Err(error) => Err(error),
        }
    }

    /// The next whole line, decoded. Descriptors belong to it when a peer waits for each answer before it asks
    /// again, as the protocol says.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let fresh = self.text.get(self.searched..).unwrap_or_default();
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.text.len();
            return Ok(None);
        };
        let end = self.searched + end;
        self.searched = 0;
        let line: Vec<u8> = self.text.drain(..=end).collect();
        let fds = self.fds.drain(..).collect();
        let message = serde_json::from_slice(&line).map_err(io::Error::from)?;
        if self.text.is_empty() {
            self.text = Vec::new();
        }
        Ok(Some((message, fds)))
    }

    /// Waits for the next line on a blocking socket.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
        socket: impl AsFd,
    ) -> io::Result<(T, Vec<OwnedFd>)> {
        loop {
            if let Some(found) = self.next()? {
                return Ok(found);
            }
            match self.fill(socket.as_fd())? {
                Filled::Something => {}
                Filled::Nothing => return Err(io::ErrorKind::TimedOut.into()),
                Filled::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::protocol::Request;

    #[test]
    fn a_line_arrives_with_its_descriptors() {
        let (one, other) = UnixStream::pair().unwrap();
        let (stream, _peer) = UnixStream::pair().unwrap();
        send(&one, &Request::Attach(Default::default()), &[stream.as_fd()]).unwrap();
        send(&one, &Request::State, &[]).unwrap();
        let mut lines = Lines::default();
        let (first, fds) = lines.receive::<Request>(&other).unwrap();
        assert!(matches!(first, Request::Attach(_)));
        assert_eq!(fds.len(), 1);
        let (second, fds) = lines.receive::<Request>(&other).unwrap();
        assert!(matches!(second, Request::State) && fds.is_empty());
    }

    #[test]
    fn nonsense_and_endless_lines_are_errors() {
        let (one, other) = UnixStream::pair().unwrap();
        sys::fd::send_fds(&one, b"{]\n", &[]).unwrap();
        let nonsense = Lines::default().receive::<Request>(&other).unwrap_err();
        assert!(!is_unknown(&nonsense), "{nonsense}");
        // Words of a later release are told apart, and what follows them is understood.
        sys::fd::send_fds(&one, b"{\"dance\":{\"on\":\"ice\"}}\n\"state\"\n", &[]).unwrap();
        let mut lines = Lines::default();
        let unknown = lines.receive::<Request>(&other).unwrap_err();
        assert!(is_unknown(&unknown), "{unknown}");
        assert!(matches!(
            lines.receive::<Request>(&other),
            Ok((Request::State, _))
        ));
        let writer = std::thread::spawn(move || {
            let block = vec![b'x'; 1 << 16];
            while sys::fd::send_fds(&one, &block, &[]).is_ok() {}
        });
        assert!(Lines::default().receive::<Request>(&other).is_err());
        drop(other);
        writer.join().unwrap();
    }
}
