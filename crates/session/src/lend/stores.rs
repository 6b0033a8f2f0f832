//! Stores of blobs: directories laid out as OCI has it (`blobs/sha256/…`).
//!
//! A blob is seen under its digest only when all of it is there and is what the digest says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use spec::{Digest, Hasher};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower::{Service, service_fn};

use super::{Busy, failed};
use crate::content::{
    ACTION_COMMIT, INFO, Info, InfoRequest, InfoResponse, READ, ReadRequest, ReadResponse, STORE_ID, WRITE,
    WriteRequest, WriteResponse,
};
use crate::header;

/// How much of a blob goes into one message.
const PIECE: usize = 1 << 20;
/// Messages that may wait.
const WAITING: usize = 4;

/// A directory laid out as OCI has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    pub place: PathBuf,
    /// Whether the engine may add to it.
    pub writable: bool,
}

type Stores = Arc<BTreeMap<String, Store>>;

/// The service.
#[derive(Clone)]
pub struct Content(Stores, Busy);

impl Content {
    pub fn of(stores: BTreeMap<String, Store>, busy: &Busy) -> Content {
        Content(Arc::new(stores), busy.clone())
    }
}

impl NamedService for Content {
    const NAME: &'static str = "containerd.services.content.v1.Content";
}

impl Service<http::Request<Body>> for Content {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (stores, busy) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            Ok(match request.uri().path() {
                INFO => {
                    let codec: ProstCodec<InfoResponse, InfoRequest> = ProstCodec::default();
                    let service = service_fn(move |request| info(stores.clone(), request));
                    Grpc::new(codec).unary(service, request).await
                }
                READ => {
                    let codec: ProstCodec<ReadResponse, ReadRequest> = ProstCodec::default();
                    let service = service_fn(move |request| read(stores.clone(), request));
                    Grpc::new(codec).server_streaming(service, request).await
                }
                WRITE => {
                    let codec: ProstCodec<WriteResponse, WriteRequest> = ProstCodec::default();
                    let service = service_fn(move |request| write(stores.clone(), busy.clone(), request));
                    let mut grpc = Grpc::new(codec).max_decoding_message_size(crate::MAX_MESSAGE);
                    grpc.streaming(service, request).await
                }
                other => Status::unimplemented(format!("{other} is not served")).into_http(),
            })
        })
    }
}

/// The store that a call names.
fn store(stores: &Stores, metadata: &MetadataMap) -> Result<Store, Status> {
    let name = header::first(metadata, STORE_ID).unwrap_or_default();
    let found = stores.get(&name).cloned();
    found.ok_or_else(|| Status::not_found(format!("no store {name:?} is shared")))
}

fn digest(text: &str) -> Result<Digest, Status> {
    text.parse()
        .map_err(|error| Status::invalid_argument(format!("{text:?} is no digest: {error}")))
}

/// Where a blob lies. A digest is made of letters and digits, so that it leads nowhere else.
fn place(store: &Path, digest: &Digest) -> PathBuf {
    store.join("blobs").join(digest.algorithm()).join(digest.hex())
}

fn open(store: &Path, text: &str) -> Result<(File, u64), Status> {
    let digest = digest(text)?;
    let file = File::open(place(store, &digest)).map_err(failed(&digest))?;
    let size = file.metadata().map_err(failed(&digest))?.len();
    Ok((file, size))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

async fn info(stores: Stores, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
    let store = store(&stores, request.metadata())?;
    let digest = request.into_inner().digest;
    let (_, size) = open(&store.place, &digest)?;
    let info = Info {
        digest,
        size: signed(size),
    };
    Ok(Response::new(InfoResponse { info: Some(info) }))
}

async fn read(
    stores: Stores,
    request: Request<ReadRequest>,
) -> Result<Response<ReceiverStream<Result<ReadResponse, Status>>>, Status> {
    let store = store(&stores, request.metadata())?;
    let asked = request.into_inner();
    let (mut file, size) = open(&store.place, &asked.digest)?;
    let begin = u64::try_from(asked.offset).unwrap_or(0).min(size);
    let length = match u64::try_from(asked.size) {
        Ok(0) | Err(_) => size - begin,
        Ok(length) => length.min(size - begin),
    };
    let (sender, outgoing) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let told = |error| failed(&asked.digest)(error);
        if let Err(error) = file.seek(SeekFrom::Start(begin)) {
            let _ = sender.blocking_send(Err(told(error)));
            return;
        }
        let mut rest = file.take(length);
        let mut offset = begin;
        loop {
            let mut data = Vec::new();
            let piece = (&mut rest).take(PIECE as u64).read_to_end(&mut data);
            let message = match piece {
                Ok(0) => return,
                Ok(_) => Ok(ReadResponse {
                    offset: signed(offset),
                    data,
                }),
                Err(error) => Err(told(error)),
            };
            offset += message.as_ref().map_or(0, |message| message.data.len() as u64);
            let last = message.is_err();
            if sender.blocking_send(message).is_err() || last {
                return;
            }
        }
    });
    Ok(Response::new(ReceiverStream::new(outgoing)))
}

