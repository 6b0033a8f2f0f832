//! Taking files from a client (`FileSync/DiffCopy`): it names what it has, we ask for what is not here yet.
//!
//! ```text
//!   client                               we
//!     STAT entry … STAT (end)    ──>
//!                                <──     REQ id      for each file that differs
//!     DATA id bytes … DATA id    ──>
//!                                <──     FIN         all is here
//!     FIN                        ──>
//! ```
//!
//! Requests are never held up by data that waits to be written: the client stops naming files when it has too many
//! requests open, so a bounded queue of them could stand still.

use std::path::Path;
use std::time::{Duration, Instant};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Request;

use super::tree::{Trust, Update};
use crate::error::Failure;
use crate::session::{MAX_MESSAGE, Session, header};

/// Packets that may wait to be written.
const WAITING: usize = 64;
/// How often progress is told.
const SAMPLE: Duration = Duration::from_millis(100);

/// What files of a client are for. What is wanted for different ends is kept apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Purpose {
    #[default]
    Context,
    Dockerfile,
    Ignore,
}

impl Purpose {
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Context => "context",
            Purpose::Dockerfile => "dockerfile",
            Purpose::Ignore => "ignore",
        }
    }
}

/// Which files of a client's directory are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// The client's name for the directory.
    pub directory: String,
    pub purpose: Purpose,
    /// Only what matches one of these patterns; none: everything.
    pub include: Vec<String>,
    /// Only these paths and what they lead to; `None`: everything.
    pub paths: Option<Vec<String>>,
    /// Not what matches these patterns, in the order of an ignore file.
    pub exclude: Vec<String>,
}

/// Brings the directory `into` up to date, taking what is there for the same as far as `trust` allows; tells `progress`
/// how many bytes came.
pub async fn receive(
    session: &Session,
    selection: &Selection,
    (into, staging): (&Path, &Path),
    trust: Trust,
    progress: impl Fn(u64),
) -> Result<u64, Failure> {
    let (requests, outgoing) = mpsc::unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(outgoing));
    let metadata = request.metadata_mut();
    header(metadata, "dir-name", std::slice::from_ref(&selection.directory));
    header(metadata, "include-patterns", &selection.include);
    header(metadata, "exclude-patterns", &selection.exclude);
    header(
        metadata,
        "followpaths",
        selection.paths.as_deref().unwrap_or_default(),
    );
    let mut client = FileSyncClient::new(session.channel()).max_decoding_message_size(MAX_MESSAGE);
    let mut packets = client.diff_copy(request).await?.into_inner();

    let (queue, work) = mpsc::channel(WAITING);
    let (into, staging, asking) = (into.to_owned(), staging.to_owned(), requests.clone());
    let worker = tokio::task::spawn_blocking(move || {
        let done = write((&into, &staging), trust, work, &asking);
        if let Err(error) = &done {
            let _ = asking.send(packet(PacketType::PacketErr, 0, error.to_string().into_bytes()));
        }
        done
    });
    let mut bytes = 0;
    let mut told = Instant::now();
    let received: Result<(), Failure> = async {
        while let Some(packet) = packets.message().await? {
            bytes += packet.encoded_len() as u64;
            if told.elapsed() > SAMPLE {
                told = Instant::now();
                progress(bytes);
            }
            match packet.r#type() {
                PacketType::PacketErr => {
                    let text = String::from_utf8_lossy(&packet.data).into_owned();
                    return Err(Failure::invalid(format!(
                        "the client cannot send its files: {text}"
                    )));
                }
                PacketType::PacketFin => return Ok(()),
                // The worker has failed and says why.
                _ if queue.send(packet).await.is_err() => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }
    .await;
    drop(queue);
    let written = worker.await.map_err(Failure::broken)?;
    // Why writing failed is what matters; that the client then broke off follows from it.
    match (written, received) {
        (Err(Stopped::Failed(error)), _) => Err(error),
        (_, Err(error)) => Err(error),
        (Err(Stopped::Early), Ok(())) => Err(Failure::unavailable(
            "the client went away before all its files were sent",
        )),
        (Ok(()), Ok(())) => Ok(bytes),
    }
}

/// Why the worker ended before its time.
#[derive(Debug, thiserror::Error)]
enum Stopped {
    #[error("the transfer broke off")]
    Early,
    #[error("{0}")]
    Failed(Failure),
}

impl From<super::tree::TreeError> for Stopped {
    fn from(error: super::tree::TreeError) -> Self {
        Stopped::Failed(Failure::invalid(format!(
            "cannot take the client's files: {error}"
        )))
    }
}

fn packet(kind: PacketType, id: u32, data: Vec<u8>) -> Packet {
    Packet {
        r#type: kind.into(),
        stat: None,
        id,
        data,
    }
}

fn write(
    (into, staging): (&Path, &Path),
    trust: Trust,
    mut work: mpsc::Receiver<Packet>,
    requests: &mpsc::UnboundedSender<Packet>,
) -> Result<(), Stopped> {
    let mut update = Update::begin(into, staging, trust)?;
    let ask = |id| {
        let _ = requests.send(packet(PacketType::PacketReq, id, Vec::new()));
    };
    while let Some(received) = work.blocking_recv() {
        match (received.r#type(), received.stat) {
            (PacketType::PacketStat, Some(entry)) => {
                if let Some(id) = update.entry(entry)? {
                    ask(id);
                }
            }
            (PacketType::PacketStat, None) => update.end(),
            (PacketType::PacketData, _) => update
                .data(received.id, &received.data)?
                .into_iter()
                .for_each(ask),
            _ => {}
        }
        if update.is_complete() {
            update.finish()?;
            let _ = requests.send(packet(PacketType::PacketFin, 0, Vec::new()));
            return Ok(());
        }
    }
    Err(Stopped::Early)
}
