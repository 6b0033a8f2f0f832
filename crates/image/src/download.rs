//! Downloads of blobs, shared by everyone who wants the same one.
//!
//! ```text
//!   registry ──async──> bounded channel ──blocking thread──> file in ingest (hashed on the way)
//!                                                                │ Tail: reads what is there, waits for more
//!                                                                └──> unpacking, while the download goes on
//! ```
//!
//! A download lives as long as somebody holds its handle; when the last one lets go it stops and keeps its
//! beginning for the next attempt. A tail reader sees bytes before they are verified: whatever it makes of them
//! counts only after [`Written::verified`].

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use registry::Repository;
use spec::Digest;
use spec::image::Descriptor;
use store::{Ingest, IngestError, Store};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

use crate::error::ImageError;

/// Layers downloaded at once unless changed, as Docker's default.
pub const MAX_DOWNLOADS: usize = 3;
/// Pieces of a download that wait for the disk.
const PIECES: usize = 32;
/// How often a waiting reader looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// How far a download is.
#[derive(Clone)]
pub(crate) enum State {
    /// For its turn.
    Waiting,
    Running(u64),
    /// All bytes are here, their digest is being checked and they are being made durable.
    Verifying,
    Done,
    Failed(Arc<ImageError>),
}

/// A download under way or done.
pub(crate) struct Download {
    pub state: watch::Receiver<State>,
    pub written: Arc<Written>,
    task: AbortHandle,
}

impl Drop for Download {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Download {
    /// Waits for the end.
    pub async fn finished(&self) -> Result<(), ImageError> {
        let mut state = self.state.clone();
        let last = state
            .wait_for(|s| matches!(s, State::Done | State::Failed(_)))
            .await;
        match last.as_deref() {
            Ok(State::Done) => Ok(()),
            Ok(State::Failed(error)) => Err(ImageError::Shared(error.clone())),
            _ => Err(ImageError::Worker),
        }
    }
}

pub(crate) struct Downloads {
    active: Mutex<HashMap<Digest, Weak<Download>>>,
    slots: Mutex<Arc<Semaphore>>,
}

impl Default for Downloads {
    fn default() -> Downloads {
        Downloads {
            active: Mutex::default(),
            slots: Mutex::new(Arc::new(Semaphore::new(MAX_DOWNLOADS))),
        }
    }
}

impl Downloads {
    pub fn set_most(&self, most: usize) {
        *locked(&self.slots) = Arc::new(Semaphore::new(most.max(1)));
    }

    /// Joins the download of a blob, or starts it. Must be called on the async runtime.
    pub fn join(&self, store: &Store, repository: &Arc<Repository>, blob: &Descriptor) -> Arc<Download> {
        let mut active = locked(&self.active);
        active.retain(|_, download| download.strong_count() > 0);
        let of_use = |running: &Arc<Download>| match *running.state.borrow() {
            State::Failed(_) => false,
            // Somebody may still have one whose file was let go since.
            State::Done => store.content().is_stored(&blob.digest),
            _ => true,
        };
        if let Some(running) = active.get(&blob.digest).and_then(Weak::upgrade).filter(of_use) {
            return running;
        }
        let written = Arc::new(Written::default());
        let (told, state) = watch::channel(State::Waiting);
        let slots = locked(&self.slots).clone();
        let job = Job {
            store: store.clone(),
            repository: repository.clone(),
            blob: blob.clone(),
            written: written.clone(),
            told: told.clone(),
        };
        let ending = Ending {
            written: written.clone(),
            told,
            digest: blob.digest.clone(),
        };
        let task = tokio::spawn(async move {
            let ending = ending;
            let Ok(_slot) = slots.acquire_owned().await else {
                return;
            };
            let outcome = job.run().await;
            ending.tell(outcome);
        });
        let download = Arc::new(Download {
            state,
            written,
            task: task.abort_handle(),
        });
        active.insert(blob.digest.clone(), Arc::downgrade(&download));
        download
    }
}

/// Tells everyone how it ended, also when the task was aborted.
struct Ending {
    written: Arc<Written>,
    told: watch::Sender<State>,
    digest: Digest,
}

impl Ending {
    fn tell(&self, outcome: Result<(), ImageError>) {
        match outcome {
            Ok(()) => {
                self.written.end(true);
                self.told.send_replace(State::Done);
            }
            Err(error) => {
                self.written.end(false);
                self.told.send_replace(State::Failed(Arc::new(error)));
            }
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let open = !matches!(*self.told.borrow(), State::Done | State::Failed(_));
        if open {
            self.tell(Err(ImageError::Cancelled(self.digest.clone())));
        }
    }
}

struct Job {
    store: Store,
    repository: Arc<Repository>,
    blob: Descriptor,
    written: Arc<Written>,
    told: watch::Sender<State>,
}

enum Piece {
    Bytes(Bytes),
    /// All bytes came: verify and publish.
    End,
}

impl Job {
    async fn run(&self) -> Result<(), ImageError> {
        let resumed = match self.attempt().await {
            Ok(_) => return Ok(()),
            Err((error, resumed)) => match (&error, resumed) {
                // What an earlier attempt left may be torn; the whole is tried once more.
                (ImageError::LayerDigest { .. }, true) => resumed,
                _ => return Err(error),
            },
        };
        tracing::info!(digest = %self.blob.digest, resumed, "resumed download did not verify, starting over");
        self.written.restart();
        self.attempt().await.map(drop).map_err(|(error, _)| error)
    }

