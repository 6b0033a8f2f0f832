//! The loop of a running container, and its end.
//!
//! ```text
//!   Running ──(first process reaped)──> Draining ──(output read, execs and relay reaped, or 2 s)──> Ended ──> gone
//!              cgroup killed                          log, exit record, watchers,                     released, or
//!                                                     cgroup removed                                  5 s without watchers
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cgroup::Cgroup;
use jiff::Timestamp;
use rustix::event::epoll::EventFlags;
use sys::event::Signals;
use sys::process::Exit;

use super::control::Control;
use super::exec::{Exec, Inherited};
use super::launch::Container;
use super::poller::{Part, Poller, Token};
use super::relay::Relay;
use super::session::{Read, Session};
use super::{exit, internal};
use crate::log::{Report, Stream, Trouble, Writer};
use crate::protocol::{Event, ExitRecord, Failed, Launch, Started};
use crate::socket::Listener;
use crate::timestamp;

/// Number of the first process's session.
pub(super) const MAIN: u32 = 1;
/// How much of any stream is moved at a time. One buffer serves all.
const BUFFER: usize = 32 * 1024;
/// How long the output of a dead container may take to end.
const DRAIN: Duration = Duration::from_secs(2);
/// How long an ended container's last output may take to reach its forwarder.
const FORWARDING: Duration = Duration::from_secs(10);
/// How long an ended container's monitor waits for somebody to take note.
const LINGER: Duration = Duration::from_secs(5);

/// What a supervisor is made of.
pub(super) struct Parts {
    pub(super) launch: Launch,
    pub(super) listener: Listener,
    pub(super) signals: Signals,
    pub(super) log: Writer,
    pub(super) cgroup: Cgroup,
    pub(super) container: Container,
}

