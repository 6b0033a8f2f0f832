//! A client's stores of blobs, which it lends in its session (containerd's content service): images in OCI's layout and
//! caches are written into them blob by blob, and caches are read from them.
//!
//! ```text
//!   we                                     client
//!     WRITE ref, digest, size, bytes  ──>
//!                                     <──  how much there is
//!     WRITE bytes at offset …         ──>
//!     COMMIT                          ──>  checks digest and size
//! ```
//!
//! A blob that is there already is refused as existing, which is as good. What is read is believed only when its digest is
//! right.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use http::uri::PathAndQuery;
use spec::image::Descriptor;
use spec::{Digest, Hasher};
use store::Store;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use crate::error::Failure;
use crate::session::Session;
use ::session::content::{
    ACTION_COMMIT, ACTION_WRITE, INFO, InfoRequest, InfoResponse, READ, ReadRequest, ReadResponse, STORE_ID,
    WRITE, WriteRequest, WriteResponse,
};
use ::session::{MAX_MESSAGE, header};

/// How much of a blob goes into one message.
const PIECE: u64 = 1 << 20;
/// Messages that may wait to be sent.
const WAITING: usize = 4;

/// A client that calls a session by the paths of its methods.
pub async fn ready(session: &Session) -> Result<tonic::client::Grpc<tonic::transport::Channel>, Failure> {
    let mut client = tonic::client::Grpc::new(session.channel());
    let ready = client.ready().await;
    ready.map_err(|error| Failure::unavailable(error.to_string()))?;
    Ok(client.max_decoding_message_size(MAX_MESSAGE))
}

fn asked<T>(store: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    header::add(request.metadata_mut(), STORE_ID, &[store.to_owned()]);
    request
}

/// How long a blob of the client's store is.
pub async fn size(session: &Session, store: &str, digest: &Digest) -> Result<u64, Failure> {
    let request = InfoRequest {
        digest: digest.to_string(),
    };
    let codec: ProstCodec<InfoRequest, InfoResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static(INFO);
    let answer = ready(session)
        .await?
        .unary(asked(store, request), path, codec)
        .await;
    let answer = answer.map_err(|status| Failure::from(status).context(format!("looking for {digest}")))?;
    let size = answer.into_inner().info.map_or(0, |info| info.size);
    u64::try_from(size).map_err(|_| Failure::invalid(format!("{digest} has a size of {size} bytes")))
}

/// The bytes of a blob as they come.
struct Pieces<'a> {
    digest: &'a Digest,
    answers: tonic::Streaming<ReadResponse>,
    /// How many are to come.
    left: u64,
}

impl<'a> Pieces<'a> {
    async fn ask(
        session: &Session,
        store: &str,
        digest: &'a Digest,
        size: u64,
    ) -> Result<Pieces<'a>, Failure> {
        let request = ReadRequest {
            digest: digest.to_string(),
            ..ReadRequest::default()
        };
        let codec: ProstCodec<ReadRequest, ReadResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static(READ);
        let mut client = ready(session).await?;
        let answers = client.server_streaming(asked(store, request), path, codec).await;
        let answers = answers.map_err(|status| Failure::from(status).context(format!("reading {digest}")))?;
        Ok(Pieces {
            digest,
            answers: answers.into_inner(),
            left: size,
        })
    }

    /// `None` after the last byte; more or fewer than were to come are a failure.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let wrong = |what: String| Failure::invalid(format!("{} of the client's store {what}", self.digest));
        let piece = self.answers.message().await;
        let piece =
            piece.map_err(|status| Failure::from(status).context(format!("reading {}", self.digest)))?;
        let Some(piece) = piece else {
            return match self.left {
                0 => Ok(None),
                left => Err(wrong(format!("lacks {left} bytes"))),
            };
        };
        match self.left.checked_sub(piece.data.len() as u64) {
            Some(left) => {
                self.left = left;
                Ok(Some(piece.data))
            }
            None => Err(wrong("is longer than it should be".to_owned())),
        }
    }
}

/// A small blob of the client's store.
pub async fn read(session: &Session, store: &str, digest: &Digest, size: u64) -> Result<Vec<u8>, Failure> {
    let mut pieces = Pieces::ask(session, store, digest, size).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await? {
        bytes.extend_from_slice(&piece);
    }
    let mut hasher = Hasher::like(digest);
    hasher.update(&bytes);
    match hasher.finish() == *digest {
        true => Ok(bytes),
        false => Err(Failure::invalid(format!(
            "{digest} of the client's store is damaged"
        ))),
    }
}

/// Brings a blob of the client's store into ours.
pub async fn fetch(session: &Session, store: &str, blob: &Descriptor, into: &Store) -> Result<(), Failure> {
    let mut pieces = Pieces::ask(session, store, &blob.digest, blob.size).await?;
    let (sender, mut coming) = mpsc::channel::<Vec<u8>>(WAITING);
    let (into, wanted) = (into.clone(), blob.clone());
    let keep = move || {
        let fail = |error: &dyn std::fmt::Display| {
            Failure::invalid(format!(
                "{} of the client's store cannot be used: {error}",
                wanted.digest
            ))
        };
        let mut ingest = into.content().scratch().map_err(|error| fail(&error))?;
        while let Some(piece) = coming.blocking_recv() {
            if let Err(error) = ingest.write_all(&piece) {
                ingest.abort();
                return Err(fail(&error));
            }
        }
        if ingest.offset() != wanted.size {
            // Whoever sent the pieces knows why there are no more.
            ingest.abort();
            return Ok(());
        }
        let kept = ingest.commit(Some(&wanted.digest), Some(wanted.size));
        kept.map(|_| ()).map_err(|error| fail(&error))
    };
    let keeping = tokio::task::spawn_blocking(keep);
    let sending = async move {
        while let Some(piece) = pieces.next().await? {
            if sender.send(piece).await.is_err() {
                // Whoever takes them has the reason for taking no more.
                break;
            }
        }
        Ok::<_, Failure>(())
    };
    let (sent, kept) = tokio::join!(sending, keeping);
    sent?;
    kept.map_err(Failure::broken)?
}

/// Writes a blob into the client's store `store`.
pub async fn write(session: &Session, store: &str, digest: &Digest, blob: File) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel(WAITING);
    let request = asked(store, ReceiverStream::new(outgoing));
    let wanted = digest.clone();
    let worker = tokio::task::spawn_blocking(move || give(blob, &wanted, &sender));
    let sent = async {
        let mut client = ready(session).await?;
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
