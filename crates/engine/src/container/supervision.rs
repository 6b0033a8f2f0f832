//! A living container's monitor as its owner sees it: what it tells, and whether it answers.
//!
//! A monitor that is held up (stopped, swapped out, in want of a disk) must hold up nobody. It is asked over the stream
//! that its events come through, without waiting; so whatever comes out of that stream says that it is there, and when
//! nothing has come [`PATIENCE`] after a question, its container, and no other, is shown as one whose monitor does not
//! answer. The question stays in the stream: its answer, whenever it comes, ends the silence.
//!
//! A monitor is as old as its container, and says which release it is of. Another one than the daemon's is told in the log
//! once; what it does not understand, or says that nobody here understands, costs nothing else ([`monitor::protocol`]).

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use monitor::client::Monitor;
use monitor::protocol::{Heard, Hello, Request, VERSION};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Container;
use super::age::age;
use super::owner::{Answer, Command, Owner};
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::signal;

/// How long a monitor may take to answer before it is called silent: more than any busy machine needs.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contact {
    /// Found by a daemon that has just started, and asked: until this time nothing is known of it but that it is there.
    Found(Instant),
    Heard,
    /// It is called silent at this time.
    Asked(Instant),
    Silent,
}

/// A running container's monitor and its stream of events.
pub(crate) struct Supervision {
    pub(super) monitor: Arc<Monitor>,
    pub(super) health: Option<JoinHandle<()>>,
    lines: Lines<BufReader<OwnedReadHalf>>,
    questions: OwnedWriteHalf,
    contact: Contact,
    /// Who wants to know whether it answers.
    curious: Vec<Answer<bool>>,
    /// The monitor's own process, where the kernel tells.
    process: Option<i32>,
    /// It was ended because it did not answer.
    ended: bool,
    /// What it has said of itself.
    hello: Option<Hello>,
    /// When it was started, with its container.
    begun: Option<Instant>,
}

impl Supervision {
    /// Of a monitor that has answered on this stream.
    pub(super) fn new(monitor: Monitor, watch: std::os::unix::net::UnixStream) -> Result<Supervision> {
        watch.set_nonblocking(true)?;
        let process = monitor::client::process_of(&watch).ok();
        let begun = process
            .and_then(age)
            .and_then(|age| Instant::now().checked_sub(age));
        let watch = UnixStream::from_std(watch)?;
        let (read, questions) = watch.into_split();
        Ok(Supervision {
            monitor: Arc::new(monitor),
            health: None,
            lines: BufReader::new(read).lines(),
            questions,
            contact: Contact::Heard,
            curious: Vec::new(),
            process,
            ended: false,
            hello: None,
            begun,
        })
    }

    /// Of a monitor that has been asked on this stream and has not answered yet.
    pub(crate) fn asked(monitor: Monitor, watch: std::os::unix::net::UnixStream) -> Result<Supervision> {
        let mut supervision = Supervision::new(monitor, watch)?;
        supervision.contact = Contact::Found(Instant::now() + PATIENCE);
        Ok(supervision)
    }

    /// What the monitor says next; `None` when it is gone.
    pub(super) async fn next(&mut self) -> Option<serde_json::Result<Heard>> {
        let line = self.lines.next_line().await.ok().flatten()?;
        Some(serde_json::from_str(&line))
    }

    fn ask(&mut self) {
        if self.contact != Contact::Heard {
            return;
        }
        self.contact = Contact::Asked(Instant::now() + PATIENCE);
        if let Ok(mut question) = serde_json::to_vec(&Request::Watch) {
            question.push(b'\n');
            // One that is gone ends the stream, and one that has left so much unread is silent.
            let _ = self.questions.try_write(&question);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.contact {
            Contact::Found(until) | Contact::Asked(until) => Some(until),
            Contact::Heard | Contact::Silent => None,
        }
    }

    /// Whether it is known if the container lives: its end may be the first that is heard.
    pub(super) fn is_known(&self) -> bool {
        !matches!(self.contact, Contact::Found(_))
    }

    fn settle(&mut self, contact: Contact) {
        self.contact = contact;
        for answer in self.curious.drain(..) {
            let _ = answer.send(Ok(contact == Contact::Heard));
        }
    }

    /// How long its container has run.
    pub(super) fn ran(&self) -> Option<Duration> {
        self.begun.map(|begun| begun.elapsed())
    }

    pub(super) fn was_ended(&self) -> bool {
        self.ended
    }
}

impl Container {
    /// Refuses what would wait for a monitor in vain.
    pub(crate) fn check_answers(&self) -> Result<()> {
        match self.silent_since {
            Some(_) => Err(Error::new(spec::ErrorClass::Unavailable, self.silence())),
            None => Ok(()),
        }
    }

