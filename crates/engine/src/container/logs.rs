//! Reading a container's log, as it was written and while it is.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use jiff::Timestamp;
use monitor::log::{LogConfig, LogLine, Next, ReadOptions, Reader, Stopper};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Container, Status};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result, chain};

/// Bytes ready for the wire.
pub type LogStream = mpsc::Receiver<std::io::Result<Bytes>>;

/// How many pieces may wait for a slow client.
const PENDING: usize = 32;
/// Lines are gathered up to this size before they are handed on.
const BATCH: usize = 64 << 10;

/// Which lines, and how they are shown.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    pub details: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// The last lines only; `None` for all.
    pub tail: Option<u64>,
}

/// A log being read.
pub struct Logs {
    /// The container has a terminal: the bytes are not framed.
    pub tty: bool,
    pub stream: LogStream,
}

impl Engine {
    /// Reads a container's log.
    pub async fn container_logs(&self, name: &str, options: LogOptions) -> Result<Logs> {
        let handle = self.inner.containers.find(name)?;
        let container = handle.snapshot();
        if !options.stdout && !options.stderr {
            return Err(Error::invalid(
                "must specify at least one of 'stdout' or 'stderr'",
            ));
        }
        if container.host_config.log_config.kind == "none" {
            return Err(Error::new(
                spec::ErrorClass::NotImplemented,
                "configured logging driver does not support reading",
            ));
        }
        let (send, stream) = mpsc::channel(PENDING);
        let tty = container.config.tty;
        if container.files.log.is_empty() {
            return Ok(Logs { tty, stream });
        }
        let config = config(
            &container.host_config.log_config,
            PathBuf::from(&container.files.log),
        )?;
        let read = ReadOptions {
            stdout: options.stdout,
            stderr: options.stderr,
            follow: options.follow,
            since: options.since,
            until: options.until,
            tail: options.tail,
        };
        let reader = blocking(move || {
            Reader::open(&config, read).map_err(|error| Error::new(error.class(), chain(&error)))
        })
        .await?;
        let follower = options.follow.then(|| {
            tokio::spawn(finish_at_end(
                handle.subscribe(),
                self.inner.shutdown.clone(),
                send.clone(),
                reader.stopper(),
            ))
        });
        // Following blocks on the file system's notifications, so it has a thread of the pool to itself.
        tokio::task::spawn_blocking(move || {
            pump(reader, &send, &options, tty);
            if let Some(follower) = follower {
                follower.abort();
            }
        });
        Ok(Logs { tty, stream })
    }
}

/// The settings a container's log is written and read with.
pub(super) fn config(log: &api_types::LogConfig, path: PathBuf) -> Result<LogConfig> {
    LogConfig::from_options(&log.kind, log.config.as_map(), path)
        .map_err(|error| Error::invalid(error.to_string()))
}

/// Tells a following reader when nothing more will come: the container ended, the client left, the daemon stops.
async fn finish_at_end(
    mut published: watch::Receiver<Arc<Container>>,
    shutdown: CancellationToken,
    client: mpsc::Sender<std::io::Result<Bytes>>,
    stopper: Stopper,
) {
    let ended = published
        .wait_for(|c| c.removed || !(c.state.status.is_alive() || c.state.status == Status::Restarting));
    tokio::select! {
        _ = ended => {}
        () = shutdown.cancelled() => {}
        () = client.closed() => {}
    }
    stopper.finish();
}

/// Hands on what the reader gives, in batches as large as what is there.
fn pump(mut reader: Reader, send: &mpsc::Sender<std::io::Result<Bytes>>, options: &LogOptions, tty: bool) {
    let mut batch = BytesMut::new();
    loop {
        let next = match reader.next_ready() {
            // Nothing is there now: what was gathered goes out before we wait.
            Ok(Next::Pending) if batch.is_empty() => match reader.next() {
                Some(line) => line.map(Next::Line),
                None => Ok(Next::End),
            },
            next => next,
        };
        match &next {
            Ok(Next::Line(line)) => {
                put(&mut batch, line, options, tty);
                if batch.len() < BATCH {
                    continue;
                }
            }
            Ok(Next::Pending | Next::End) | Err(_) => {}
        }
        if !batch.is_empty() && send.blocking_send(Ok(batch.split().freeze())).is_err() {
            return;
        }
        match next {
            Ok(Next::End) => return,
            Err(error) => {
                // The client may have left; then nobody needs to know.
                let _ = send.blocking_send(Err(std::io::Error::other(chain(&error))));
                return;
            }
            Ok(_) => {}
        }
    }
}

/// Appends a line in the client's form.
fn put(batch: &mut BytesMut, line: &LogLine, options: &LogOptions, tty: bool) {
    let time = if options.timestamps {
        format!("{:.9} ", line.time)
    } else {
        String::new()
    };
    if !tty {
        let length = u32::try_from(time.len() + line.bytes.len()).unwrap_or(u32::MAX);
        batch.put_slice(&[line.stream.number(), 0, 0, 0]);
        batch.put_u32(length);
    }
    batch.put_slice(time.as_bytes());
    batch.put_slice(&line.bytes);
}
