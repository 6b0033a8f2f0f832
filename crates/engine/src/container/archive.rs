//! Files of a container from outside: `cp`, `diff`, `export`. All work on a container that runs and on one that
//! does not, through a descriptor of its root; nothing is mounted where anyone sees it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use bytes::Bytes;
use image::archive::{ExtractOptions, PathStat};
use image::layer::Change;
use tokio::sync::mpsc;

use super::user;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// Bytes as they come, ended by the sender's going or an error.
pub type ByteStream = mpsc::Receiver<io::Result<Bytes>>;

/// How an archive is put into a container.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArchivePut {
    /// Refuse to replace a directory by something else, or the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Give everything to the user the container runs as.
    pub copy_uid_gid: bool,
}

/// How many pieces may wait for a client that does not read.
const PENDING: usize = 4;
const PIECE: usize = 256 << 10;

impl Engine {
    /// What a path in a container is.
    pub async fn container_archive_stat(&self, name: &str, path: &str) -> Result<PathStat> {
        let container = self.container(name)?;
        let (inner, path, name) = (Arc::clone(&self.inner), path.to_owned(), name.to_owned());
        blocking(move || {
            let root = inner.root_of(&container)?;
            image::archive::stat(root.as_fd(), &path).map_err(|error| not_there(error, &path, &name))
        })
        .await
    }

    /// A path in a container as a tar stream.
    pub async fn container_archive_get(&self, name: &str, path: &str) -> Result<(PathStat, ByteStream)> {
        let stat = self.container_archive_stat(name, path).await?;
        let container = self.container(name)?;
        self.inner.events.publish(
            "container",
            "archive-path",
            container.id.as_str(),
            container.attributes(),
        );
        let (inner, path) = (Arc::clone(&self.inner), path.to_owned());
        let stream = stream(move |out| {
            let root = inner.root_of(&container).map_err(io::Error::other)?;
            image::archive::pack(root.as_fd(), &path, root.ids(), out).map_err(io::Error::other)
        });
        Ok((stat, stream))
    }

    /// Unpacks a tar stream at a path in a container.
    pub async fn container_archive_put(
        &self,
        name: &str,
        path: &str,
        put: ArchivePut,
        body: ByteStream,
    ) -> Result<()> {
        let container = self.container(name)?;
        let (inner, path, name) = (Arc::clone(&self.inner), path.to_owned(), name.to_owned());
        let attributes = container.attributes();
        let id = container.id.clone();
        blocking(move || {
            let root = inner.root_of(&container)?;
            let stat =
                image::archive::stat(root.as_fd(), &path).map_err(|error| not_there(error, &path, &name))?;
            if !stat.is_dir() {
                return Err(Error::invalid("extraction point is not a directory"));
            }
            if container.host_config.readonly_rootfs
                && !container.plan.iter().any(|m| path.starts_with(&m.destination))
            {
                return Err(Error::forbidden("container rootfs is marked read-only"));
            }
            // The flag gives what is made to the container's user; without it the archive's owners stand.
            let user = container.config.user.as_str();
            let chown = match put.copy_uid_gid && !user.is_empty() {
                true => Some(user::resolve(root.as_fd(), user, &[]).map(|i| (i.uid, i.gid))?),
                false => None,
            };
            let options = ExtractOptions {
                no_overwrite_dir_non_dir: put.no_overwrite_dir_non_dir,
                chown,
                ids: root.ids().cloned(),
                top: false,
            };
            let reader = image::compression::decoder(Incoming::new(body));
            image::archive::extract(reader, root.as_fd(), &path, &options).map_err(Error::from)
        })
        .await?;
        self.inner
            .events
            .publish("container", "extract-to-dir", id.as_str(), attributes);
        Ok(())
    }

    /// What differs from the image.
    pub async fn container_changes(&self, name: &str) -> Result<Vec<Change>> {
        let container = self.container(name)?;
        let inner = Arc::clone(&self.inner);
        let watch = self.inner.metrics.watch("changes");
        let changes = blocking(move || {
            let part = inner.store.snapshots().part(container.snapshot)?;
            Ok(image::layer::changes(&part)?)
        });
        watch.done(changes.await)
    }

    /// The whole root as a tar stream.
    pub async fn container_export(&self, name: &str) -> Result<ByteStream> {
        let container = self.container(name)?;
        let (inner, exported) = (Arc::clone(&self.inner), Arc::clone(&container));
        let stream = stream(move |out| {
            // The layers, not the running root: what is mounted into the container is not part of it.
            let mut overlay = inner
                .store
                .snapshots()
                .overlay(exported.snapshot)
                .map_err(io::Error::other)?;
            overlay.lower.splice(0..0, overlay.upper.take());
            overlay.work = None;
            overlay.read_only = true;
            let root = overlay.mount_detached()?;
            image::layer::tree_tar(root.as_fd(), out).map_err(io::Error::other)
        });
        self.inner.events.publish(
            "container",
            "export",
            container.id.as_str(),
            container.attributes(),
        );
        Ok(stream)
    }
}

fn not_there(error: image::archive::ArchiveError, path: &str, name: &str) -> Error {
    match error.class() {
        spec::ErrorClass::NotFound => {
            Error::not_found(format!("Could not find the file {path} in container {name}"))
        }
        _ => Error::from(error),
    }
}

/// Runs a writer on the blocking pool and gives what it writes as a stream.
pub(crate) fn stream(work: impl FnOnce(&mut Outgoing) -> io::Result<()> + Send + 'static) -> ByteStream {
    let (send, receive) = mpsc::channel(PENDING);
    tokio::task::spawn_blocking(move || {
        let mut out = Outgoing {
            send,
            buffer: Vec::new(),
        };
        let done = work(&mut out).and_then(|()| out.flush());
        if let Err(error) = done {
            // The receiver being gone is how a client says that it has seen enough.
            let _ = out.send.blocking_send(Err(error));
        }
    });
    receive
}

/// A writer whose bytes go to a stream in large pieces.
pub(crate) struct Outgoing {
    send: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A buffer that grows as it is filled is up to twice as large as what is in it.
        self.buffer.reserve_exact(PIECE - self.buffer.len());
        let taken = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.send
            .blocking_send(Ok(piece))
            .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// A reader over a stream, for blocking code.
pub(crate) struct Incoming {
    stream: ByteStream,
    current: Bytes,
}

impl Incoming {
    pub(crate) fn new(stream: ByteStream) -> Incoming {
        Incoming {
            stream,
            current: Bytes::new(),
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.stream.blocking_recv() {
                Some(Ok(next)) => self.current = next,
                Some(Err(error)) => return Err(error),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
