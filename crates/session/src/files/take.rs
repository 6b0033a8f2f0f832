//! The taking end: what is named is asked for where it is not here yet.
//!
//! Requests are never held up by data that waits to be written: the other end stops naming files when it has too many
//! requests open, so a bounded queue of them could stand still.

use std::time::{Duration, Instant};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures_util::{Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::packet;
use super::tree::{TreeError, Update};

/// Packets that may wait to be written.
const WAITING: usize = 64;
/// How often progress is told.
const SAMPLE: Duration = Duration::from_millis(100);

/// Why files were not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    #[error("{}", .0.message())]
    Call(Status),
    /// The other end says why it cannot go on.
    #[error("{0}")]
    Giver(String),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("the other end went away before all files were sent")]
    Early,
    #[error("a worker ended unexpectedly: {0}")]
    Broken(tokio::task::JoinError),
}

/// Takes files until all are here; what is asked for goes to `requests`. `begin` opens the tree, where blocking is no
/// harm. Tells `progress` how many bytes came; their number in the end.
pub async fn take(
    mut packets: impl Stream<Item = Result<Packet, Status>> + Unpin,
    requests: mpsc::UnboundedSender<Packet>,
    begin: impl FnOnce() -> Result<Update, TreeError> + Send + 'static,
    progress: impl Fn(u64),
) -> Result<u64, TakeError> {
    let (queue, work) = mpsc::channel(WAITING);
    // The other end may take the end of the requests for the end of everything.
    let _open = requests.clone();
    let worker = tokio::task::spawn_blocking(move || {
        let done = begin().map_err(TakeError::from);
        let done = done.and_then(|update| write(update, work, &requests));
        if let Err(error) = &done {
            let _ = requests.send(Packet {
                data: error.to_string().into_bytes(),
                ..packet(PacketType::PacketErr)
            });
        }
        done
    });
    let mut bytes = 0;
    let mut told = Instant::now();
    let received: Result<(), TakeError> = async {
        while let Some(packet) = packets.next().await {
            let packet = packet.map_err(TakeError::Call)?;
            bytes += packet.encoded_len() as u64;
            if told.elapsed() > SAMPLE {
                told = Instant::now();
                progress(bytes);
            }
            match packet.r#type() {
                PacketType::PacketErr => {
                    return Err(TakeError::Giver(
                        String::from_utf8_lossy(&packet.data).into_owned(),
                    ));
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
    let written = worker.await.map_err(TakeError::Broken)?;
    // Why writing failed is what matters; that the other end then broke off follows from it.
    match (written, received) {
        (Err(TakeError::Early), Err(error)) => Err(error),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(())) => Ok(bytes),
    }
}

fn write(
    mut update: Update,
    mut work: mpsc::Receiver<Packet>,
    requests: &mpsc::UnboundedSender<Packet>,
) -> Result<(), TakeError> {
    let ask = |id| {
        let _ = requests.send(Packet {
            id,
            ..packet(PacketType::PacketReq)
        });
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
            let _ = requests.send(packet(PacketType::PacketFin));
            return Ok(());
        }
    }
    Err(TakeError::Early)
}
