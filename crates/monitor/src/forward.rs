//! The forwarder: a process that takes a container's entries from its monitor and sends them elsewhere.
//!
//! ```text
//!   socket ──> reader (this thread) ──> Queue, bounded ──> sender (a thread) ──> journal, syslog, Fluentd, GELF
//! ```
//!
//! A monitor starts one when a driver needs it (see [`crate::log`]'s pipe); no other container pays for it. It may
//! wait for the network as long as it likes: what comes meanwhile fills the queue, and then is dropped and counted,
//! or waits at its source, as the container's `mode` says. What was dropped is told to the monitor, and to the other
//! end in a line of its own as soon as it listens again. When the monitor closes the socket, what is queued is sent
//! for at most [`FAREWELL`], and the process ends.

mod config;
mod fluentd;
mod gelf;
mod journald;
mod message;
mod queue;
mod send;
mod syslog;
mod tls;
mod transport;

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

pub use config::{Address, Destination, Forward, GelfCompression, Source, SyslogFormat, Tls, Transport};
use message::Message;
use queue::Queue;
use send::Sender;

use crate::log::Report;
use crate::log::local::{self, Framed};
use crate::wire::{self, Lines};

/// The word that makes our binary a forwarder.
pub const ROLE: &str = "log-forwarder";
/// How long what is queued may take to be sent when the container has ended.
const FAREWELL: Duration = Duration::from_secs(10);
const CHUNK: usize = 64 * 1024;

/// `berth log-forwarder <short id>`, started by a monitor with their socket as standard input. Returns the exit
/// code.
pub fn main() -> i32 {
    let socket = sys::fd::take_inherited(0)
        .and_then(|inherited| Ok(rustix::io::fcntl_dupfd_cloexec(&inherited, 3)?))
        .and_then(|socket| {
            rustix::net::getsockname(&socket)?;
            Ok(UnixStream::from(socket))
        });
    match socket.and_then(run) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!(
                "berth log-forwarder: {error} (it is started by a monitor, with a socket as standard input)"
            );
            1
        }
    }
}

/// Serves one container until its monitor closes the socket.
pub fn run(mut socket: UnixStream) -> io::Result<()> {
    let (forward, _) = Lines::default().receive::<Forward>(&socket)?;
    let mut sender = Sender::new(&forward);
    if forward.connect_first
        && let Err(error) = sender.connect()
    {
        return wire::send(&socket, &Report::Failed(error.to_string()), &[]);
    }
    wire::send(&socket, &Report::Ready, &[])?;
    let queue = Arc::new(Queue::new(forward.buffer, forward.drop_when_full));
    let reports = socket.try_clone()?;
    let (theirs, patience) = (Arc::clone(&queue), forward.clone());
    let thread = std::thread::Builder::new()
        .name("sender".to_owned())
        .spawn(move || {
            let report = |report: Report| {
                // The monitor may be gone, and then nobody needs to know.
                let _ = wire::send(&reports, &report, &[]);
            };
            send::run(&patience, sender, &theirs, &report);
        })?;
    let outcome = read(&mut socket, &queue);
    queue.close(FAREWELL);
    let _ = thread.join();
    outcome
}

/// Puts what the monitor sends into the queue.
fn read(socket: &mut UnixStream, queue: &Queue) -> io::Result<()> {
    let mut buffer = Vec::new();
    let mut chunk = vec![0u8; CHUNK];
    loop {
        match socket.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let mut at = 0;
        loop {
            match local::first(buffer.get(at..).unwrap_or_default()) {
                Framed::Entry(message, length) => {
                    if let Some(entry) = local::decode(message) {
                        queue.push(Message::from(&entry));
                    }
                    at += length;
                }
                Framed::Short => break,
                Framed::Damaged => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        buffer.drain(..at);
    }
}