    /// One attempt; true beside an error says that it went on from an earlier one.
    async fn attempt(&self) -> Result<bool, (ImageError, bool)> {
        if self.store.content().is_stored(&self.blob.digest) {
            let path = self.store.content().path(&self.blob.digest);
            let file = File::open(path).map_err(|e| (ImageError::Read(e), false))?;
            self.written.open(file, self.blob.size);
            return Ok(false);
        }
        let ingest = self.ingest().await.map_err(|e| (e, false))?;
        let offset = ingest.offset();
        let resumed = offset > 0;
        self.transfer(ingest, offset)
            .await
            .map(|()| resumed)
            .map_err(|e| (e, resumed))
    }

    async fn ingest(&self) -> Result<Ingest, ImageError> {
        let (store, digest, size) = (self.store.clone(), self.blob.digest.clone(), self.blob.size);
        // An aborted predecessor's writer may hold the file for a moment more.
        for _ in 0..100 {
            let (store, digest) = (store.clone(), digest.clone());
            let opened = blocking(move || -> Result<Ingest, ImageError> {
                let mut ingest = store.content().ingest(digest.as_str())?;
                if ingest.offset() > size {
                    ingest.restart()?;
                }
                Ok(ingest)
            })
            .await?;
            match opened {
                Err(ImageError::Ingest(IngestError::Busy(_))) => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                other => return other,
            }
        }
        Err(IngestError::Busy(digest.to_string()).into())
    }

