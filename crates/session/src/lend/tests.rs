use std::path::Path;

use bollard_buildkit_proto::fsutil::types::Packet;
use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::moby::filesync::packet::file_send_client::FileSendClient as TreeClient;
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_client::FileSendClient;
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use futures_util::{StreamExt, stream};
use spec::Digest;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::*;
use crate::content::{
    ACTION_COMMIT, ACTION_WRITE, EXPORT_STORE, STORE_ID, WRITE, WriteRequest, WriteResponse,
};
use crate::files::{Tree, give};
use crate::header;

/// What a session is told at the beginning of a write (containerd's `STAT`).
const ACTION_STAT: i32 = 0;

/// Lends to somebody who calls; the session ends when what is returned is dropped or told so.
async fn lend(
    lent: Lent,
) -> (
    Channel,
    tokio::sync::oneshot::Sender<()>,
    tokio::task::JoinHandle<()>,
) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let session = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        lent.serve(near, stopped).await.unwrap();
    });
    let mut far = Some(TokioIo::new(far));
    let connector = tower::service_fn(move |_: http::Uri| {
        let far = far.take();
        async move { far.ok_or_else(|| io::Error::other("connected twice")) }
    });
    let channel = Endpoint::from_static("http://session")
        .connect_with_connector(connector)
        .await
        .unwrap();
    (channel, stop, session)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Waits until so many names are in the directory.
async fn holds(dir: &Path, count: usize) {
    let wait = async {
        while names(dir).len() != count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait)
        .await
        .unwrap_or_else(|_| panic!("not {count}: {:?}", names(dir)));
}

#[tokio::test]
async fn a_session_that_is_ended_leaves_no_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let (file, store) = (dir.path().join("file"), dir.path().join("store"));
    std::fs::create_dir(&file).unwrap();
    std::fs::create_dir_all(store.join("blobs")).unwrap();
    let lent = Lent {
        outputs: BTreeMap::from([(0, Output::File(file.join("image.tar")))]),
        stores: BTreeMap::from([(
            EXPORT_STORE.to_owned(),
            Store {
                place: store.clone(),
                writable: true,
            },
        )]),
        ..Lent::default()
    };
    let (channel, stop, session) = lend(lent).await;
    let (pieces, outgoing) = mpsc::channel(4);
    let data = b"half of it".to_vec();
    pieces.send(BytesMessage { data: data.clone() }).await.unwrap();
    let mut sends = FileSendClient::new(channel.clone());
    let _answers = sends.diff_copy(ReceiverStream::new(outgoing)).await.unwrap();
    holds(&file, 1).await;
    let (messages, outgoing) = mpsc::channel(4);
    let first = WriteRequest {
        action: ACTION_WRITE,
        data,
        ..WriteRequest::default()
    };
    messages.send(first).await.unwrap();
    let _writing = call(channel, EXPORT_STORE, ReceiverStream::new(outgoing))
        .await
        .unwrap();
    holds(&store.join("blobs"), 1).await;
    stop.send(()).unwrap();
    session.await.unwrap();
    assert_eq!((names(&file), names(&store.join("blobs"))), (vec![], vec![]));
}

/// The stream of answers to what is written to a store.
async fn call(
    channel: Channel,
    store: &str,
    messages: impl tokio_stream::Stream<Item = WriteRequest> + Send + 'static,
) -> Result<tonic::Streaming<WriteResponse>, Status> {
    let mut request = Request::new(messages);
    header::add(request.metadata_mut(), STORE_ID, &[store.to_owned()]);
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec: ProstCodec<WriteRequest, WriteResponse> = ProstCodec::default();
    let answers = grpc.streaming(request, http::uri::PathAndQuery::from_static(WRITE), codec);
    Ok(answers.await?.into_inner())
}

/// Writes a blob as containerd's client does: in pieces, named only when it begins and when it ends.
async fn write(channel: &Channel, store: &str, names: [&str; 2], data: &[u8]) -> Result<Vec<i64>, Status> {
    let message = |action, expected: &str, offset: usize, data: &[u8]| WriteRequest {
        action,
        r#ref: "ref".to_owned(),
        expected: expected.to_owned(),
        offset: i64::try_from(offset).unwrap(),
        data: data.to_vec(),
        ..WriteRequest::default()
    };
    let (one, two) = data.split_at(data.len() / 2);
    let messages = vec![
        message(ACTION_STAT, names[0], 0, b""),
        message(ACTION_WRITE, "", 0, one),
        message(ACTION_WRITE, "", one.len(), two),
        message(ACTION_COMMIT, names[1], data.len(), b""),
    ];
    let mut answers = call(channel.clone(), store, tokio_stream::iter(messages)).await?;
    let mut offsets = Vec::new();
    while let Some(answer) = answers.message().await? {
        offsets.push(answer.offset);
    }
    Ok(offsets)
}

