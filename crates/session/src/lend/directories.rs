//! Directories: the engine says which of their files it wants, and takes those that it does not have.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::files::{Selection, Tree, give, packet};
use crate::header;

/// Batches of packets that may wait to be sent.
const WAITING: usize = 8;

pub struct Directories(BTreeMap<String, PathBuf>);

pub fn service(directories: BTreeMap<String, PathBuf>) -> FileSyncServer<Directories> {
    FileSyncServer::new(Directories(directories)).max_decoding_message_size(crate::MAX_MESSAGE)
}

/// What of a directory is wanted, as the headers say it.
struct Wish {
    include: Vec<String>,
    exclude: Vec<String>,
    paths: Vec<String>,
}

fn tree(root: &Path, wish: &Wish) -> Result<Tree, Status> {
    let opened = File::open(root).map_err(super::failed(root.display()))?;
    let root = OwnedFd::from(opened);
    let paths = (!wish.paths.is_empty()).then_some(wish.paths.as_slice());
    let selection = Selection::new(root.as_fd(), &wish.include, &wish.exclude, paths)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Tree {
        selection,
        root,
        prefix: None,
        context: true,
    })
}

#[tonic::async_trait]
impl FileSync for Directories {
    type DiffCopyStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let metadata = request.metadata();
        let name = header::first(metadata, "dir-name").unwrap_or_default();
        let Some(root) = self.0.get(&name).cloned() else {
            return Err(Status::not_found(format!("no directory {name:?} is shared")));
        };
        let wish = Wish {
            include: header::all(metadata, "include-patterns"),
            exclude: header::all(metadata, "exclude-patterns"),
            paths: header::all(metadata, "followpaths"),
        };
        let mut wanted = request.into_inner();
        let (sender, outgoing) = mpsc::channel::<Vec<Result<Packet, Status>>>(WAITING);
        let (asked, asking) = mpsc::unbounded_channel();
        let telling = sender.clone();
        tokio::spawn(async move {
            while let Ok(Some(packet)) = wanted.message().await {
                match packet.r#type() {
                    PacketType::PacketReq => {
                        let _ = asked.send(packet.id);
                    }
                    _ => return,
                }
            }
        });
        tokio::task::spawn_blocking(move || {
            let mut send = |packets: Vec<Packet>| {
                let sent = sender.blocking_send(packets.into_iter().map(Ok).collect());
                sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            };
            let given = tree(&root, &wish).and_then(|tree| {
                let given = give(&[tree], &mut send, asking);
                given.map_err(super::failed(root.display()))
            });
            if let Err(status) = given {
                let _ = telling.blocking_send(vec![Ok(Packet {
                    data: status.message().as_bytes().to_vec(),
                    ..packet(PacketType::PacketErr)
                })]);
            }
        });
        let packets = ReceiverStream::new(outgoing).flat_map(stream::iter);
        Ok(Response::new(Box::pin(packets)))
    }

    type TarStreamStream = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("directories are not sent as archives"))
    }
}
