//! The client's agent for keys, as a socket here: each connection to it is a stream of its own to the client.
//!
//! The socket lies in a directory of the engine that is emptied when a daemon starts, so that a crash leaves none behind.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::moby::sshforward::v1::ssh_client::SshClient;
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest};
use build::{Agent, Asked, Patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Request;
use tonic::transport::Channel;

use super::Session;
use crate::error::Failure;
use ::session::header;

/// Pieces that may wait in either direction.
const WAITING: usize = 16;

/// A socket that leads to the client's agent as long as it is held.
pub struct ForwardedAgent {
    directory: tempfile::TempDir,
    _end: DropGuard,
}

impl Agent for ForwardedAgent {
    fn socket(&self) -> PathBuf {
        socket_in(self.directory.path())
    }
}

/// The socket's name in its directory.
const SOCKET: &str = "agent.sock";

fn socket_in(directory: &Path) -> PathBuf {
    directory.join(SOCKET)
}

/// Listens in a directory. A socket's path may have 107 bytes (unix(7)), however long the engine's root is, so the
/// directory is named by its descriptor.
fn listen(directory: &Path) -> std::io::Result<UnixListener> {
    let opened = std::fs::File::open(directory)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()))
}

/// Opens a socket in `room` for the client's agent `id`; `None` where it forwards none of this id. What the agent has not
/// answered is asked in the name of `patience`.
pub async fn forward(
    session: &Session,
    id: &str,
    room: &Path,
    patience: &Arc<Patience>,
) -> Result<Option<ForwardedAgent>, Failure> {
    if !session.serves("/moby.sshforward.v1.ssh/forwardagent") {
        return Ok(None);
    }
    let mut client = SshClient::new(session.channel());
    let check = CheckAgentRequest { id: id.to_owned() };
    let asked = patience.ask();
    let checked = client.check_agent(check).await;
    drop(asked);
    if let Err(status) = checked {
        tracing::debug!(%status, id, "the client forwards no such agent");
        return Ok(None);
    }
    let failed =
        |error: std::io::Error| Failure::internal(format!("cannot make a socket for an agent: {error}"));
    std::fs::create_dir_all(room).map_err(failed)?;
    let directory = tempfile::Builder::new()
        .prefix("agent-")
        .tempdir_in(room)
        .map_err(failed)?;
    let listener = listen(directory.path()).map_err(failed)?;
    let end = CancellationToken::new();
    let (channel, id, ended) = (session.channel(), id.to_owned(), end.clone());
    let patience = patience.clone();
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((connection, _)) => connection,
                    Err(error) => return tracing::warn!(%error, "an agent's socket cannot be listened on"),
                },
                () = ended.cancelled() => return,
            };
            let (channel, id, ended) = (channel.clone(), id.clone(), ended.clone());
            let patience = patience.clone();
            tokio::spawn(async move {
                tokio::select! {
                    () = carry(channel, &id, connection, &patience) => {}
                    () = ended.cancelled() => {}
                }
            });
        }
    });
    Ok(Some(ForwardedAgent {
        directory,
        _end: end.drop_guard(),
    }))
}

/// Carries one connection to the client's agent and back. An agent answers one request after the other, so that whatever it
/// says is an answer to what it was sent last.
async fn carry(channel: Channel, id: &str, connection: UnixStream, patience: &Arc<Patience>) {
    let (read, write) = connection.into_split();
    let (sender, outgoing) = mpsc::channel(WAITING);
    let asked: Mutex<Option<Asked>> = Mutex::default();
    let set = |question: Option<Asked>| *asked.lock().unwrap_or_else(PoisonError::into_inner) = question;
    let up = async {
        // Its end is the end of the stream to the client.
        let (mut read, sender) = (read, sender);
        let mut buffer = vec![0; 32 << 10];
        while let Ok(length) = read.read(&mut buffer).await
            && length > 0
        {
            set(Some(patience.ask()));
            let data = buffer.get(..length).unwrap_or_default().to_vec();
            if sender.send(BytesMessage { data }).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        // Its end tells whoever asks that there is no more.
        let mut write = write;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        header::add(request.metadata_mut(), "buildkit.ssh.id", &[id.to_owned()]);
        let mut client = SshClient::new(channel);
        match client.forward_agent(request).await {
            Ok(answers) => {
                let mut answers = answers.into_inner();
                while let Ok(Some(message)) = answers.message().await {
                    set(None);
                    if write.write_all(&message.data).await.is_err() {
                        return;
                    }
                }
                let _ = write.shutdown().await;
            }
            Err(status) => tracing::debug!(%status, "the client's agent does not answer"),
        }
    };
    tokio::join!(up, down);
}
