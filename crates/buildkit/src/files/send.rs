//! Giving files to a client (`FileSend/DiffCopy`): one stream of bytes into a file, or a tree into a directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as TreeClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use rustix::fs::{FileType, Mode, OFlags};
use sys::beneath::{list_sorted, open_beneath_no_links};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;

use super::look::entry_of;
use super::mode;
use crate::error::Failure;
use crate::session::{Session, header};

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
    header(
        request.metadata_mut(),
        "buildkit-attachable-exporter-id",
        &[exporter.to_string()],
    );
    for (key, value) in metadata {
        header(request.metadata_mut(), key, std::slice::from_ref(value));
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

/// Sends the tree at `root` to the client's output number `exporter`, below `prefix` where there is one.
pub async fn send_directory(
    session: &Session,
    exporter: usize,
    trees: Vec<(Option<String>, OwnedFd)>,
) -> Result<(), Failure> {
    let (sender, outgoing) = mpsc::channel(WAITING);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    header(
        request.metadata_mut(),
        "buildkit-attachable-exporter-id",
        &[exporter.to_string()],
    );
    header(
        request.metadata_mut(),
        "buildkit-exporter-multi-platform",
        &["1".to_owned()],
    );
    let mut client = TreeClient::new(session.channel());
    let (asked, asking) = mpsc::unbounded_channel::<u32>();
    let worker = tokio::task::spawn_blocking(move || give(trees, &sender, asking));
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

fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}

/// Names everything, then answers requests until there are no more.
fn give(
    trees: Vec<(Option<String>, OwnedFd)>,
    sender: &mpsc::Sender<Packet>,
    mut asking: mpsc::UnboundedReceiver<u32>,
) -> io::Result<()> {
    let send = |packet: Packet| {
        sender
            .blocking_send(packet)
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    };
    let mut files: HashMap<u32, (usize, PathBuf)> = HashMap::new();
    let mut number = 0;
    for (tree, (prefix, root)) in trees.iter().enumerate() {
        if let Some(prefix) = prefix {
            let entry = bollard_buildkit_proto::fsutil::types::Stat {
                path: prefix.clone(),
                mode: mode::of_stat(0o040_755),
                ..Default::default()
            };
            send(Packet {
                stat: Some(entry),
                ..packet(PacketType::PacketStat)
            })?;
            number += 1;
        }
        walk(root, &mut |dir, name, path| {
            let shown = match prefix {
                Some(prefix) => format!("{prefix}/{}", path.display()),
                None => path.display().to_string(),
            };
            let entry = entry_of(dir, &name, shown)?;
            if mode::kind(entry.mode) == FileType::RegularFile {
                files.insert(number, (tree, path.to_owned()));
            }
            number += 1;
            send(Packet {
                stat: Some(entry),
                ..packet(PacketType::PacketStat)
            })
        })?;
    }
    send(packet(PacketType::PacketStat))?;
    let mut buffer = vec![0; PIECE];
    while let Some(id) = asking.blocking_recv() {
        let Some((tree, path)) = files.remove(&id) else {
            continue;
        };
        let Some((_, root)) = trees.get(tree) else {
            continue;
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut file = File::from(open_beneath_no_links(root.as_fd(), &path, flags, Mode::empty())?);
        loop {
            let length = file.read(&mut buffer)?;
            let data = buffer.get(..length).unwrap_or_default().to_vec();
            send(Packet {
                id,
                data,
                ..packet(PacketType::PacketData)
            })?;
            if length == 0 {
                break;
            }
        }
    }
    send(packet(PacketType::PacketFin))
}

type Visit<'a> = dyn FnMut(std::os::fd::BorrowedFd<'_>, OsString, &Path) -> io::Result<()> + 'a;

/// Everything below `root`, directories before what lies in them, names in the order of the protocol.
fn walk(root: &OwnedFd, visit: &mut Visit<'_>) -> io::Result<()> {
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let (above, name) = (path.parent(), path.file_name());
        if let (Some(above), Some(name)) = (above, name) {
            let place = if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            };
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let dir = open_beneath_no_links(root.as_fd(), place, flags, Mode::empty())?;
            visit(dir.as_fd(), name.to_owned(), &path)?;
            let stat = rustix::fs::statat(&dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                continue;
            }
        }
        let place = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path.as_path()
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let dir = open_beneath_no_links(root.as_fd(), place, flags, Mode::empty())?;
        let names = list_sorted(dir.as_fd())?;
        waiting.extend(names.into_iter().rev().map(|name| path.join(name)));
    }
    Ok(())
}