pub(super) struct Supervisor {
    pub(super) launch: Launch,
    pub(super) cgroup: Cgroup,
    /// From the first of the additional processes on.
    pub(super) inherited: Option<Inherited>,
    pub(super) process: runtime::Running,
    pub(super) started: Started,
    begun: Instant,
    pub(super) signals: Signals,
    pub(super) poller: Poller,
    pub(super) sessions: BTreeMap<u32, Session>,
    pub(super) next_session: u32,
    pub(super) execs: BTreeMap<String, Exec>,
    pub(super) controls: BTreeMap<u32, Control>,
    /// What nobody was there to hear, for the next who watches: a daemon that starts a container begins to watch a moment
    /// later, and one that died is followed by another.
    pub(super) unheard: Vec<Event>,
    pub(super) next_control: u32,
    pub(super) oom_killed: bool,
    pub(super) phase: Phase,
    pub(super) released: bool,
    listener: Option<Listener>,
    log: Writer,
    /// The forwarder that the poller knows.
    forwarder: Option<u32>,
    dns: Option<dns::Server>,
    pub(super) relay: Option<Relay>,
    oom_event: Option<std::os::fd::OwnedFd>,
    oom_kills: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum Phase {
    Running,
    Draining {
        exit: Exit,
        finished_at: Timestamp,
        ran: Duration,
        deadline: Instant,
    },
    Ended {
        record: ExitRecord,
        since: Instant,
    },
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Result<Self, Failed> {
        let Parts {
            launch,
            listener,
            signals,
            log,
            cgroup,
            container,
        } = parts;
        let mut supervisor = Self {
            poller: Poller::new().map_err(|error| internal("wait for events", &error))?,
            // Without it an out-of-memory kill is still seen when the container ends.
            oom_event: cgroup.oom_event_fd().ok().flatten(),
            launch,
            cgroup,
            inherited: None,
            process: container.process,
            started: container.started,
            begun: container.begun,
            signals,
            sessions: BTreeMap::from([(MAIN, container.session)]),
            next_session: MAIN,
            execs: BTreeMap::new(),
            controls: BTreeMap::new(),
            unheard: Vec::new(),
            next_control: 0,
            oom_killed: false,
            phase: Phase::Running,
            released: false,
            listener: Some(listener),
            log,
            forwarder: None,
            dns: container.dns,
            relay: container.relay,
            oom_kills: 0,
            // Never zeroed: only what is read into becomes memory.
            buffer: Vec::with_capacity(BUFFER),
        };
        supervisor
            .watch_fixed()
            .map_err(|error| internal("wait for events", &error))?;
        Ok(supervisor)
    }

    pub(super) fn started(&self) -> Started {
        self.started
    }

    fn watch_fixed(&mut self) -> std::io::Result<()> {
        let input = Some(EventFlags::IN);
        self.poller.want(Token::Signals, &self.signals, input)?;
        if let Some(listener) = &self.listener {
            self.poller.want(Token::Listener, &listener.socket, input)?;
        }
        if let Some(event) = &self.oom_event {
            self.poller.want(Token::OutOfMemory, event, input)?;
        }
        if let Some(dns) = &self.dns {
            self.poller.want(Token::Dns, dns, input)?;
        }
        Ok(())
    }

    /// Runs until the container has ended and nobody needs this process any more.
    pub(super) fn run(&mut self) {
        let mut events = Vec::new();
        // Whatever ended before signals were listened for.
        self.reap();
        // Making the container took more memory, and other code, than waiting for it will.
        sys::memory::release_unused();
        sys::memory::release_code();
        while self.settle() {
            let timeout = self
                .next_deadline()
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if self.poller.wait(timeout, &mut events).is_err() {
                // Epoll fails only for want of memory; the next turn may do better.
                std::thread::sleep(Duration::from_millis(10));
            }
            for (token, flags) in events.drain(..) {
                self.handle(token, flags);
            }
            if self
                .dns
                .as_ref()
                .and_then(dns::Server::next_deadline)
                .is_some_and(|due| due <= Instant::now())
            {
                self.serve_names();
            }
        }
    }

    fn handle(&mut self, token: Token, flags: EventFlags) {
        match token {
            Token::Signals => {
                while let Ok(Some(_)) = self.signals.next() {}
                self.reap();
            }
            Token::Listener => self.accept(),
            Token::OutOfMemory => self.look_for_oom(),
            Token::Dns => self.serve_names(),
            Token::Relay => {
                if let Some(relay) = &mut self.relay {
                    relay.begin();
                }
            }
            Token::Log => self.log.ready(),
            Token::Control(number) => self.control_ready(number, flags),
            Token::Session(number, part) => self.session_ready(number, part, flags),
        }
    }

    fn session_ready(&mut self, number: u32, part: Part, flags: EventFlags) {
        let Some(session) = self.sessions.get_mut(&number) else {
            return;
        };
        match part {
            Part::Listener(listener) => {
                session.listener_ready(listener, flags, &mut self.buffer, &mut self.poller);
            }
            Part::Stdin => session.input_ready(&mut self.poller),
            Part::Terminal | Part::Stdout | Part::Stderr => {
                if flags.contains(EventFlags::OUT) {
                    session.input_ready(&mut self.poller);
                }
                if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                    self.read_output(number, part);
                }
            }
        }
    }

    /// Moves one chunk of output.
    fn read_output(&mut self, number: u32, part: Part) -> Read {
        let Some(session) = self.sessions.get_mut(&number) else {
            return Read::End;
        };
        let log = &mut self.log;
        session.read_output(part, &mut self.buffer, &mut self.poller, |stream, bytes| {
            if number == MAIN {
                log.push(stream, bytes);
            }
        })
    }

    /// Moves all output that is there now.
    pub(super) fn read_all_output(&mut self, number: u32) {
        for part in [Part::Terminal, Part::Stdout, Part::Stderr] {
            while self.read_output(number, part) == Read::Something {}
        }
    }

