//! A response body fed by a task.
//!
//! The task ends with the body: when the client goes away hyper drops the body, which aborts the task. The channel is small,
//! so a slow client holds back the task and not the daemon's memory.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const CHUNKS: usize = 16;

/// Where the task puts what the client gets; a failed send means that the client is gone.
#[derive(Clone)]
pub struct Feed(mpsc::Sender<io::Result<Bytes>>);

/// The client is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct Gone;

impl Feed {
    pub async fn send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.send(Ok(bytes.into())).await.map_err(|_| Gone)
    }

    /// From a thread of the blocking pool.
    pub fn blocking_send(&self, bytes: impl Into<Bytes>) -> Result<(), Gone> {
        self.0.blocking_send(Ok(bytes.into())).map_err(|_| Gone)
    }

    /// Breaks the body off, so that the client sees a truncated answer and not a complete one.
    pub async fn fail(&self, error: impl std::fmt::Display) {
        let _ = self.0.send(Err(io::Error::other(error.to_string()))).await;
    }

    /// Resolves when the client goes away.
    pub async fn gone(&self) {
        self.0.closed().await;
    }
}

/// Lets the feed be used as a blocking writer (tar streams).
impl io::Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blocking_send(Bytes::copy_from_slice(bytes))
            .map_err(|gone| io::Error::new(io::ErrorKind::BrokenPipe, gone.to_string()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct FedBody {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    task: Option<JoinHandle<()>>,
}

impl Stream for FedBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.chunks.poll_recv(context)
    }
}

impl Drop for FedBody {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

/// Starts the task and gives the body that it feeds.
pub fn feed<F, W>(work: W) -> Body
where
    W: FnOnce(Feed) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let (sender, chunks) = mpsc::channel(CHUNKS);
    let task = tokio::spawn(work(Feed(sender)));
    Body::from_stream(FedBody {
        chunks,
        task: Some(task),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn the_body_is_what_was_fed() {
        let body = feed(|feed| async move {
            feed.send("a").await.unwrap();
            feed.send("b").await.unwrap();
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "ab");
    }

    #[tokio::test]
    async fn a_dropped_body_ends_the_task() {
        let (ended, wait) = tokio::sync::oneshot::channel::<()>();
        let body = feed(|feed| async move {
            let _ended = ended;
            feed.gone().await;
            std::future::pending::<()>().await;
        });
        drop(body);
        assert!(wait.await.is_err());
    }

    #[tokio::test]
    async fn a_failure_truncates() {
        let body = feed(|feed| async move { feed.fail("broken").await });
        assert!(body.collect().await.is_err());
    }
}