    /// For people, where the monitor is silent.
    pub fn silence(&self) -> String {
        let since = self.silent_since.unwrap_or_default();
        format!(
            "the monitor of container {} has not answered since {since:.0}: let its process go on if it was stopped, or \
             end the container with `kill` or `rm -f`",
            self.name
        )
    }
}

impl Owner {
    /// Something came from the monitor.
    pub(super) fn heard(&mut self) {
        if let Some(supervision) = &mut self.supervision {
            supervision.settle(Contact::Heard);
        }
        if self.container.silent_since.take().is_some() {
            tracing::info!(container = %self.container.id, "the container's monitor answers again");
            self.publish_only();
        }
    }

    /// Its monitor has said who it is, as it does each time it is asked. Gives whether that is new.
    pub(super) fn met(&mut self, hello: Hello) -> bool {
        let Some(supervision) = &mut self.supervision else {
            return false;
        };
        if supervision.hello.as_ref() == Some(&hello) {
            return false;
        }
        let container = &self.container.id;
        let Hello { version, release } = &hello;
        if *version > VERSION {
            tracing::warn!(
                %container, release, version,
                "the container's monitor is of a later release than this daemon: what it says beyond version {VERSION} is left out"
            );
        } else if hello != Hello::own() {
            tracing::info!(
                %container, release, version,
                "the container goes on with a monitor of another release until it is started anew"
            );
        }
        supervision.hello = Some(hello);
        true
    }

    /// Nothing has come from a monitor that was asked.
    pub(super) fn look_for_silence(&mut self, now: Instant) {
        let Some(supervision) = &mut self.supervision else {
            return;
        };
        if supervision.deadline().is_none_or(|until| until > now) {
            return;
        }
        supervision.settle(Contact::Silent);
        self.container.silent_since = Some(Timestamp::now());
        // Nobody shall wait for what it knows.
        self.engine.execs.all_met(&self.container.id);
        tracing::error!(container = %self.container.id, "{}", self.container.silence());
        self.publish_only();
    }

    pub(super) fn ask_monitor(&mut self, answer: Option<Answer<bool>>) {
        match &mut self.supervision {
            Some(supervision) => {
                supervision.ask();
                supervision.curious.extend(answer);
                match supervision.contact {
                    Contact::Found(_) | Contact::Asked(_) => {}
                    told => supervision.settle(told),
                }
            }
            // It has ended meanwhile, and there is nobody who could be silent.
            None => drop(answer.map(|answer| answer.send(Ok(true)))),
        }
    }

    pub(super) async fn signal(&mut self, number: i32) -> Result<()> {
        let monitor = self.monitor()?;
        let sent = match self.container.check_answers() {
            Ok(()) => blocking(move || monitor.kill(number).map_err(Error::from)).await,
            silent => silent,
        };
        match sent {
            Err(error) if error.class == spec::ErrorClass::Unavailable => {
                self.ask_monitor(None);
                match number {
                    signal::KILL => self.end_monitor(error).await?,
                    _ => return Err(error),
                }
            }
            sent => sent?,
        }
        // The end that it brings is told by this task, after it.
        self.emit_with("kill", [("signal", number.to_string())]);
        Ok(())
    }

    /// What is to be killed and cannot be reached through its monitor is killed with it; the end of the stream tells.
    async fn end_monitor(&mut self, unreachable: Error) -> Result<()> {
        let Some((supervision, process)) = self.supervision.as_mut().and_then(|s| s.process.map(|p| (s, p)))
        else {
            return Err(unreachable);
        };
        tracing::warn!(
            container = %self.container.id,
            process,
            error = %unreachable,
            "killing the container together with its monitor"
        );
        let monitor = Arc::clone(&supervision.monitor);
        supervision.ended = blocking(move || Ok(monitor.end(process)?)).await?;
        Ok(())
    }
}

impl Engine {
    /// Asks every monitor whether it is there; afterwards all that do not answer are shown as silent.
    pub(crate) async fn ask_monitors(&self) {
        let alive = self
            .containers()
            .into_iter()
            .filter(|c| c.state.status.is_alive());
        let handles = alive.filter_map(|container| self.inner.containers.find(container.id.as_str()).ok());
        let asked: Vec<_> = handles
            .map(|handle| tokio::spawn(async move { handle.ask(Command::Contact).await }))
            .collect();
        for answer in asked {
            // One that is gone meanwhile is not silent.
            let _ = answer.await;
        }
    }
}