#[tokio::test]
async fn blobs_are_named_at_the_beginning_or_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = |name: &str, writable| {
        let place = dir.path().join(name);
        (name.to_owned(), Store { place, writable })
    };
    let lent = Lent {
        stores: BTreeMap::from([store("open", true), store("closed", false)]),
        ..Lent::default()
    };
    let (channel, _stop, _session) = lend(lent).await;
    for (at, text) in [[true, true], [true, false], [false, true], [false, false]]
        .into_iter()
        .zip(["both", "begin", "end", "nowhere"])
    {
        let digest = Digest::sha256(text.as_bytes()).to_string();
        let name = |said: bool| if said { digest.as_str() } else { "" };
        let offsets = write(&channel, "open", at.map(name), text.as_bytes())
            .await
            .unwrap();
        assert_eq!(offsets.last(), Some(&i64::try_from(text.len()).unwrap()));
        let hex = digest.split_once(':').unwrap().1;
        let kept = std::fs::read(dir.path().join("open/blobs/sha256").join(hex)).unwrap();
        assert_eq!(kept, text.as_bytes());
    }
    let digest = Digest::sha256(b"one").to_string();
    let other = Digest::sha256(b"other").to_string();
    for (names, data, code) in [
        ([digest.as_str(), ""], "two", Code::FailedPrecondition),
        (["", digest.as_str()], "two", Code::FailedPrecondition),
        ([digest.as_str(), other.as_str()], "one", Code::InvalidArgument),
        (["nonsense", ""], "one", Code::InvalidArgument),
        (
            [Digest::sha256(b"end").to_string().as_str(), ""],
            "end",
            Code::AlreadyExists,
        ),
    ] {
        let refused = write(&channel, "open", names, data.as_bytes()).await.unwrap_err();
        assert_eq!(refused.code(), code, "{names:?}: {refused}");
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("open/blobs")).unwrap().count(),
        1
    );
    // What is lent to be read is not written to.
    let refused = write(&channel, "closed", [digest.as_str(), ""], b"one").await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    assert!(!dir.path().join("closed").exists());
}

#[tokio::test]
async fn an_ignore_file_may_be_long() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["kept", "left-7", "left-1999"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let lent = Lent {
        directories: BTreeMap::from([("context".to_owned(), dir.path().to_owned())]),
        ..Lent::default()
    };
    let (channel, _stop, _session) = lend(lent).await;
    let patterns: Vec<String> = (0..2000).map(|number| format!("left-{number}")).collect();
    let (_requests, outgoing) = mpsc::channel::<Packet>(1);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    header::add(request.metadata_mut(), "dir-name", &["context".to_owned()]);
    header::add(request.metadata_mut(), "exclude-patterns", &patterns);
    let packets = FileSyncClient::new(channel).diff_copy(request).await;
    let mut packets = packets.unwrap().into_inner();
    let mut entries = Vec::new();
    while let Some(Packet {
        stat: Some(entry), ..
    }) = packets.message().await.unwrap()
    {
        entries.push(entry.path);
    }
    assert_eq!(entries, ["kept"]);
}

/// Gives a tree to the first output, as engines do that send one for each platform.
async fn send_tree(channel: &Channel, root: &Path, prefix: &str) -> Result<(), Status> {
    let (sender, outgoing) = mpsc::channel::<Vec<Packet>>(4);
    let (asked, asking) = mpsc::unbounded_channel();
    let root = std::fs::File::open(root).unwrap().into();
    let tree = Tree::whole(root, Some(prefix.to_owned()));
    let giving = tokio::task::spawn_blocking(move || {
        let mut send = |packets: Vec<Packet>| {
            let sent = sender.blocking_send(packets);
            sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
        };
        give(&[tree], &mut send, asking)
    });
    let mut client = TreeClient::new(channel.clone());
    let mut answers = client
        .diff_copy(ReceiverStream::new(outgoing).flat_map(stream::iter))
        .await?
        .into_inner();
    while let Some(packet) = answers.message().await? {
        match packet.r#type() {
            PacketType::PacketReq => asked.send(packet.id).unwrap(),
            _ => break,
        }
    }
    drop(asked);
    giving.await.unwrap().unwrap();
    while answers.message().await?.is_some() {}
    Ok(())
}

#[tokio::test]
async fn a_directory_takes_a_tree_for_each_platform() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, goal) = (dir.path().join("tree"), dir.path().join("goal"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    let lent = Lent {
        outputs: BTreeMap::from([(0, Output::Directory(goal.clone()))]),
        ..Lent::default()
    };
    let (channel, _stop, _session) = lend(lent).await;
    for platform in ["linux_amd64", "linux_arm64"] {
        send_tree(&channel, &tree, platform).await.unwrap();
        let came = std::fs::read(goal.join(platform).join("file")).unwrap();
        assert_eq!(came, b"content");
    }
    assert_eq!(names(&goal), ["linux_amd64", "linux_arm64"]);
}

#[tokio::test]
async fn a_file_is_replaced_where_it_lies_and_stays_as_private_as_it_was() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    let file = real.join("image.tar");
    std::fs::write(&file, "old").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("real/image.tar", &link).unwrap();
    let lent = Lent {
        outputs: BTreeMap::from([(0, Output::File(link.clone()))]),
        ..Lent::default()
    };
    let (channel, _stop, _session) = lend(lent).await;
    let message = BytesMessage {
        data: b"new".to_vec(),
    };
    let mut sends = FileSendClient::new(channel);
    let answers = sends.diff_copy(tokio_stream::iter([message])).await;
    let mut answers = answers.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    assert!(link.is_symlink());
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(&real), ["image.tar"]);
}

#[tokio::test]
async fn a_call_that_was_given_up_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image.tar");
    std::fs::write(&file, "old").unwrap();
    let lent = Lent {
        outputs: BTreeMap::from([(0, Output::File(file.clone()))]),
        ..Lent::default()
    };
    let (channel, stop, session) = lend(lent).await;
    let (pieces, outgoing) = mpsc::channel(4);
    let data = b"half of it".to_vec();
    pieces.send(BytesMessage { data }).await.unwrap();
    let mut request = Request::new(ReceiverStream::new(outgoing));
    let giving_up = request.cancellation_handle();
    let mut sends = FileSendClient::new(channel);
    let _answers = sends.diff_copy(request).await.unwrap();
    holds(dir.path(), 2).await;
    giving_up.cancel();
    holds(dir.path(), 1).await;
    assert_eq!(std::fs::read(&file).unwrap(), b"old");
    stop.send(()).unwrap();
    session.await.unwrap();
}