async fn write(
    stores: Stores,
    busy: Busy,
    request: Request<Streaming<WriteRequest>>,
) -> Result<Response<ReceiverStream<Result<WriteResponse, Status>>>, Status> {
    let store = store(&stores, request.metadata())?;
    if !store.writable {
        let place = store.place.display();
        return Err(Status::permission_denied(format!(
            "the store {place} is lent for reading only"
        )));
    }
    let mut incoming = request.into_inner();
    let (queue, messages) = mpsc::channel(WAITING);
    let (answers, outgoing) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Ok(Some(message)) = incoming.message().await {
            if queue.send(message).await.is_err() {
                return;
            }
        }
    });
    tokio::task::spawn_blocking(move || {
        if let Err(status) = keep(&store.place, messages, &answers) {
            let _ = answers.blocking_send(Err(status));
        }
        drop(busy);
    });
    Ok(Response::new(ReceiverStream::new(outgoing)))
}

/// Writes one blob; a transfer that breaks off leaves nothing.
fn keep(
    store: &Path,
    mut messages: mpsc::Receiver<WriteRequest>,
    answers: &mpsc::Sender<Result<WriteResponse, Status>>,
) -> Result<(), Status> {
    let blobs = store.join("blobs");
    let fail = |what: &Path| failed(format!("cannot write {}", what.display()));
    std::fs::create_dir_all(&blobs).map_err(fail(&blobs))?;
    let mut draft = tempfile::Builder::new()
        .prefix(".berth-")
        .tempfile_in(&blobs)
        .map_err(fail(&blobs))?;
    let mut written = 0;
    // Which blob it is to be is said at the beginning, at the end, or each time; what is said first holds.
    let mut wanted: Option<Digest> = None;
    let mut hasher: Option<Hasher> = None;
    while let Some(message) = messages.blocking_recv() {
        if !message.expected.is_empty() {
            let named = digest(&message.expected)?;
            let first = wanted.get_or_insert_with(|| named.clone());
            if *first != named {
                return Err(Status::invalid_argument(format!("{first} became {named}")));
            }
            if written == 0 && place(store, &named).exists() {
                return Err(Status::already_exists(format!("{named} is there already")));
            }
        }
        if u64::try_from(message.offset).is_ok_and(|offset| offset != written) {
            return Err(Status::out_of_range(format!(
                "the blob goes on at {}, and {written} bytes are here",
                message.offset
            )));
        }
        let hasher = hasher.get_or_insert_with(|| wanted.as_ref().map_or_else(Hasher::new, Hasher::like));
        hasher.update(&message.data);
        draft.write_all(&message.data).map_err(fail(&blobs))?;
        written += message.data.len() as u64;
        let answer = |digest: Option<&Digest>| WriteResponse {
            action: message.action,
            offset: signed(written),
            total: message.total,
            digest: digest.map(ToString::to_string).unwrap_or_default(),
            ..WriteResponse::default()
        };
        if message.action != ACTION_COMMIT {
            if answers.blocking_send(Ok(answer(wanted.as_ref()))).is_err() {
                return Ok(());
            }
            continue;
        }
        let came = std::mem::take(hasher).finish();
        if let Some(wanted) = wanted.filter(|wanted| *wanted != came) {
            return Err(Status::failed_precondition(format!("what came is not {wanted}")));
        }
        let place = place(store, &came);
        let finish = || {
            if let Some(above) = place.parent() {
                std::fs::create_dir_all(above)?;
            }
            let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            draft.as_file().set_permissions(readable)?;
            draft.persist(&place).map_err(|error| error.error)?;
            Ok::<_, io::Error>(())
        };
        finish().map_err(fail(&place))?;
        let _ = answers.blocking_send(Ok(answer(Some(&came))));
        return Ok(());
    }
    Ok(())
}
