//! Sending what is queued, and trying again when it fails.

use std::io;
use std::time::Duration;

use super::config::{Destination, Forward};
use super::fluentd::Fluentd;
use super::gelf::Gelf;
use super::journald::Journald;
use super::message::Message;
use super::queue::{Queue, Taken};
use super::syslog::Syslog;
use crate::log::Report;
use crate::timestamp;

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Messages sent together at most.
const BATCH: usize = 256;

/// One of the protocols, with its connection.
pub(super) enum Sender {
    Journald(Journald),
    Syslog(Syslog),
    Fluentd(Fluentd),
    Gelf(Gelf),
}

impl Sender {
    pub(super) fn new(forward: &Forward) -> Self {
        match &forward.to {
            Destination::Journald { socket } => Self::Journald(Journald::new(socket, forward)),
            Destination::Syslog {
                transport,
                facility,
                format,
            } => Self::Syslog(Syslog::new(transport, *facility, *format, &forward.source)),
            Destination::Fluentd {
                transport,
                sub_second,
                request_ack,
                write_timeout,
                read_timeout,
            } => Self::Fluentd(Fluentd::new(
                transport,
                [*write_timeout, *read_timeout],
                *sub_second,
                *request_ack,
                forward,
            )),
            Destination::Gelf {
                transport,
                compression,
            } => Self::Gelf(Gelf::new(transport, *compression, forward)),
        }
    }

    /// Connects unless it is connected.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        match self {
            Self::Journald(journald) => journald.connect(),
            Self::Syslog(syslog) => syslog.connection.connect(),
            Self::Fluentd(fluentd) => fluentd.connection.connect(),
            Self::Gelf(gelf) => gelf.connection.connect(),
        }
    }

    /// Sends all of them, or fails; then the connection is closed and all are to be sent again. `done` says how many
    /// of them need not be.
    fn send(&mut self, messages: &[Message], done: &mut usize) -> io::Result<()> {
        self.connect()?;
        match self {
            Self::Journald(journald) => journald.send(messages, done),
            Self::Syslog(syslog) => syslog.send(messages, done),
            Self::Fluentd(fluentd) => fluentd.send(messages, done),
            Self::Gelf(gelf) => gelf.send(messages, done),
        }
    }
}

/// Sends until there will be nothing more.
pub(super) fn run(forward: &Forward, mut sender: Sender, queue: &Queue, report: &dyn Fn(Report)) {
    // In a streak of failures, of which the first is told.
    let mut unreachable = false;
    // Dropped, and the other end does not know yet.
    let mut untold = 0;
    while let Some(Taken { messages, dropped }) = queue.take(BATCH) {
        let mut deliver = |messages: &[Message]| {
            let sent = deliver(forward, &mut sender, queue, messages, |error| {
                if !std::mem::replace(&mut unreachable, true) {
                    report(Report::Unreachable(error.to_string()));
                }
            });
            if sent == messages.len() {
                unreachable = false;
            }
            (messages.len() - sent) as u64
        };
        let lost = deliver(&messages);
        queue.done(&messages);
        if dropped + lost > 0 {
            report(Report::Dropped {
                entries: dropped + lost,
            });
            untold += dropped + lost;
        }
        // It stands where the gap is: what was dropped came after these.
        if untold > 0 && lost == 0 && deliver(&[Message::of_dropped(untold, timestamp::now())]) == 0 {
            untold = 0;
        }
    }
}

/// How many of the messages were delivered: all of them, unless patience ends.
fn deliver(
    forward: &Forward,
    sender: &mut Sender,
    queue: &Queue,
    messages: &[Message],
    mut failed: impl FnMut(&io::Error),
) -> usize {
    let mut sent = 0;
    let mut attempts = 0;
    let mut pause = forward.retry_wait;
    loop {
        let mut done = 0;
        let outcome = sender.send(messages.get(sent..).unwrap_or_default(), &mut done);
        if done > 0 {
            (attempts, pause) = (0, forward.retry_wait);
        }
        sent += done;
        match outcome {
            Ok(()) => return messages.len(),
            Err(error) => {
                failed(&error);
                attempts += 1;
                if forward.retries.is_some_and(|most| attempts > most) || !queue.pause(pause) {
                    return sent;
                }
                pause = (pause * 2).min(LONGEST_PAUSE).max(Duration::from_millis(1));
            }
        }
    }
}
