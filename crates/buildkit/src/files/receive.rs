//! Taking files from a client (`FileSync/DiffCopy`): it names what it has, we ask for what is not here yet.

use std::path::Path;

use ::session::files::{TakeError, Trust, Update, take};
use ::session::{MAX_MESSAGE, header};
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Request;

use crate::error::Failure;
use crate::session::Session;

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
    header::add(metadata, "dir-name", std::slice::from_ref(&selection.directory));
    header::add(metadata, "include-patterns", &selection.include);
    header::add(metadata, "exclude-patterns", &selection.exclude);
    header::add(
        metadata,
        "followpaths",
        selection.paths.as_deref().unwrap_or_default(),
    );
    let mut client = FileSyncClient::new(session.channel()).max_decoding_message_size(MAX_MESSAGE);
    let packets = client.diff_copy(request).await?.into_inner();
    let (into, staging) = (into.to_owned(), staging.to_owned());
    let begin = move || Update::begin(&into, &staging, trust);
    let taken = take(packets, requests, begin, progress).await;
    taken.map_err(|error| match error {
        TakeError::Call(status) => status.into(),
        TakeError::Giver(text) => Failure::invalid(format!("the client cannot send its files: {text}")),
        TakeError::Tree(error) => Failure::invalid(format!("cannot take the client's files: {error}")),
        TakeError::Early => Failure::unavailable("the client went away before all its files were sent"),
        TakeError::Broken(error) => Failure::broken(error),
    })
}
