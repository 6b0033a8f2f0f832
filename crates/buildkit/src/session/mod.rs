//! Clients that lend their files, secrets and logins while they wait for a build.
//!
//! A client opens a connection of its own (`POST /session`, or the stream `Control/Session`) and serves on it; here we
//! call. A request that names a session may arrive before the session does, so it is waited for a little. A session is
//! forgotten when its connection ends.

mod agent;
mod client;
mod stream;

use std::collections::{HashMap, HashSet};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use crate::error::Failure;

pub use client::{Directory, SessionClient, login};
pub use stream::Conversation;

/// How long a session may come after the request that names it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client's end of a session.
#[derive(Debug, Clone)]
pub struct Session {
    pub id: String,
    /// What the client's directories are known by from one session to the next.
    pub shared_key: String,
    methods: Arc<HashSet<String>>,
    channel: Channel,
    closed: CancellationToken,
}

/// What a client says about its session when it opens it.
#[derive(Debug, Clone, Default)]
pub struct Greeting {
    pub id: String,
    pub shared_key: String,
    /// Full names of the methods it serves.
    pub methods: Vec<String>,
}

impl Greeting {
    /// Reads the headers of the request, or of the stream.
    pub fn read<'a>(headers: impl Iterator<Item = (&'a str, &'a str)>) -> Greeting {
        let mut greeting = Greeting::default();
        for (name, value) in headers {
            match name.to_ascii_lowercase().as_str() {
                "x-docker-expose-session-uuid" => greeting.id = value.to_owned(),
                "x-docker-expose-session-sharedkey" => greeting.shared_key = value.to_owned(),
                "x-docker-expose-session-grpc-method" => greeting.methods.push(value.to_ascii_lowercase()),
                _ => {}
            }
        }
        greeting
    }
}

impl Session {
    /// Where the client's services are called.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Whether the client serves a method, given as `/package.Service/Method`.
    pub fn serves(&self, method: &str) -> bool {
        self.methods.contains(&method.to_ascii_lowercase())
    }

    /// Resolves when the client is gone.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// The sessions that are open; clones are handles.
#[derive(Clone, Default)]
pub struct Sessions {
    open: Arc<Mutex<HashMap<String, Session>>>,
    came: Arc<Notify>,
}

impl Sessions {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves a session on `connection` until it ends.
    pub async fn serve<S>(&self, greeting: Greeting, connection: S) -> Result<(), Failure>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if greeting.id.is_empty() {
            return Err(Failure::invalid("a session needs an id"));
        }
        let closed = CancellationToken::new();
        let connection = Watched {
            connection,
            _closed: closed.clone().drop_guard(),
        };
        let mut once = Some(TokioIo::new(connection));
        let connector = tower::service_fn(move |_: http::Uri| {
            let connection = once.take();
            async move { connection.ok_or_else(|| io::Error::other("the session's connection has ended")) }
        });
        let channel = ::session::http2::endpoint()
            .connect_with_connector(connector)
            .await
            .map_err(|error| Failure::unavailable(format!("the session cannot be opened: {error}")))?;
        let session = Session {
            id: greeting.id.clone(),
            shared_key: greeting.shared_key,
            methods: Arc::new(greeting.methods.into_iter().collect()),
            channel,
            closed: closed.clone(),
        };
        {
            let mut open = self.lock();
            if open.contains_key(&greeting.id) {
                return Err(Failure::new(
                    tonic::Code::AlreadyExists,
                    format!("session {} already exists", greeting.id),
                ));
            }
            open.insert(greeting.id.clone(), session);
        }
        self.came.notify_waiters();
        closed.cancelled().await;
        self.lock().remove(&greeting.id);
        Ok(())
    }

    /// The session `id`, waited for a little.
    pub async fn get(&self, id: &str) -> Result<Session, Failure> {
        let find = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if let Some(session) = self.lock().get(id).cloned() {
                    return session;
                }
                came.await;
            }
        };
        tokio::time::timeout(PATIENCE, find).await.map_err(|_| {
            Failure::unavailable(format!("no active session for {id}: context deadline exceeded"))
        })
    }
}

/// A connection that says when it is dropped, which is when its HTTP/2 side has ended.
struct Watched<S> {
    connection: S,
    _closed: DropGuard,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use ::session::lend::Lent;

    use super::*;
    use crate::files::{Selection, Trust, receive};

    #[tokio::test]
    async fn what_is_said_over_a_session_may_be_long() {
        let (near, far) = tokio::io::duplex(1 << 20);
        tokio::spawn(Lent::default().serve(near, std::future::pending()));
        let (sessions, greeting) = (
            Sessions::default(),
            Greeting {
                id: "one".to_owned(),
                ..Greeting::default()
            },
        );
        let open = sessions.clone();
        tokio::spawn(async move { open.serve(greeting, far).await });
        let session = sessions.get("one").await.unwrap();
        // It goes there and comes back in a header.
        let selection = Selection {
            directory: "long".repeat(20_000),
            ..Selection::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let received = receive(
            &session,
            &selection,
            (dir.path(), dir.path()),
            Trust::Never,
            |_| {},
        )
        .await;
        let said = received.unwrap_err().message;
        assert!(said.contains(&selection.directory), "{}", said.len());
    }

    #[test]
    fn a_greeting_is_read() {
        let greeting = Greeting::read(
            [
                ("X-Docker-Expose-Session-Uuid", "one"),
                ("x-docker-expose-session-grpc-method", "/a.B/C"),
                ("x-docker-expose-session-sharedkey", "key"),
                ("other", "x"),
            ]
            .into_iter(),
        );
        assert_eq!(
            (greeting.id.as_str(), greeting.shared_key.as_str()),
            ("one", "key")
        );
        assert_eq!(greeting.methods, ["/a.b/c"]);
    }
}
