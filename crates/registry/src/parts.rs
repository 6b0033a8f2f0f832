//! Reading a blob, over several connections where one is slow.
//!
//! ```text
//!   |#### one connection ####|== its last part ==|-- part --|-- part --|-- part --| …
//!    slow, and much is left: ^                     fetched ahead, given in order
//! ```
//!
//! Bytes are given in the blob's order, so what is stored is always its beginning, which the next attempt goes on
//! from. A registry that does not send parts, or fails at them, is read on over one connection.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spec::Digest;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use crate::blob::{Span, Target};
use crate::config::Ranges;
use crate::error::Error;
use crate::repository::Repository;
use crate::session::Session;

/// A blob being read.
pub struct BlobReader {
    target: Target,
    ranges: Ranges,
    /// What is read now.
    now: Now,
    ahead: VecDeque<Part>,
    position: u64,
    /// Where the last part that was asked for ends; zero while there is one connection.
    asked: u64,
    /// When and where the single connection began.
    began: (Instant, u64),
    /// Parts are out of the question.
    whole: bool,
}

enum Now {
    Span(Box<Span>),
    Part(Part),
}

/// A part on its way, in a task of its own.
struct Part {
    bytes: mpsc::UnboundedReceiver<Result<Bytes, Error>>,
    end: u64,
    task: AbortHandle,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl BlobReader {
    pub(crate) async fn open(
        session: std::sync::Arc<Session>,
        repository: &Repository,
        digest: Digest,
        size: u64,
        offset: u64,
    ) -> Result<BlobReader, Error> {
        let position = offset.min(size);
        let target = Target {
            url: session.url(&format!("blobs/{digest}")).await?,
            reference: repository.reference.clone(),
            pace: repository.pace.clone(),
            session,
            digest,
            size,
        };
        let span = Span::new(target.clone(), position..size, false).open().await?;
        Ok(BlobReader {
            ranges: target.session.client.inner.config().ranges,
            target,
            now: Now::Span(Box::new(span)),
            ahead: VecDeque::new(),
            position,
            asked: 0,
            began: (Instant::now(), position),
            whole: false,
        })
    }

    /// The position of the next byte.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The next bytes, or `None` when all have been given.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while self.position < self.target.size {
            let next = match &mut self.now {
                Now::Span(span) => span.chunk().await?,
                Now::Part(part) => match part.bytes.recv().await {
                    Some(Err(error)) => {
                        tracing::info!(digest = %self.target.digest, at = self.position, %error, "no more parts");
                        self.go_on_whole();
                        continue;
                    }
                    other => other.transpose()?,
                },
            };
            match next {
                Some(bytes) => {
                    self.position += bytes.len() as u64;
                    self.split();
                    return Ok(Some(bytes));
                }
                None => self.next_part(),
            }
        }
        Ok(None)
    }

    /// Gives the rest to several connections if the one so far is slow.
    fn split(&mut self) {
        let part = self.ranges.part.max(1);
        let came = self.position - self.began.1;
        if self.whole || self.asked > 0 || came < part || self.target.size - self.position < 2 * part {
            return;
        }
        let Now::Span(span) = &mut self.now else { return };
        let fast = Duration::from_secs_f64(came as f64 / self.ranges.enough.max(1) as f64);
        if self.began.0.elapsed() <= fast {
            // Looked at again when as much has come once more.
            self.began = (Instant::now(), self.position);
            return;
        }
        self.asked = span.position() + part;
        span.cut(self.asked);
        self.ask_ahead();
    }

    fn ask_ahead(&mut self) {
        while self.ahead.len() < self.ranges.at_once.max(1) && self.asked < self.target.size {
            let range = self.asked..(self.asked + self.ranges.part.max(1)).min(self.target.size);
            self.asked = range.end;
            let (give, bytes) = mpsc::unbounded_channel();
            let mut span = Span::new(self.target.clone(), range.clone(), true);
            let task = tokio::spawn(async move {
                loop {
                    let chunk = span.chunk().await.transpose();
                    let Some(chunk) = chunk else { return };
                    let failed = chunk.is_err();
                    if give.send(chunk).is_err() || failed {
                        return;
                    }
                }
            });
            self.ahead.push_back(Part {
                bytes,
                end: range.end,
                task: task.abort_handle(),
            });
        }
    }

    /// What is read now has ended; the next part's turn.
    fn next_part(&mut self) {
        // A part that ended early, with its task, is as good as one that failed.
        let short = matches!(&self.now, Now::Part(part) if part.end != self.position);
        match self.ahead.pop_front() {
            Some(part) if !short => {
                self.now = Now::Part(part);
                self.ask_ahead();
            }
            _ => self.go_on_whole(),
        }
    }

    fn go_on_whole(&mut self) {
        self.ahead.clear();
        self.whole = true;
        let rest = self.position..self.target.size;
        self.now = Now::Span(Box::new(Span::new(self.target.clone(), rest, false)));
    }
}
