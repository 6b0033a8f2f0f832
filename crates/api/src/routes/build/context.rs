//! The build context: a directory of its own below the engine's root, into which the request's tar is unpacked.
//!
//! The archive is a client's: it is unpacked beneath a directory descriptor and cannot reach outside. The directory goes
//! with the build, whatever its end.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use axum::body::Body;
use bytes::Bytes;
use engine::image::{archive, compression};
use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::error::{ApiError, Result};
use crate::request::body;

/// Unpacks the request's body; an empty body is an empty context.
pub async fn unpack(root: &Path, body: Body) -> Result<TempDir> {
    let pieces = body::channel(body);
    let directory = make(root).await?;
    let unpacked = tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces {
            pieces,
            current: Bytes::new(),
        };
        if !pieces.fill().map_err(unreadable)? {
            return Ok(directory);
        }
        let opened = std::fs::File::open(directory.path()).map_err(unreadable)?;
        let options = archive::ExtractOptions::default();
        archive::extract(compression::decoder(pieces), opened.as_fd(), "/", &options).map_err(|error| {
            ApiError::new(error.class(), format!("cannot unpack the build context: {error}"))
        })?;
        Ok(directory)
    });
    unpacked
        .await
        .map_err(|error| ApiError::internal(format!("unpacking the build context ended early: {error}")))?
}

/// An empty directory, which goes when it is dropped.
pub async fn make(root: &Path) -> Result<TempDir> {
    let parent = root.join("tmp");
    let made = tokio::task::spawn_blocking(move || {
        let made = std::fs::create_dir_all(&parent)
            .and_then(|()| tempfile::Builder::new().prefix("build-").tempdir_in(&parent));
        made.map_err(|error| {
            ApiError::from_io(
                format_args!(
                    "cannot make a directory for the build context in {}",
                    parent.display()
                ),
                &error,
            )
        })
    });
    made.await
        .map_err(|error| ApiError::internal(format!("making the build context ended early: {error}")))?
}

fn unreadable(error: io::Error) -> ApiError {
    ApiError::invalid(format!("cannot read the build context: {error}"))
}

/// The body as a blocking reader.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Pieces {
    /// Waits for bytes; false at the end.
    fn fill(&mut self) -> io::Result<bool> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.fill()? {
            return Ok(0);
        }
        let length = buffer.len().min(self.current.len());
        let piece = self.current.split_to(length);
        for (slot, byte) in buffer.iter_mut().zip(&piece) {
            *slot = *byte;
        }
        Ok(length)
    }
}
