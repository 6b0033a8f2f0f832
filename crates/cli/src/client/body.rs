//! Bodies: what a request carries, and an answer read piece by piece or line by line.

use crate::failure::Failure;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// A line of a JSON stream above this size is refused.
const LINE_LIMIT: usize = 16 << 20;

/// What a request carries.
pub enum Body {
    Full(Option<Bytes>),
    /// Pieces from another task or thread; an error breaks the request off.
    Stream(mpsc::Receiver<io::Result<Bytes>>),
}

impl Body {
    pub fn empty() -> Body {
        Body::Full(None)
    }

    pub fn full(bytes: impl Into<Bytes>) -> Body {
        Body::Full(Some(bytes.into()))
    }

    /// The same body once more, where it can be sent twice.
    pub fn replay(&self) -> Option<Body> {
        match self {
            Body::Full(bytes) => Some(Body::Full(bytes.clone())),
            Body::Stream(..) => None,
        }
    }

    /// A body fed by a writer on another thread.
    pub fn piped() -> (BodyWriter, Body) {
        let (sender, receiver) = mpsc::channel(16);
        (
            BodyWriter {
                sender,
                buffer: Vec::with_capacity(CHUNK),
            },
            Body::Stream(receiver),
        )
    }
}

const CHUNK: usize = 64 << 10;

/// Feeds a body from a blocking thread.
pub struct BodyWriter {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl BodyWriter {
    fn push(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.sender
            .blocking_send(Ok(piece.into()))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the daemon stopped reading"))
    }

    /// Ends the body; an error breaks the request off.
    pub fn finish(mut self, result: io::Result<()>) {
        match result.and_then(|()| self.push()) {
            Ok(()) => {}
            Err(error) => {
                let _ = self.sender.blocking_send(Err(error));
            }
        }
    }
}

impl io::Write for BodyWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.push()?;
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.push()
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Body::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Body::Stream(receiver) => receiver
                .poll_recv(cx)
                .map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Full(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Body::Stream(..) => SizeHint::default(),
        }
    }
}

/// An answer read piece by piece.
pub struct Chunks {
    body: Option<Incoming>,
    // Dropping the sender would end the connection before the body is read.
    _sender: Option<SendRequest<Body>>,
}

impl Chunks {
    pub(super) fn new(body: Option<Incoming>, sender: Option<SendRequest<Body>>) -> Chunks {
        Chunks {
            body,
            _sender: sender,
        }
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(body) = &mut self.body else {
            return Ok(None);
        };
        loop {
            match body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => {
                    return Err(Failure::text(format!("the daemon's answer broke off: {error}")));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// Writes everything that is left.
    pub async fn copy_to(mut self, out: &mut dyn io::Write) -> Result<(), Failure> {
        while let Some(bytes) = self.next().await? {
            out.write_all(&bytes)
                .map_err(|error| Failure::text(format!("write: {error}")))?;
        }
        out.flush()
            .map_err(|error| Failure::text(format!("write: {error}")))
    }

    /// A blocking reader fed from this answer by a task; for tar extraction on another thread.
    pub fn reader(mut self) -> ChunkReader {
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move {
            loop {
                let piece = match self.next().await {
                    Ok(Some(bytes)) => Ok(bytes),
                    Ok(None) => return,
                    Err(failure) => Err(io::Error::other(failure.message)),
                };
                let last = piece.is_err();
                if sender.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        ChunkReader {
            receiver,
            current: Bytes::new(),
        }
    }
}

/// See [`Chunks::reader`].
pub struct ChunkReader {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl io::Read for ChunkReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let piece = self.current.split_to(self.current.len().min(out.len()));
        // `Read for &[u8]` copies as much as fits, which is all of it.
        io::Read::read(&mut piece.as_ref(), out)
    }
}

/// An answer read as JSON documents, one a line.
pub struct Lines {
    chunks: Chunks,
    buffer: BytesMut,
    ended: bool,
}

impl Lines {
    pub(super) fn new(chunks: Chunks) -> Lines {
        Lines {
            chunks,
            buffer: BytesMut::new(),
            ended: false,
        }
    }

    /// The next non-empty line.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1).freeze();
                let line = line.slice(..end);
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.ended {
                let rest = self.buffer.split().freeze();
                return Ok((!rest.iter().all(u8::is_ascii_whitespace)).then_some(rest));
            }
            if self.buffer.len() > LINE_LIMIT {
                return Err(Failure::text(format!(
                    "the daemon sent a line longer than {LINE_LIMIT} bytes"
                )));
            }
            match self.chunks.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => self.ended = true,
            }
        }
    }
}
