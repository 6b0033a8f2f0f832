//! Connections to the control socket: requests answered, events told.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::SendFlags;
use spec::ErrorClass;
use std::os::fd::AsFd;

use super::internal;
use super::poller::Token;
use super::supervisor::{MAIN, Phase, Supervisor};
use crate::protocol::{Event, Failed, Hello, Request, Response, State};
use crate::wire::{self, Filled, Lines};

/// A watcher that takes nothing is dropped when this much is kept for it.
const MOST_PENDING: usize = 256 * 1024;
/// How many events are kept while nobody watches; the first ones, which say how it began.
const MOST_UNHEARD: usize = 64;

#[derive(Debug)]
pub(super) struct Control {
    socket: UnixStream,
    lines: Lines,
    pending: Vec<u8>,
    pub(super) watching: bool,
    /// Ended by the other side, or beyond use.
    closed: bool,
}

impl Control {
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            lines: Lines::default(),
            pending: Vec::new(),
            watching: false,
            closed: false,
        })
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.closed && !self.pending.is_empty()
    }

    fn send(&mut self, line: &[u8]) {
        self.pending.extend_from_slice(line);
        self.flush();
        self.closed |= self.pending.len() > MOST_PENDING;
    }

    fn flush(&mut self) {
        while !self.pending.is_empty() {
            match rustix::net::send(
                &self.socket,
                &self.pending,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
        self.pending = Vec::new();
    }
}

impl Supervisor {
    pub(super) fn control_ready(&mut self, number: u32, flags: EventFlags) {
        let Some(control) = self.controls.get_mut(&number) else {
            return;
        };
        if flags.contains(EventFlags::OUT) {
            control.flush();
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        match control.lines.fill(&control.socket) {
            Ok(Filled::Something) => {}
            Ok(Filled::Nothing) => return,
            Ok(Filled::End) | Err(_) => {
                control.closed = true;
                return;
            }
        }
        loop {
            let Some(control) = self.controls.get_mut(&number) else {
                return;
            };
            match control.lines.next::<Request>() {
                Ok(Some((request, fds))) => self.answer(number, request, fds),
                Ok(None) => return,
                // Of a later release: what it asks next may be known.
                Err(error) if wire::is_unknown(&error) => {
                    let text = format!("this monitor does not know the request: {error}");
                    let failed = Failed::new(ErrorClass::NotImplemented, text);
                    self.reply(number, &Response::Failed(failed));
                }
                Err(error) => {
                    let failed = Failed::new(ErrorClass::Invalid, format!("no such request: {error}"));
                    self.reply(number, &Response::Failed(failed));
                    if let Some(control) = self.controls.get_mut(&number) {
                        control.closed = true;
                    }
                    return;
                }
            }
        }
    }

    fn answer(&mut self, number: u32, request: Request, fds: Vec<OwnedFd>) {
        let watch = matches!(request, Request::Watch);
        let response = self.carry_out(request, fds).unwrap_or_else(Response::Failed);
        self.reply(number, &response);
        if !watch {
            return;
        }
        let ended = match &self.phase {
            Phase::Ended { record, .. } => Some(Event::Exited(record.clone())),
            Phase::Running | Phase::Draining { .. } => None,
        };
        if let Some(control) = self.controls.get_mut(&number) {
            control.watching = true;
            for event in self.unheard.drain(..).chain(ended) {
                if let Ok(line) = wire::line_of(&event) {
                    control.send(&line);
                }
            }
        }
    }

    fn carry_out(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Response, Failed> {
        match request {
            Request::State => Ok(Response::State(self.state())),
            Request::Watch => Ok(Response::Watching(Hello::own())),
            Request::Attach(streams) => {
                let stream = fds.into_iter().next().ok_or_else(|| {
                    Failed::new(ErrorClass::Invalid, "an attach comes with one stream socket")
                })?;
                let tty = self.launch.tty;
                if let Some(session) = self.sessions.get_mut(&MAIN) {
                    session.attach(stream, streams, tty, false);
                }
                Ok(Response::Done)
            }
            Request::Kill { signal } => {
                if !matches!(self.phase, Phase::Running) {
                    return Err(self.launch_not_running());
                }
                sys::process::send_signal(self.process.pidfd.as_fd(), signal)
                    .map_err(|error| internal(&format!("send signal {signal}"), &error))?;
                Ok(Response::Done)
            }
            Request::Resize { rows, cols } => {
                let session = self
                    .sessions
                    .get(&MAIN)
                    .filter(|_| matches!(self.phase, Phase::Running));
                let session = session.ok_or_else(|| self.launch_not_running())?;
                session
                    .resize(rows, cols)
                    .map_err(|error| internal("resize the terminal", &error))?;
                Ok(Response::Done)
            }
            Request::Exec(request) => {
                let response = self.exec(request, fds);
                // The signal of a process that ended while the mask was lifted is lost, so it is looked for.
                self.reap();
                response
            }
            Request::ExecResize { exec_id, rows, cols } => self.exec_resize(&exec_id, rows, cols),
            Request::ExecKill { exec_id, signal } => self.exec_kill(&exec_id, signal),
            Request::ExecState { exec_id } => {
                // Whoever asks may know of the end before its signal was looked at.
                self.reap();
                self.exec_state(&exec_id)
            }
            Request::Execs { after } => {
                self.reap();
                Ok(Response::Execs(self.kept_execs(after)))
            }
            Request::Relay { ports, new } => self.set_relay(ports, new, fds),
            Request::Release => {
                if !matches!(self.phase, Phase::Ended { .. }) {
                    let text = format!("container {} is running", self.launch.id);
                    return Err(Failed::new(ErrorClass::Conflict, text));
                }
                self.released = true;
                // Before the answer, so that whoever has it may start the container again.
                self.stop_listening();
                Ok(Response::Done)
            }
        }
    }

    fn launch_not_running(&self) -> Failed {
        Failed::new(
            ErrorClass::Conflict,
            format!("container {} is not running", self.launch.id),
        )
    }

    fn state(&self) -> State {
        State {
            pid: self.process.pid,
            monitor_pid: rustix::process::getpid().as_raw_nonzero().get(),
            started_at: self.started.started_at,
            oom_killed: self.oom_killed,
            execs: self
                .execs
                .iter()
                .filter(|(_, exec)| exec.exit_code.is_none())
                .map(|(id, _)| id.clone())
                .collect(),
            exited: match &self.phase {
                Phase::Ended { record, .. } => Some(record.clone()),
                Phase::Running | Phase::Draining { .. } => None,
            },
        }
    }

    fn reply(&mut self, number: u32, response: &Response) {
        if let (Some(control), Ok(line)) = (self.controls.get_mut(&number), wire::line_of(response)) {
            control.send(&line);
        }
    }

    /// Tells an event to everyone who watches. Whether somebody does.
    pub(super) fn tell(&mut self, event: &Event) -> bool {
        let Ok(line) = wire::line_of(event) else {
            return false;
        };
        let mut heard = false;
        for control in self.controls.values_mut().filter(|control| control.watching) {
            control.send(&line);
            heard |= !control.closed;
        }
        // Who watches later asks for ends, and is told of the container's anyway.
        let asked_for = matches!(
            event,
            Event::Exited(_) | Event::ExecExited { .. } | Event::ListenerBehind
        );
        if !heard && !asked_for && self.unheard.len() < MOST_UNHEARD {
            self.unheard.push(event.clone());
        }
        heard
    }

    /// Drops connections that have ended and tells the poller what is wanted of the others.
    pub(super) fn settle_controls(&mut self) {
        let poller = &mut self.poller;
        self.controls.retain(|number, control| {
            let token = Token::Control(*number);
            if control.closed {
                let _ = poller.want(token, &control.socket, None);
                return false;
            }
            let writes = if control.pending.is_empty() {
                EventFlags::empty()
            } else {
                EventFlags::OUT
            };
            poller
                .want(token, &control.socket, Some(EventFlags::IN | writes))
                .is_ok()
        });
    }
}
