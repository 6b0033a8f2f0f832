//! A connection inside a gRPC stream, for clients that have no other way to open one (`Control/Session`).

use bollard_buildkit_proto::moby::buildkit::v1::BytesMessage;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// Bytes that may wait in either direction.
const PIPE: usize = 64 << 10;

/// Both ends of a connection that goes through a stream.
pub struct Conversation {
    /// Our end.
    pub connection: DuplexStream,
    /// What the client hears.
    pub answers: ReceiverStream<Result<BytesMessage, Status>>,
}

impl Conversation {
    /// Carries bytes between the stream and the connection until either ends.
    pub fn of(mut incoming: Streaming<BytesMessage>) -> Conversation {
        let (connection, other) = tokio::io::duplex(PIPE);
        let (mut read, mut write) = tokio::io::split(other);
        let (sender, answers) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                if write.write_all(&message.data).await.is_err() {
                    return;
                }
            }
            let _ = write.shutdown().await;
        });
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
        Conversation {
            connection,
            answers: ReceiverStream::new(answers),
        }
    }
}
