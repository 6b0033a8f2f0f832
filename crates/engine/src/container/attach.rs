//! Attaching: a stream between a client and a container's monitor.
//!
//! The engine makes a pair of sockets, hands one end to the monitor and the other to the face that serves the
//! client; it copies no byte itself. What comes out of the stream is ready for the wire: raw bytes of a
//! terminal, or frames with Docker's eight-byte header. A stream that is asked for before the start waits with
//! the owner and is connected before the first byte is written.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdUnixStream;

use monitor::protocol::AttachStreams;
use tokio::net::UnixStream;

use super::LogStream;
use super::logs::LogOptions;
use super::owner::{Command, Owner};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};

/// What a client wants of an attachment.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// What was written before, first.
    pub logs: bool,
    /// What is written from now on.
    pub stream: bool,
    /// The face watches for these keys; the engine only carries them.
    pub detach_keys: Option<String>,
}

/// An attachment as a face serves it.
pub struct Attachment {
    /// The container has a terminal.
    pub tty: bool,
    /// The stream's output is framed.
    pub multiplexed: bool,
    /// Earlier output, in the same form, to be sent before the stream's.
    pub prefix: Option<LogStream>,
    /// Output to read, input to write; shutting down the writing half ends the container's input.
    pub stream: Option<UnixStream>,
}

/// A stream that waits for the container's start.
pub(crate) struct PendingAttach {
    pub(crate) streams: AttachStreams,
    pub(crate) socket: StdUnixStream,
}

/// Two connected ends: the monitor's and the face's.
pub(super) fn pair() -> Result<(StdUnixStream, UnixStream)> {
    let (theirs, ours) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((theirs, UnixStream::from_std(ours)?))
}

impl Engine {
    /// Attaches to a container, running or about to be started.
    pub async fn container_attach(&self, name: &str, options: AttachOptions) -> Result<Attachment> {
        let handle = self.inner.containers.find(name)?;
        let container = handle.snapshot();
        if container.state.status == super::Status::Paused {
            return Err(Error::conflict(format!(
                "container {} is paused, unpause the container before attach",
                container.id
            )));
        }
        if container.state.status == super::Status::Restarting {
            return Err(Error::conflict(format!(
                "container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        let tty = container.config.tty;
        let prefix = match options.logs {
            true => {
                let logs = LogOptions {
                    stdout: options.stdout,
                    stderr: options.stderr,
                    ..LogOptions::default()
                };
                Some(self.container_logs(container.id.as_str(), logs).await?.stream)
            }
            false => None,
        };
        let mut stream = None;
        if options.stream {
            let (socket, ours) = pair()?;
            let streams = AttachStreams {
                stdin: options.stdin && container.config.open_stdin,
                stdout: options.stdout,
                stderr: options.stderr,
            };
            let pending = PendingAttach { streams, socket };
            handle.ask(|answer| Command::Attach { pending, answer }).await?;
            stream = Some(ours);
        }
        self.inner.events.publish(
            "container",
            "attach",
            container.id.as_str(),
            container.attributes(),
        );
        Ok(Attachment {
            tty,
            multiplexed: !tty,
            prefix,
            stream,
        })
    }

    /// Tells a container's terminal its size.
    pub async fn container_resize(&self, name: &str, rows: u16, cols: u16) -> Result<()> {
        let container = self.container(name)?;
        if !container.state.status.is_alive() {
            return Err(container.not_running());
        }
        let monitor = self.inner.monitor_of(&container)?;
        blocking(move || monitor.resize(rows, cols).map_err(Error::from)).await?;
        let mut attributes = container.attributes();
        attributes.insert("height".to_owned(), rows.to_string());
        attributes.insert("width".to_owned(), cols.to_string());
        self.inner
            .events
            .publish("container", "resize", container.id.as_str(), attributes);
        Ok(())
    }
}

impl crate::engine::Inner {
    /// The monitor of a living container.
    pub(crate) fn monitor_of(&self, container: &super::Container) -> Result<monitor::client::Monitor> {
        container.check_answers()?;
        Ok(monitor::client::Monitor::at(
            &self.config.run_dir,
            container.id.as_str(),
        ))
    }
}

impl Owner {
    pub(super) async fn attach(&mut self, pending: PendingAttach) -> Result<()> {
        match &self.supervision {
            Some(supervision) => {
                self.container.check_answers()?;
                let monitor = std::sync::Arc::clone(&supervision.monitor);
                blocking(move || {
                    monitor
                        .attach(pending.streams, pending.socket.as_fd())
                        .map_err(Error::from)
                })
                .await
            }
            None => {
                self.attaching.push(pending);
                Ok(())
            }
        }
    }
}