    fn serve_names(&mut self) {
        if let Some(dns) = &mut self.dns
            && dns.handle_ready().is_err()
        {
            // The resolver is beyond repair; the container goes on without it.
            if let Some(dns) = self.dns.take() {
                let _ = self.poller.want(Token::Dns, &dns, None);
            }
        }
    }

    fn look_for_oom(&mut self) {
        if let Some(event) = &self.oom_event {
            let mut drained = [0u8; 512];
            let _ = rustix::io::read(event, &mut drained);
        }
        let kills = self.cgroup.oom_kills().unwrap_or(self.oom_kills);
        if kills > self.oom_kills {
            self.oom_kills = kills;
            self.oom_killed = true;
            self.tell(&Event::Oom);
        }
    }

    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, exit))) = sys::process::reap_any() {
            if pid == self.process.pid && matches!(self.phase, Phase::Running) {
                self.begin_end(exit);
                continue;
            }
            let is_relay = self.relay.as_mut().is_some_and(|relay| relay.ended(pid, exit));
            if !is_relay {
                self.exec_ended(pid, exit);
            }
        }
    }

    /// The first process is gone: so is everything else.
    fn begin_end(&mut self, exit: Exit) {
        let finished_at = Timestamp::now();
        // A group that cannot be killed (v1 without a freezer) is emptied by the pid namespace's end.
        let _ = self.cgroup.kill_all();
        if let Some(session) = self.sessions.get_mut(&MAIN) {
            session.end_process(&mut self.poller);
        }
        self.end_relay();
        self.phase = Phase::Draining {
            exit,
            finished_at,
            ran: self.begun.elapsed(),
            deadline: Instant::now() + DRAIN,
        };
    }

    /// Does what is due, and says whether there is more to come.
    fn settle(&mut self) -> bool {
        let now = Instant::now();
        self.settle_relay(now);
        self.settle_sessions(now);
        if let Phase::Draining {
            exit,
            finished_at,
            ran,
            deadline,
        } = self.phase
        {
            let output_ended = self.sessions.get(&MAIN).is_none_or(Session::output_ended);
            let execs_ended = self.execs.values().all(|exec| exec.exit_code.is_some());
            let quiet = output_ended && execs_ended && self.relay.as_ref().is_none_or(Relay::is_over);
            if quiet || now >= deadline {
                self.end(exit, finished_at, ran);
                self.settle_sessions(now);
            }
        }
        self.settle_controls();
        let Phase::Ended { since, .. } = &self.phase else {
            return true;
        };
        let since = *since;
        let awaited = self.controls.values().any(|control| control.watching);
        let forgotten = !awaited && now >= since + LINGER;
        if !(self.released || forgotten) {
            return true;
        }
        self.stop_listening();
        // Who is still owed output gets it, within the patience of sessions.
        let forwarding = self.log.has_pending() && now < since + FORWARDING;
        self.sessions.values().any(Session::has_listeners)
            || self.controls.values().any(Control::has_pending)
            || forwarding
    }

    /// Lets the log do what is due, tells what went wrong, and says what is wanted of the forwarder's socket.
    fn settle_log(&mut self) {
        let now = timestamp::steady();
        if self.log.next_look().is_some_and(|look| look <= now) {
            self.log.age(now);
        }
        for trouble in self.log.troubles() {
            match trouble {
                Trouble::Files(message) | Trouble::Forwarder(Report::Failed(message)) => {
                    self.tell(&Event::LogFailed { message });
                }
                Trouble::Forwarder(Report::Unreachable(message)) => {
                    self.tell(&Event::LogUnreachable { message });
                }
                Trouble::Forwarder(Report::Dropped { entries }) => {
                    self.tell(&Event::LogDropped { entries });
                }
                Trouble::Forwarder(Report::Ready) => {}
            }
        }
        let forwarder = self.log.descriptor();
        let number = forwarder.map(|(number, _)| number);
        if self.forwarder != number {
            self.poller.forget(Token::Log);
            self.forwarder = number;
        }
        if let Some((_, socket)) = forwarder {
            let mut wanted = EventFlags::IN;
            if self.log.has_pending() {
                wanted |= EventFlags::OUT;
            }
            let _ = self.poller.want(Token::Log, socket, Some(wanted));
        }
    }

    fn settle_sessions(&mut self, now: Instant) {
        self.settle_log();
        let full = self.log.is_full();
        let mut missing = 0;
        for (number, session) in &mut self.sessions {
            let held_back = full && *number == MAIN;
            missing += session.settle(now, held_back, &mut self.poller).unwrap_or(0);
        }
        for _ in 0..missing {
            self.tell(&Event::ListenerBehind);
        }
        self.sessions
            .retain(|number, session| *number == MAIN || !session.is_done());
    }

    fn end(&mut self, exit: Exit, finished_at: Timestamp, ran: Duration) {
        for number in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.read_all_output(number);
            if let Some(session) = self.sessions.get_mut(&number) {
                session.end_process(&mut self.poller);
                session.close_output(&mut self.poller);
            }
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            self.log.finish(stream);
        }
        self.settle_log();
        // Whoever hears of the end may start the container again, on the same ports.
        if let Some(relay) = self.relay.take() {
            relay.kill();
        }
        self.look_for_oom();
        let record = ExitRecord {
            exit_code: exit.code(),
            signal: match exit {
                Exit::Signal(signal) => Some(signal),
                Exit::Code(_) => None,
            },
            oom_killed: self.oom_killed,
            started_at: self.started.started_at,
            finished_at,
            ran_nanos: u64::try_from(ran.as_nanos()).ok(),
            peak_memory: self.cgroup.peak_memory().ok().flatten(),
        };
        if self.launch.records_exit {
            // On a full disk the record can only be told, not kept; whoever listens now still learns of the exit.
            let _ = exit::write(&self.launch.exit_file, &record);
        }
        self.tell(&Event::Exited(record.clone()));
        self.phase = Phase::Ended {
            record,
            since: Instant::now(),
        };
        // Whoever is attached hears the end before the group is gone, which may take a moment.
        self.settle_sessions(Instant::now());
        self.settle_controls();
        if let Some(event) = self.oom_event.take() {
            let _ = self.poller.want(Token::OutOfMemory, &event, None);
        }
        // What cannot be removed now, the daemon finds and removes.
        let _ = self.launch.cgroup.remove();
        if let Some(dns) = self.dns.take() {
            let _ = self.poller.want(Token::Dns, &dns, None);
        }
    }

    /// Takes the control socket away: a new monitor for the same container may come.
    pub(super) fn stop_listening(&mut self) {
        if let Some(listener) = self.listener.take() {
            let _ = self.poller.want(Token::Listener, &listener.socket, None);
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok((socket, _)) = listener.socket.accept() {
            self.next_control += 1;
            if let Ok(control) = Control::new(socket) {
                self.controls.insert(self.next_control, control);
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.sessions.values().filter_map(Session::deadline);
        let phase = match &self.phase {
            Phase::Running => None,
            Phase::Draining { deadline, .. } => Some(*deadline),
            Phase::Ended { since, .. } => {
                let awaited = self.controls.values().any(|control| control.watching);
                match (awaited, self.released) {
                    (_, true) if self.log.has_pending() => Some(*since + FORWARDING),
                    (false, false) => Some(*since + LINGER),
                    _ => None,
                }
            }
        };
        let names = self.dns.as_ref().and_then(dns::Server::next_deadline);
        let relay = self.relay.as_ref().and_then(Relay::deadline);
        let look = self.log.next_look().map(|look| {
            let left = look.saturating_sub(timestamp::steady());
            Instant::now() + Duration::from_nanos(u64::try_from(left).unwrap_or(0))
        });
        sessions.chain(phase).chain(names).chain(relay).chain(look).min()
    }
}
