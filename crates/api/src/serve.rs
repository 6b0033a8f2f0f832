//! Serving connections: one call per accepted stream, and an orderly end.
//!
//! Whoever accepts (unix, TCP, TLS) hands the stream over; HTTP/1.1 with upgrades and HTTP/2 are told apart by the first
//! bytes. On shutdown idle connections close at once, running requests finish, and connections that were taken over (attach,
//! exec) are let go when the tracker is told to: the containers behind them live on.

use std::io;
use std::sync::Arc;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The server's side of every connection; clones are handles.
#[derive(Clone)]
pub struct Server {
    router: Router,
    builder: Arc<Builder<TokioExecutor>>,
    shutdown: CancellationToken,
    connections: TaskTracker,
}

impl Server {
    /// `shutdown` ends the serving; the router's state may hold the same token.
    pub fn new(router: Router, shutdown: CancellationToken) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).title_case_headers(true);
        Self {
            router,
            builder: Arc::new(builder),
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

    /// Serves one connection to its end.
    pub async fn serve_connection<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service);
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
