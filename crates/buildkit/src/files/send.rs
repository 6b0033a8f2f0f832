//! Giving files to a client (`FileSend/DiffCopy`): one stream of bytes into a file, or a tree into a directory.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use ::session::files::{Tree, give};
use ::session::header;
use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as TreeClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::{Request, Status};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use crate::content::ready;
use crate::error::Failure;
use crate::session::Session;

/// What takes a stream.
const SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Messages, or batches of packets, that may wait to be sent.
const WAITING: usize = 16;
/// How much of a file goes into one message.
const PIECE: usize = 256 << 10;

/// Writes into messages.
struct Pieces {
    sender: mpsc::Sender<Option<BytesMessage>>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        let data = piece.to_vec();
        self.sender
            .blocking_send(Some(BytesMessage { data }))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Messages of a stream; `None` breaks it off. Its end would say that all was sent, and for some clients that a call was
/// cancelled is an end as well.
struct Breakable;

impl Codec for Breakable {
    type Encode = Option<BytesMessage>;
    type Decode = BytesMessage;
    type Encoder = Breakable;
    type Decoder = ProstDecoder<BytesMessage>;

    fn encoder(&mut self) -> Breakable {
        Breakable
    }

    fn decoder(&mut self) -> ProstDecoder<BytesMessage> {
        ProstCodec::<BytesMessage, BytesMessage>::default().decoder()
    }
}

impl Encoder for Breakable {
    type Item = Option<BytesMessage>;
    type Error = Status;

    fn encode(&mut self, message: Option<BytesMessage>, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match message {
            Some(message) => ProstEncoder::<BytesMessage>::default().encode(message, out),
            None => Err(Status::aborted("not all of it could be made")),
        }
    }
}

/// Why not all was sent.
enum Short {
    /// It could not be made.
    Unmade(Failure),
    /// The client takes no more.
    Refused(Failure),
}

/// Sends what `produce` writes to the client's output number `exporter`. `metadata` reaches whoever opens the file.
pub async fn send_stream(
    session: &Session,
    exporter: usize,
    metadata: &[(&'static str, String)],
    produce: impl FnOnce(&mut dyn Write) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel::<Option<BytesMessage>>(WAITING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    header::add(request.metadata_mut(), header::EXPORTER, &[exporter.to_string()]);
    for (key, value) in metadata {
        header::add(request.metadata_mut(), key, std::slice::from_ref(value));
    }
    let worker = tokio::task::spawn_blocking(move || {
        let pieces = Pieces {
            sender: sender.clone(),
        };
        let mut out = io::BufWriter::with_capacity(PIECE, pieces);
        let produced = produce(&mut out).and_then(|()| {
            out.flush()
                .map_err(|error| Failure::unavailable(format!("the client takes no more: {error}")))
        });
        drop(out);
        produced.map_err(|failure| match sender.blocking_send(None) {
            Ok(()) => Short::Unmade(failure),
            Err(_) => Short::Refused(failure),
        })
    });
    let sent = async {
        let mut client = ready(session).await?;
        let path = PathAndQuery::from_static(SEND);
        let mut answers = client.streaming(request, path, Breakable).await?.into_inner();
        // The end of the answers says that all was written.
        while answers.message().await?.is_some() {}
        Ok::<(), Failure>(())
    };
    let (sent, produced) = tokio::join!(sent, worker);
    match (sent, produced.map_err(Failure::broken)?) {
        // That the call ended badly follows from it.
        (_, Err(Short::Unmade(failure))) => Err(failure),
        // What the client says about its file tells more than that it broke off.
        (Err(error), _) => Err(error),
        (Ok(()), Err(Short::Refused(failure))) => Err(failure),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// Sends trees to the client's output number `exporter`, each below its prefix where it has one.
pub async fn send_directory(
    session: &Session,
    exporter: usize,
    trees: Vec<(Option<String>, OwnedFd)>,
) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel::<Vec<Packet>>(WAITING);
    let mut request = Request::new(ReceiverStream::new(outgoing).flat_map(stream::iter));
    header::add(request.metadata_mut(), header::EXPORTER, &[exporter.to_string()]);
    header::add(
        request.metadata_mut(),
        "buildkit-exporter-multi-platform",
        &["1".to_owned()],
    );
    let mut client = TreeClient::new(session.channel());
    let (asked, asking) = mpsc::unbounded_channel::<u32>();
    let worker = tokio::task::spawn_blocking(move || {
        let trees: Vec<Tree> = trees
            .into_iter()
            .map(|(prefix, root)| Tree::whole(root, prefix))
            .collect();
        let mut send = |packets: Vec<Packet>| {
            let sent = sender.blocking_send(packets);
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        };
        give(&trees, &mut send, asking)
    });
    let conversation = async {
        let mut answers = client.diff_copy(request).await?.into_inner();
        while let Some(packet) = answers.message().await? {
            match packet.r#type() {
                PacketType::PacketReq => {
                    let _ = asked.send(packet.id);
                }
                PacketType::PacketFin => break,
                PacketType::PacketErr => {
                    let text = String::from_utf8_lossy(&packet.data).into_owned();
                    return Err(Failure::unavailable(format!(
                        "the client cannot write its files: {text}"
                    )));
                }
                _ => {}
            }
        }
        drop(asked);
        while answers.message().await?.is_some() {}
        Ok::<(), Failure>(())
    };
    let (conversation, given) = tokio::join!(conversation, worker);
    match (conversation, given.map_err(Failure::broken)?) {
        (Err(error), _) => Err(error),
        (Ok(()), given) => given.map_err(|error| Failure::internal(format!("reading the result: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use ::session::lend::{Lent, Output};

    use super::*;
    use crate::session::{Greeting, Sessions};

    #[tokio::test]
    async fn an_archive_that_cannot_be_made_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        let lent = || Lent {
            outputs: BTreeMap::from([(0, Output::File(file.clone()))]),
            ..Lent::default()
        };
        std::fs::write(&file, "old").unwrap();
        let sessions = Sessions::default();
        for (name, whole) in [("one", false), ("two", true)] {
            let (near, far) = tokio::io::duplex(1 << 20);
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let lent = lent();
            let lending = tokio::spawn(async move {
                let stopped = async {
                    let _ = stopped.await;
                };
                lent.serve(near, stopped).await
            });
            let (open, greeting) = (
                sessions.clone(),
                Greeting {
                    id: name.to_owned(),
                    ..Greeting::default()
                },
            );
            tokio::spawn(async move { open.serve(greeting, far).await });
            let session = sessions.get(name).await.unwrap();
            let sent = send_stream(&session, 0, &[], move |out| {
                let written = io::copy(&mut io::repeat(7).take(1 << 20), out);
                written.map_err(|error| Failure::internal(error.to_string()))?;
                match whole {
                    true => Ok(()),
                    false => Err(Failure::internal("a blob is gone")),
                }
            })
            .await;
            // By the end nobody writes any more.
            drop(stop);
            lending.await.unwrap().unwrap();
            let left = std::fs::read_dir(dir.path()).unwrap().count();
            let length = file.metadata().unwrap().len();
            match whole {
                true => assert_eq!((sent.is_ok(), left, length), (true, 1, 1 << 20)),
                false => {
                    assert_eq!(sent.unwrap_err().message, "a blob is gone");
                    assert_eq!((left, length), (1, 3));
                }
            }
        }
    }
}
