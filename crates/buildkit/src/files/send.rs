//! Giving files to a client (`FileSend/DiffCopy`): one stream of bytes into a file, or a tree into a directory.

use std::io::{self, Write};
use std::os::fd::OwnedFd;

use ::session::files::{Tree, give};
use ::session::header;
use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as TreeClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use crate::error::Failure;
use crate::session::Session;

/// Messages that may wait to be sent.
const WAITING: usize = 16;
/// How much of a file goes into one message.
const PIECE: usize = 256 << 10;

/// Writes into messages.
struct Pieces {
    sender: mpsc::Sender<BytesMessage>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = bytes.get(..bytes.len().min(PIECE)).unwrap_or_default();
        let data = piece.to_vec();
        self.sender
            .blocking_send(BytesMessage { data })
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends what `produce` writes to the client's output number `exporter`. `metadata` reaches whoever opens the file.
pub async fn send_stream(
    session: &Session,
    exporter: usize,
    metadata: &[(&'static str, String)],
    produce: impl FnOnce(&mut dyn Write) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel(WAITING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    header::add(request.metadata_mut(), header::EXPORTER, &[exporter.to_string()]);
    for (key, value) in metadata {
        header::add(request.metadata_mut(), key, std::slice::from_ref(value));
    }
    let worker = tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE, Pieces { sender });
        produce(&mut out)?;
        out.flush()
            .map_err(|error| Failure::unavailable(format!("the client takes no more: {error}")))
    });
    let mut client = FileSendClient::new(session.channel());
    let sent = async {
        let mut answers = client.diff_copy(request).await?.into_inner();
        // The end of the answers says that all was written.
        while answers.message().await?.is_some() {}
        Ok::<(), Failure>(())
    };
    let (sent, produced) = tokio::join!(sent, worker);
    match (sent, produced.map_err(Failure::broken)?) {
        // What the client says about its file tells more than that it broke off.
        (Err(error), _) => Err(error),
        (Ok(()), produced) => produced,
    }
}

/// Sends trees to the client's output number `exporter`, each below its prefix where it has one.
pub async fn send_directory(
    session: &Session,
    exporter: usize,
    trees: Vec<(Option<String>, OwnedFd)>,
) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel::<Packet>(WAITING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
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
        let mut send = |packet: Packet| {
            let sent = sender.blocking_send(packet);
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
