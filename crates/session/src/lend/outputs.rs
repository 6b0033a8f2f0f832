//! Outputs: a result comes as one stream of bytes, or as a tree of files. Both are calls of one name; which it is says the
//! output that the call is for.
//!
//! A file is seen under its name only when all of it is there, and it is written once. A tree is laid over what its
//! directory holds; there may be several, since some engines send the files of each platform in a call of its own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::moby::filesync::packet::file_send_server as trees;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server as streams;
use futures_util::StreamExt;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Request, Response, Status, Streaming};
use tower::Service;

use super::{Busy, failed};
use crate::files::{self, Update};
use crate::header;

/// Pieces that may wait to be written.
const WAITING: usize = 16;

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    Stdout,
    File(PathBuf),
    Directory(PathBuf),
}

type Outputs = Arc<Mutex<BTreeMap<usize, Output>>>;

/// The service of both kinds of calls.
#[derive(Clone)]
pub struct Sends {
    outputs: Outputs,
    streams: streams::FileSendServer<Streams>,
    trees: trees::FileSendServer<Trees>,
}

impl Sends {
    pub fn of(outputs: BTreeMap<usize, Output>, busy: &Busy) -> Sends {
        let outputs = Arc::new(Mutex::new(outputs));
        let streams = streams::FileSendServer::new(Streams(outputs.clone(), busy.clone()));
        let trees = trees::FileSendServer::new(Trees(outputs.clone(), busy.clone()));
        Sends {
            outputs,
            streams: streams.max_decoding_message_size(crate::MAX_MESSAGE),
            trees: trees.max_decoding_message_size(crate::MAX_MESSAGE),
        }
    }

    fn is_tree(&self, headers: &http::HeaderMap) -> bool {
        let number = number(
            headers
                .get(header::EXPORTER)
                .and_then(|value| value.to_str().ok()),
        );
        let outputs = self
            .outputs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        matches!(outputs.get(&number), Some(Output::Directory(_)))
    }
}

/// Engines that know of one output only do not say which.
fn number(text: Option<&str>) -> usize {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn of_call(outputs: &Outputs, metadata: &MetadataMap) -> Result<Output, Status> {
    let number = number(header::first(metadata, header::EXPORTER).as_deref());
    let mut outputs = outputs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let found = match outputs.get(&number) {
        Some(Output::Directory(path)) => Some(Output::Directory(path.clone())),
        _ => outputs.remove(&number),
    };
    found.ok_or_else(|| Status::not_found(format!("there is no output number {number}")))
}

impl NamedService for Sends {
    const NAME: &'static str = streams::SERVICE_NAME;
}

impl Service<http::Request<Body>> for Sends {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.is_tree(request.headers()) {
            true => self.trees.call(request),
            false => self.streams.call(request.map(|body| Body::new(Whole(body)))),
        }
    }
}

/// What comes with a call, which fails where the call was broken off: that a caller gave up is otherwise the same as that
/// it has sent everything.
struct Whole(Body);

impl hyper::body::Body for Whole {
    type Data = <Body as hyper::body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let broken = || Poll::Ready(Some(Err(Status::aborted("the call was broken off"))));
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx));
        match frame {
            None if !self.0.is_end_stream() => broken(),
            Some(Err(status)) if status.code() == Code::Cancelled => broken(),
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

pub struct Streams(Outputs, Busy);

/// A file under way, which lies under another name until it is whole.
struct Draft {
    file: File,
    place: PathBuf,
    goal: PathBuf,
}

impl Draft {
    /// What is there already is replaced where it lies, also behind a link, and keeps its permissions.
    fn begin(goal: &Path) -> io::Result<Draft> {
        let (goal, old) = match goal.canonicalize() {
            Ok(real) => {
                let old = real.metadata()?;
                (real, Some(old))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (goal.to_owned(), None),
            Err(error) => return Err(error),
        };
        let name = goal
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let place = goal.with_file_name(format!(".{name}.{}", spec::Id::random().short()));
        let mut options = File::options();
        let file = options.write(true).create_new(true).open(&place)?;
        let draft = Draft { file, place, goal };
        if let Some(old) = old {
            draft.file.set_permissions(old.permissions())?;
        }
        Ok(draft)
    }

    fn finish(self) -> io::Result<()> {
        std::fs::rename(&self.place, &self.goal)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it has its name there is nothing left.
        let _ = std::fs::remove_file(&self.place);
    }
}

/// Writes what comes; the end of `pieces` without [`End`] says that there will be no more, and not that this was all.
fn write(output: &Output, mut pieces: mpsc::Receiver<Piece>) -> io::Result<()> {
    let mut draft = None;
    let mut out: Box<dyn Write> = match output {
        Output::Stdout => Box::new(io::stdout()),
        Output::File(path) if path.metadata().is_ok_and(|meta| !meta.is_file()) => {
            Box::new(File::options().write(true).open(path)?)
        }
        Output::File(path) | Output::Directory(path) => {
            let begun = draft.insert(Draft::begin(path)?);
            Box::new(begun.file.try_clone()?)
        }
    };
    while let Some(piece) = pieces.blocking_recv() {
        match piece {
            Piece::Bytes(bytes) => out.write_all(&bytes)?,
            Piece::End => {
                out.flush()?;
                return draft.map_or(Ok(()), Draft::finish);
            }
        }
    }
    Ok(())
}

enum Piece {
    Bytes(Vec<u8>),
    End,
}

#[tonic::async_trait]
impl streams::FileSend for Streams {
    type DiffCopyStream = ReceiverStream<Result<BytesMessage, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let output = of_call(&self.0, request.metadata())?;
        let mut incoming = request.into_inner();
        let (queue, pieces) = mpsc::channel(WAITING);
        let (result, answers) = mpsc::channel(1);
        let busy = self.1.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&output, pieces) {
                let what = match &output {
                    Output::Stdout => "the standard output".to_owned(),
                    Output::File(path) | Output::Directory(path) => path.display().to_string(),
                };
                let _ = result.blocking_send(Err(failed(format!("cannot write {what}"))(error)));
            }
            drop(busy);
        });
        tokio::spawn(async move {
            loop {
                let piece = match incoming.message().await {
                    Ok(Some(message)) => Piece::Bytes(message.data),
                    Ok(None) => Piece::End,
                    Err(_) => return,
                };
                let last = matches!(piece, Piece::End);
                if queue.send(piece).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }
}

pub struct Trees(Outputs, Busy);

#[tonic::async_trait]
impl trees::FileSend for Trees {
    type DiffCopyStream = Pin<Box<dyn futures_util::Stream<Item = Result<Packet, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let (Output::Directory(path) | Output::File(path)) = of_call(&self.0, request.metadata())? else {
            return Err(Status::invalid_argument("a tree needs a directory"));
        };
        let prepare = || {
            std::fs::create_dir_all(&path)?;
            tempfile::Builder::new().prefix(".berth-").tempdir_in(&path)
        };
        let staging = prepare().map_err(failed(format!("cannot write {}", path.display())))?;
        let (requests, outgoing) = mpsc::unbounded_channel();
        let packets = request.into_inner();
        let busy = self.1.clone();
        tokio::spawn(async move {
            let room = staging.path().to_owned();
            let begin = move || Update::merge(&path, &room);
            // Why it failed was told to the other end.
            let _ = files::take(packets, requests, begin, |_| {}).await;
            drop(staging);
            drop(busy);
        });
        Ok(Response::new(
            UnboundedReceiverStream::new(outgoing).map(Ok).boxed(),
        ))
    }
}
