//! Agents for keys: each call is a connection to the socket of one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bollard_buildkit_proto::moby::sshforward::v1::ssh_server::{Ssh, SshServer};
use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::header;

/// The id where none is said.
const DEFAULT: &str = "default";
/// Messages that may wait to be sent.
const WAITING: usize = 16;

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
        let (mut read, mut write) = connection.into_split();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if write.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _ = write.shutdown().await;
        });
        let (sender, outgoing) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut buffer = vec![0; 32 << 10];
            while let Ok(length) = read.read(&mut buffer).await
                && length > 0
            {
                let data = buffer.get(..length).unwrap_or_default().to_vec();
                if sender.send(Ok(BytesMessage { data })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
