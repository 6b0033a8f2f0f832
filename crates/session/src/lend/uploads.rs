//! Streams that the engine reads once, such as a context that comes in on the standard input.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::upload::v1::BytesMessage;
use bollard_buildkit_proto::moby::upload::v1::upload_server::{Upload, UploadServer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{Once, take};
use crate::header;

/// Messages that may wait to be sent.
const WAITING: usize = 16;
/// How much goes into one message.
const PIECE: usize = 64 << 10;

pub struct Uploads(Once<String, Box<dyn Read + Send>>);

pub fn service(uploads: BTreeMap<String, Box<dyn Read + Send>>) -> UploadServer<Uploads> {
    UploadServer::new(Uploads(Arc::new(Mutex::new(uploads))))
}

#[tonic::async_trait]
impl Upload for Uploads {
    type PullStream = ReceiverStream<Result<BytesMessage, Status>>;

    async fn pull(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let path = header::first(request.metadata(), header::UPLOAD).unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let Some(mut stream) = take(&self.0, &name) else {
            return Err(Status::not_found(format!(
                "nothing is to be uploaded as {name:?}"
            )));
        };
        let (sender, outgoing) = mpsc::channel(WAITING);
        tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; PIECE];
            loop {
                let piece = match stream.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => Ok(BytesMessage {
                        data: buffer.get(..length).unwrap_or_default().to_vec(),
                    }),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(super::failed("reading what is uploaded")(error)),
                };
                let last = piece.is_err();
                if sender.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}
