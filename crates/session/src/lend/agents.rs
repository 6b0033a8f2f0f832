//! Agents for keys: each call is a connection to the socket of one.
//!
//! Keys are lent for reading: who builds may list them and have something signed. Everything else that agents do (add and
//! remove keys, lock, use smart cards, extensions) is refused here and never reaches the agent.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::header;

/// The id where none is said.
const DEFAULT: &str = "default";
/// Messages that may wait to be sent.
const WAITING: usize = 16;
/// The length in front of each message of the agent's protocol; the first byte after it is the message's kind.
const LENGTH: usize = 4;
/// The longest message.
const MAX_FRAME: usize = 256 << 10;
/// The kinds of requests that are handed on.
const REQUEST_IDENTITIES: u8 = 11;
const SIGN_REQUEST: u8 = 13;
/// The answer to all others: one byte, which says that it failed.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

pub struct Agents(BTreeMap<String, PathBuf>);

pub fn service(agents: BTreeMap<String, PathBuf>) -> SshServer<Agents> {
    SshServer::new(Agents(agents))
}

impl Agents {
    fn socket(&self, id: &str) -> Result<&PathBuf, Status> {
        let id = if id.is_empty() { DEFAULT } else { id };
        let socket = self.0.get(id);
        socket
            .ok_or_else(|| Status::not_found(format!("no agent {id} is forwarded: name it with --ssh {id}")))
    }
}

#[tonic::async_trait]
impl Ssh for Agents {
    async fn check_agent(
        &self,
        request: Request<CheckAgentRequest>,
    ) -> Result<Response<CheckAgentResponse>, Status> {
        self.socket(&request.into_inner().id)?;
        Ok(Response::new(CheckAgentResponse {}))
    }

    type ForwardAgentStream = ReceiverStream<Result<BytesMessage, Status>>;

    async fn forward_agent(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::ForwardAgentStream>, Status> {
        let id = header::first(request.metadata(), "buildkit.ssh.id").unwrap_or_default();
        let socket = self.socket(&id)?;
        let connection = UnixStream::connect(socket)
            .await
            .map_err(super::failed(format!("the agent at {}", socket.display())))?;
        let (sender, outgoing) = mpsc::channel(WAITING);
        let requests = request.into_inner();
        tokio::spawn(async move {
            if let Err(status) = mediate(requests, connection, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Hands requests to the agent, one after the other, and its answers back.
async fn mediate<R, A>(
    mut requests: R,
    mut agent: A,
    answers: &mpsc::Sender<Result<BytesMessage, Status>>,
) -> Result<(), Status>
where
    R: Stream<Item = Result<BytesMessage, Status>> + Unpin,
    A: AsyncRead + AsyncWrite + Unpin,
{
    let mut pending = Vec::new();
    while let Some(Ok(message)) = requests.next().await {
        pending.extend_from_slice(&message.data);
        while let Some(frame) = next(&mut pending)? {
            let data = match frame.get(LENGTH) {
                Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)) => ask(&mut agent, &frame)
                    .await
                    .map_err(super::failed("the agent"))?,
                _ => FAILURE.to_vec(),
            };
            if answers.send(Ok(BytesMessage { data })).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Takes the first frame out of what has come, if all of it is there.
fn next(pending: &mut Vec<u8>) -> Result<Option<Vec<u8>>, Status> {
    let Some(head) = pending.first_chunk::<LENGTH>() else {
        return Ok(None);
    };
    let length = length(*head).map_err(Status::invalid_argument)?;
    if pending.len() < LENGTH + length {
        return Ok(None);
    }
    let rest = pending.split_off(LENGTH + length);
    Ok(Some(std::mem::replace(pending, rest)))
}

/// How long a message is.
fn length(head: [u8; LENGTH]) -> Result<usize, String> {
    match usize::try_from(u32::from_be_bytes(head)) {
        Ok(length) if (1..=MAX_FRAME).contains(&length) => Ok(length),
        _ => Err(format!(
            "a message of an agent has from 1 to {MAX_FRAME} bytes, and this one says {}",
            u32::from_be_bytes(head)
        )),
    }
}

/// What the agent says to a request.
async fn ask(agent: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8]) -> io::Result<Vec<u8>> {
    agent.write_all(request).await?;
    agent.flush().await?;
    let mut head = [0; LENGTH];
    agent.read_exact(&mut head).await?;
    let length = length(head).map_err(io::Error::other)?;
    let mut answer = head.to_vec();
    answer.resize(LENGTH + length, 0);
    agent
        .read_exact(answer.get_mut(LENGTH..).unwrap_or_default())
        .await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(rest.len() + 1).unwrap();
        [&length.to_be_bytes()[..], &[kind], rest].concat()
    }

    /// What an agent gets of what is sent in these pieces, and all that is answered. The agent answers with the request.
    async fn pass(pieces: Vec<Vec<u8>>) -> (Vec<u8>, Vec<u8>, Result<(), Status>) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let agent = tokio::spawn(async move {
            let mut got = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = far.read(&mut buffer).await {
                got.extend_from_slice(&buffer[..length]);
                far.write_all(&buffer[..length]).await.unwrap();
            }
            got
        });
        let (sender, mut answers) = mpsc::channel(1024);
        let pieces = pieces.into_iter().map(|data| Ok(BytesMessage { data }));
        let ended = mediate(futures_util::stream::iter(pieces), near, &sender).await;
        drop(sender);
        let mut said = Vec::new();
        while let Some(message) = answers.recv().await {
            said.extend(message.unwrap().data);
        }
        (agent.await.unwrap(), said, ended)
    }

    #[tokio::test]
    async fn agents_list_keys_and_sign_and_do_nothing_else() {
        let (list, sign) = (
            frame(REQUEST_IDENTITIES, b""),
            frame(SIGN_REQUEST, b"what is to be signed"),
        );
        // Every other request that there is: remove, lock, unlock, add, smart cards, extensions.
        for kind in (0..=u8::MAX).filter(|kind| ![REQUEST_IDENTITIES, SIGN_REQUEST].contains(kind)) {
            let bad = frame(kind, b"secret");
            let all = [&list[..], &bad, &sign].concat();
            let (got, said, ended) = pass(vec![all]).await;
            ended.unwrap();
            assert_eq!(got, [&list[..], &sign].concat(), "{kind}");
            assert_eq!(said, [&list[..], &FAILURE, &sign].concat(), "{kind}");
        }
    }

    #[tokio::test]
    async fn frames_come_in_any_pieces() {
        let (list, sign) = (frame(REQUEST_IDENTITIES, b""), frame(SIGN_REQUEST, &[7; 3000]));
        // A request that hides in another one is none.
        let hidden = frame(27, &list);
        let all = [&list[..], &hidden, &sign].concat();
        let (got, said, ended) = pass(all.iter().map(|byte| vec![*byte]).collect()).await;
        ended.unwrap();
        assert_eq!(got, [&list[..], &sign].concat());
        assert_eq!(said, [&list[..], &FAILURE, &sign].concat());
        for length in [0_u32, 1 + (256 << 10), u32::MAX] {
            let head = [&length.to_be_bytes()[..], &[SIGN_REQUEST]].concat();
            let (got, _, ended) = pass(vec![head]).await;
            let said = ended.unwrap_err().message().to_owned();
            assert!(got.is_empty() && said.contains(&length.to_string()), "{said}");
        }
        // Half of one is not handed on.
        let (got, said, ended) = pass(vec![sign[..100].to_vec()]).await;
        ended.unwrap();
        assert!(got.is_empty() && said.is_empty());
    }
}
