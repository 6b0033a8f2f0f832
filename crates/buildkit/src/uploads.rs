//! Contexts that come as one stream: out of a client's session, or in a request of their own (`POST /build` with a build id
//! that begins with `upload-request:`), which the build waits for under that id.
//!
//! A stream is kept in a file without a name, so that nothing is left of it however the build ends.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::session::control::STREAM;
use ::session::header;
use bollard_buildkit_proto::moby::upload::v1::upload_client::UploadClient;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::sync::{Notify, mpsc, watch};
use tonic::Request;

use crate::error::Failure;
use crate::service::Service;
use crate::session::Session;

/// How long a build and the stream that belongs to it wait for each other.
const PATIENCE: Duration = Duration::from_secs(5);
/// How a context is named that comes in a request of its own.
const REQUEST: &str = "berth-upload://";
/// Pieces that may wait to be written.
const WAITING: usize = 16;

/// What became of a stream: nothing yet, all of it, or why it broke off.
type State = Option<Result<Arc<File>, String>>;

/// The streams that came in requests of their own; clones are handles.
#[derive(Clone, Default)]
pub struct Uploads {
    known: Arc<Mutex<HashMap<String, watch::Receiver<State>>>>,
    came: Arc<Notify>,
}

/// By what a build names the context that comes in a request of its own.
pub fn of_request(build: &str) -> String {
    format!("{REQUEST}{build}")
}

impl Uploads {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Receiver<State>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self, build: &str) -> Result<watch::Receiver<State>, Failure> {
        let find = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                if let Some(found) = self.lock().remove(build) {
                    return found;
                }
                came.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, find).await;
        found.map_err(|_| Failure::not_found(format!("the context of the build {build} was not sent")))
    }

    /// The stream for a build, waited for until all of it is here.
    async fn take(&self, build: &str) -> Result<File, Failure> {
        let mut state = self.find(build).await?;
        let broken =
            |text: &str| Failure::unavailable(format!("the context was not sent to its end: {text}"));
        let arrived = state.wait_for(Option::is_some).await;
        let arrived = arrived.map_err(|_| broken("the client went away"))?;
        match &*arrived {
            Some(Ok(file)) => file.try_clone().map_err(|error| broken(&error.to_string())),
            Some(Err(text)) => Err(broken(text)),
            None => Err(broken("the client went away")),
        }
    }
}

/// Forgets a stream that nobody took.
struct Offered<'a>(&'a Uploads, &'a str);

impl Drop for Offered<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(self.1);
    }
}

impl Service {
    /// Takes the context of the build `build`; returns when the build has it, or does not want it.
    pub async fn upload<E: std::fmt::Display>(
        &self,
        build: &str,
        stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) {
        let (state, receiver) = watch::channel(None);
        self.uploads.lock().insert(build.to_owned(), receiver);
        self.uploads.came.notify_waiters();
        let _offered = Offered(&self.uploads, build);
        let kept = self.spool(stream).await;
        state.send_replace(Some(kept.map(Arc::new).map_err(|failure| failure.message)));
        let _ = tokio::time::timeout(PATIENCE, state.closed()).await;
    }

    /// Keeps a stream in a file without a name, which is read from its beginning.
    async fn spool<E: std::fmt::Display>(
        &self,
        mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<File, Failure> {
        let room = self.room();
        let (sender, mut pieces) = mpsc::channel::<Bytes>(WAITING);
        let writer = tokio::task::spawn_blocking(move || {
            let mut write = || {
                std::fs::create_dir_all(&room)?;
                let mut file = tempfile::tempfile_in(&room)?;
                while let Some(piece) = pieces.blocking_recv() {
                    file.write_all(&piece)?;
                }
                file.seek(SeekFrom::Start(0))?;
                Ok::<_, std::io::Error>(file)
            };
            write().map_err(|error| Failure::unavailable(format!("cannot keep the context: {error}")))
        });
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| Failure::unavailable(error.to_string()))?;
            if sender.send(piece).await.is_err() {
                break;
            }
        }
        drop(sender);
        writer.await.map_err(Failure::broken)?
    }

    /// The stream that a context stands for, where it stands for one.
    pub async fn uploaded(&self, session: &Session, context: &str) -> Result<Option<File>, Failure> {
        if let Some(build) = context.strip_prefix(REQUEST) {
            return self.uploads.take(build).await.map(Some);
        }
        let Some(name) = context.strip_prefix(STREAM) else {
            return Ok(None);
        };
        let mut request = Request::new(tokio_stream::empty());
        header::add(request.metadata_mut(), header::UPLOAD, &[format!("/{name}")]);
        header::add(
            request.metadata_mut(),
            "urlhost",
            &["buildkit-session".to_owned()],
        );
        let pieces = UploadClient::new(session.channel()).pull(request).await?;
        let pieces = pieces.into_inner().map(|piece| match piece {
            Ok(piece) => Ok(Bytes::from(piece.data)),
            Err(status) => Err(status.message().to_owned()),
        });
        self.spool(pieces).await.map(Some)
    }
}
