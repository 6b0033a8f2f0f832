//! Serving connections: one call per accepted stream, and an orderly end.
//!
//! Whoever accepts (unix, TCP, TLS) hands the stream over; HTTP/1.1 with upgrades and HTTP/2 are told apart by the first
//! bytes. On shutdown idle connections close at once, running requests finish, and connections that were taken over (attach,
//! exec) are let go when the tracker is told to: the containers behind them live on.
//!
//! A client that has gone ends its request. On a unix socket one that only says it will send no more is told apart from
//! it: it still gets its answer, as from Go's servers. TCP does not tell the two apart before something is sent.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The server's side of every connection; clones are handles.
#[derive(Clone)]
pub struct Server {
    router: Router,
    builder: Arc<Builder<TokioExecutor>>,
    /// Goes on when the client has closed its half.
    patient: Arc<Builder<TokioExecutor>>,
    shutdown: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// `shutdown` ends the serving; the router's state may hold the same token.
    pub fn new(router: Router, shutdown: CancellationToken) -> Self {
        let builder = |half_close: bool| {
            let mut builder = Builder::new(TokioExecutor::new());
            let mut http1 = builder.http1();
            http1
                .timer(TokioTimer::new())
                .title_case_headers(true)
                .half_close(half_close);
            Arc::new(builder)
        };
        Self {
            router,
            builder: builder(false),
            patient: builder(true),
            shutdown,
            connections: TaskTracker::new(),
        }
    }

    /// Serves one connection in a task of its own.
    pub fn spawn<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let server = self.clone();
        self.connections.spawn(async move {
            if let Err(error) = server.serve_connection(stream).await {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }

    /// Serves one connection of a unix socket in a task of its own.
    pub fn spawn_unix(&self, stream: UnixStream) {
        let server = self.clone();
        self.connections.spawn(async move {
            let served = match Gone::watch(&stream) {
                Ok(gone) => tokio::select! {
                    served = server.serve_by(&server.patient, stream) => served,
                    () = gone.happened() => Ok(()),
                },
                // The last descriptor is better spent on an answer. Who sends no more is then taken for one that has gone.
                Err(_) => server.serve_connection(stream).await,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection ended badly");
            }
        });
    }

    /// Serves one connection to its end.
    pub async fn serve_connection<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.serve_by(&self.builder, stream).await
    }

    async fn serve_by<S>(&self, builder: &Builder<TokioExecutor>, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        result.map_err(io::Error::other)
    }

    /// Resolves when shutdown was asked for and every connection has ended.
    pub async fn drained(&self) {
        self.shutdown.cancelled().await;
        self.connections.close();
        self.connections.wait().await;
    }
}

/// How long what a client sent before it went is still read and begun.
const LAST_WISH: Duration = Duration::from_millis(200);

/// Whether the other end of a unix socket is closed in both directions, which the kernel tells as a hangup (poll(2)).
struct Gone(AsyncFd<OwnedFd>);

impl Gone {
    fn watch(stream: &UnixStream) -> io::Result<Gone> {
        let fd = stream.as_fd().try_clone_to_owned()?;
        // Hangups are told whatever is asked for; nothing else wakes this.
        #[expect(
            deprecated,
            reason = "its successor is unsafe for types that may close their descriptor; an OwnedFd does not"
        )]
        let watched = AsyncFd::with_interest(fd, Interest::PRIORITY)?;
        Ok(Gone(watched))
    }

    async fn happened(&self) {
        // A failure to watch is no going.
        if self.0.ready(Interest::PRIORITY).await.is_err() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(LAST_WISH).await;
    }
}
