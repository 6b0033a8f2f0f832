//! A client's stores of blobs, which it lends in its session (containerd's content service): an image in OCI's layout is
//! written into one blob by blob.
//!
//! ```text
//!   we                                     client
//!     WRITE ref, digest, size, bytes  ──>
//!                                     <──  how much there is
//!     WRITE bytes at offset …         ──>
//!     COMMIT                          ──>  checks digest and size
//! ```
//!
//! A blob that is there already is refused as existing, which is as good.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use http::uri::PathAndQuery;
use spec::Digest;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::error::Failure;
use crate::session::{Session, header};

const WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// How much of a blob goes into one message.
const PIECE: u64 = 1 << 20;
/// Messages that may wait to be sent.
const WAITING: usize = 4;

const ACTION_WRITE: i32 = 1;
const ACTION_COMMIT: i32 = 2;

/// `containerd.services.content.v1.WriteContentRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteRequest {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(string, tag = "2")]
    r#ref: String,
    #[prost(int64, tag = "3")]
    total: i64,
    #[prost(string, tag = "4")]
    expected: String,
    #[prost(int64, tag = "5")]
    offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    data: Vec<u8>,
    #[prost(btree_map = "string, string", tag = "7")]
    labels: BTreeMap<String, String>,
}

/// `containerd.services.content.v1.WriteContentResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct WriteResponse {
    #[prost(int32, tag = "1")]
    action: i32,
    #[prost(message, optional, tag = "2")]
    started_at: Option<Timestamp>,
    #[prost(message, optional, tag = "3")]
    updated_at: Option<Timestamp>,
    #[prost(int64, tag = "4")]
    offset: i64,
    #[prost(int64, tag = "5")]
    total: i64,
    #[prost(string, tag = "6")]
    digest: String,
}

/// Writes a blob into the client's store `store`.
pub async fn write(session: &Session, store: &str, digest: &Digest, blob: File) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel(WAITING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    header(
        request.metadata_mut(),
        "buildkit-attachable-store-id",
        &[store.to_owned()],
    );
    let wanted = digest.clone();
    let worker = tokio::task::spawn_blocking(move || give(blob, &wanted, &sender));
    let mut client = tonic::client::Grpc::new(session.channel());
    let sent = async {
        client
            .ready()
            .await
            .map_err(|error| Failure::unavailable(error.to_string()))?;
        let codec: ProstCodec<WriteRequest, WriteResponse> = ProstCodec::default();
        let answers = client
            .streaming(request, PathAndQuery::from_static(WRITE), codec)
            .await?;
        let mut answers = answers.into_inner();
        let mut committed = false;
        while let Some(answer) = answers.message().await? {
            committed |= answer.action == ACTION_COMMIT;
        }
        match committed {
            true => Ok(()),
            false => Err(Failure::unavailable("the client's store did not take all of it")),
        }
    };
    let (sent, given) = tokio::join!(sent, worker);
    match (sent, given.map_err(Failure::broken)?) {
        (Err(failure), _) if failure.code == Code::AlreadyExists => Ok(()),
        // What the client says tells more than that it broke off.
        (Err(failure), _) => {
            Err(failure.context(format!("writing {digest} into the client's store {store:?}")))
        }
        (Ok(()), given) => given,
    }
}

/// Sends the messages of one blob; ends early when nobody takes them.
fn give(blob: File, digest: &Digest, sender: &mpsc::Sender<WriteRequest>) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::internal(format!("reading the blob {digest}: {error}"));
    let size = blob.metadata().map_err(fail)?.len();
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let mut rest = blob.take(size);
    let mut offset = 0;
    loop {
        let mut data = Vec::new();
        (&mut rest).take(PIECE).read_to_end(&mut data).map_err(fail)?;
        let read = data.len() as u64;
        let last = read == 0;
        let message = WriteRequest {
            action: if last { ACTION_COMMIT } else { ACTION_WRITE },
            r#ref: format!("berth-{digest}"),
            total: signed(size),
            expected: digest.to_string(),
            offset: signed(offset),
            data,
            labels: BTreeMap::new(),
        };
        if sender.blocking_send(message).is_err() || last {
            return Ok(());
        }
        offset += read;
    }
}