    async fn transfer(&self, ingest: Ingest, offset: u64) -> Result<(), ImageError> {
        let size = self.blob.size;
        let tail = ingest.reader()?;
        self.written.open(tail, offset);
        self.told.send_replace(State::Running(offset));
        let (pieces, queue) = mpsc::channel(PIECES);
        let writer = Writer {
            written: self.written.clone(),
            told: self.told.clone(),
            digest: self.blob.digest.clone(),
            size,
        };
        let mut writing = tokio::task::spawn_blocking(move || writer.run(ingest, queue));
        let fetched = async {
            let mut reader = self.repository.blob(&self.blob.digest, size, offset).await?;
            while let Some(bytes) = reader.chunk().await? {
                if pieces.send(Piece::Bytes(bytes)).await.is_err() {
                    // The writer ended early and has the reason.
                    return Ok(());
                }
            }
            let _ = pieces.send(Piece::End).await;
            Ok::<(), ImageError>(())
        }
        .await;
        drop(pieces);
        let written = (&mut writing).await.map_err(|_| ImageError::Worker)?;
        match (fetched, written) {
            (Err(error), _) => Err(error),
            (Ok(()), outcome) => outcome,
        }
    }
}

/// The blocking half: file and hash.
struct Writer {
    written: Arc<Written>,
    told: watch::Sender<State>,
    digest: Digest,
    size: u64,
}

impl Writer {
    fn run(&self, mut ingest: Ingest, mut queue: mpsc::Receiver<Piece>) -> Result<(), ImageError> {
        loop {
            match queue.blocking_recv() {
                Some(Piece::Bytes(bytes)) => {
                    ingest
                        .write_all(&bytes)
                        .map_err(|cause| ImageError::Store(cause, self.digest.clone()))?;
                    self.written.advance(ingest.offset());
                    self.told.send_replace(State::Running(ingest.offset()));
                }
                Some(Piece::End) => break,
                // Broken off: the beginning stays.
                None => return Err(ImageError::Cancelled(self.digest.clone())),
            }
        }
        self.told.send_replace(State::Verifying);
        match ingest.commit(Some(&self.digest), Some(self.size)) {
            Ok(_) => Ok(()),
            Err(IngestError::DigestMismatch { expected, actual, .. }) => {
                Err(ImageError::LayerDigest { expected, actual })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// What of a download is on disk, for readers on blocking threads.
#[derive(Default)]
pub(crate) struct Written {
    progress: Mutex<WrittenState>,
    changed: Condvar,
}

#[derive(Default)]
struct WrittenState {
    file: Option<Arc<File>>,
    bytes: u64,
    /// Counts how often it began anew: readers of an earlier round have read bytes that did not count.
    round: u32,
    ended: Option<bool>,
}

impl Written {
    fn open(&self, file: File, bytes: u64) {
        let mut state = locked(&self.progress);
        state.file = Some(Arc::new(file));
        state.bytes = bytes;
        self.changed.notify_all();
    }

    fn advance(&self, bytes: u64) {
        locked(&self.progress).bytes = bytes;
        self.changed.notify_all();
    }

    fn restart(&self) {
        let mut state = locked(&self.progress);
        state.file = None;
        state.bytes = 0;
        state.round += 1;
        self.changed.notify_all();
    }

    fn end(&self, verified: bool) {
        locked(&self.progress).ended = Some(verified);
        self.changed.notify_all();
    }

    /// Waits for the end of the download; true if all of it was verified. Ends early with `stop`.
    pub fn verified(&self, stop: &AtomicBool) -> bool {
        let mut state = locked(&self.progress);
        loop {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            if let Some(verified) = state.ended {
                return verified;
            }
            state = self.wait(state);
        }
    }

    /// Waits for a change, or long enough to look at a stop flag again.
    fn wait<'a>(&self, state: MutexGuard<'a, WrittenState>) -> MutexGuard<'a, WrittenState> {
        match self.changed.wait_timeout(state, LOOK) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

/// Reads a download from its beginning while it is being written.
pub(crate) struct Tail {
    written: Arc<Written>,
    position: u64,
    size: u64,
    round: Option<u32>,
    stop: Arc<AtomicBool>,
}

impl Tail {
    pub fn new(written: &Arc<Written>, size: u64, stop: Arc<AtomicBool>) -> Tail {
        Tail {
            written: written.clone(),
            position: 0,
            size,
            round: None,
            stop,
        }
    }
}

impl Read for Tail {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size {
            return Ok(0);
        }
        let (file, available) = {
            let mut state = locked(&self.written.progress);
            loop {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(io::Error::other("the pull was cancelled"));
                }
                if state.ended == Some(false) {
                    return Err(io::Error::other("the download broke off"));
                }
                if self.round.is_some_and(|round| round != state.round) {
                    return Err(io::Error::other("the download began anew"));
                }
                match &state.file {
                    Some(file) if state.bytes > self.position => {
                        self.round = Some(state.round);
                        break (file.clone(), state.bytes - self.position);
                    }
                    _ => state = self.written.wait(state),
                }
            }
        };
        let most = buffer.len().min(usize::try_from(available).unwrap_or(usize::MAX));
        let part = buffer.get_mut(..most).unwrap_or_default();
        let read = std::os::unix::fs::FileExt::read_at(&*file, part, self.position)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.position += read as u64;
        Ok(read)
    }
}

/// Runs work on a blocking thread.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ImageError::Worker)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
