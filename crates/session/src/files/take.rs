//! The taking end: what is named is asked for where it is not here yet.
//!
//! Requests are never held up by data that waits to be written: the other end stops naming files when it has too many
//! requests open, so a bounded queue of them could stand still.

use std::time::{Duration, Instant};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use futures_util::{FutureExt, Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use super::tree::{TreeError, Update};
use super::{BATCH, packet};

/// Batches of packets that may wait to be written.
const WAITING: usize = 8;
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
    packets: impl Stream<Item = Result<Packet, Status>> + Unpin,
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
    let mut packets = packets.fuse();
    let received: Result<(), TakeError> = async {
        while let Some(first) = packets.next().await {
            let mut batch = Batch::default();
            let mut ended = batch.add(first);
            // What has come meanwhile goes along.
            while ended.is_none()
                && !batch.is_full()
                && let Some(Some(next)) = packets.next().now_or_never()
            {
                ended = batch.add(next);
            }
            bytes += batch.bytes;
            if told.elapsed() > SAMPLE {
                told = Instant::now();
                progress(bytes);
            }
            // The worker has failed and says why.
            if queue.send(batch.packets).await.is_err() {
                return Ok(());
            }
            if let Some(ended) = ended {
                return ended;
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

/// Packets to be written together.
#[derive(Default)]
struct Batch {
    packets: Vec<Packet>,
    /// How many bytes came for them.
    bytes: u64,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.packets.len() >= BATCH.0 || self.bytes >= BATCH.1
    }

    /// Takes a packet; if it is none to be written, how everything ends with it.
    fn add(&mut self, packet: Result<Packet, Status>) -> Option<Result<(), TakeError>> {
        let packet = match packet {
            Ok(packet) => packet,
            Err(status) => return Some(Err(TakeError::Call(status))),
        };
        self.bytes += packet.encoded_len() as u64;
        match packet.r#type() {
            PacketType::PacketErr => {
                let text = String::from_utf8_lossy(&packet.data).into_owned();
                Some(Err(TakeError::Giver(text)))
            }
            PacketType::PacketFin => Some(Ok(())),
            _ => {
                self.packets.push(packet);
                None
            }
        }
    }
}

fn write(
    mut update: Update,
    mut work: mpsc::Receiver<Vec<Packet>>,
    requests: &mpsc::UnboundedSender<Packet>,
) -> Result<(), TakeError> {
    let ask = |id| {
        let _ = requests.send(Packet {
            id,
            ..packet(PacketType::PacketReq)
        });
    };
    while let Some(batch) = work.blocking_recv() {
        for received in batch {
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
    }
    Err(TakeError::Early)
}

#[cfg(test)]
mod tests {
    use bollard_buildkit_proto::fsutil::types::Stat;
    use proptest::prelude::*;

    use super::super::tree::Trust;
    use super::*;

    /// A packet as it comes from whoever means harm, or is broken.
    fn any_packet() -> impl Strategy<Value = Packet> {
        let path = prop_oneof![
            Just("a"),
            Just("a/b"),
            Just("b"),
            Just("../outside/file"),
            Just("/etc/x"),
            Just(""),
        ];
        let mode = prop_oneof![
            Just(0o644),
            Just(1 << 31 | 0o755),
            Just(1 << 27 | 0o777),
            any::<u32>()
        ];
        let stat = (path, mode, any::<i8>(), any::<i64>()).prop_map(|(path, mode, size, mod_time)| Stat {
            path: path.to_owned(),
            mode,
            size: size.into(),
            mod_time,
            linkname: "../outside".to_owned(),
            ..Stat::default()
        });
        let data = prop::collection::vec(any::<u8>(), 0..6);
        (-1i32..7, prop::option::of(stat), 0u32..4, data).prop_map(|(kind, stat, id, data)| Packet {
            r#type: kind,
            stat,
            id,
            data,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_is_sent_it_ends_and_nothing_outside_changes(
            packets in prop::collection::vec(any_packet(), 0..24),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        ) {
            // As bytes, some of which are not what was meant.
            let mut sent: Vec<Vec<u8>> = packets.iter().map(Message::encode_to_vec).collect();
            for (at, value) in changes {
                let mut bytes: Vec<&mut u8> = sent.iter_mut().flatten().collect();
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    *bytes[at] = value;
                }
            }
            let read = |bytes: &Vec<u8>| {
                Packet::decode(bytes.as_slice()).map_err(|error| Status::internal(error.to_string()))
            };
            let packets = futures_util::stream::iter(sent.iter().map(read).collect::<Vec<_>>());
            let dir = tempfile::tempdir().unwrap();
            let place = |name: &str| dir.path().join(name);
            for name in ["tree", "staging", "outside"] {
                std::fs::create_dir(place(name)).unwrap();
            }
            std::fs::write(place("outside/file"), "outside").unwrap();
            let (tree, staging) = (place("tree"), place("staging"));
            let (requests, _asked) = mpsc::unbounded_channel();
            let begin = move || Update::begin(&tree, &staging, Trust::Never);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let ended = runtime.block_on(async {
                // Nothing waits for the clock, so this is only met where it never ends.
                tokio::time::timeout(Duration::from_secs(60), take(packets, requests, begin, |_| {})).await
            });
            prop_assert!(ended.is_ok(), "it does not end");
            prop_assert_eq!(std::fs::read_to_string(place("outside/file")).unwrap(), "outside");
            prop_assert_eq!(std::fs::read_dir(place("outside")).unwrap().count(), 1);
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        }
    }
}
