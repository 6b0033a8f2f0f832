//! The one task that owns a container's state.
//!
//! Requests reach it through a queue; the monitor's events and the clock are its other inputs. Each command is
//! carried out to its end before the next is looked at, except `stop`, which is a state with a deadline so
//! that a `kill` is never queued behind it. Blocking work runs on the blocking pool.
//!
//! The published snapshot changes only here, in [`Owner::publish`], after the database has it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use monitor::protocol::{Event, ExitRecord, Heard, Hello, Response};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::attach::PendingAttach;
use super::health::OnFailure;
use super::remove::RemoveOptions;
use super::restart::{self, Backoff};
use super::stop::Stopping;
use super::supervision::Supervision;
use super::{Container, Status, health, launch};
use crate::activity::Activity;
use crate::engine::Inner;
use crate::error::{Error, Result};

/// How many requests may wait for one container.
const QUEUE: usize = 64;
/// The exit code told for a container whose monitor vanished without an exit record.
pub(crate) const EXIT_UNKNOWN: i32 = 255;
/// Told for a container that was killed together with its monitor.
const EXIT_KILLED: i32 = 128 + crate::signal::KILL;

pub(super) type Answer<T> = oneshot::Sender<Result<T>>;

/// What may be asked of the owner.
pub(crate) enum Command {
    Start(Answer<bool>),
    Stop {
        signal: Option<String>,
        timeout: Option<i64>,
        answer: Answer<bool>,
    },
    Restart {
        signal: Option<String>,
        timeout: Option<i64>,
        answer: Answer<()>,
    },
    Kill {
        signal: Option<String>,
        answer: Answer<()>,
    },
    Pause(Answer<()>),
    Unpause(Answer<()>),
    Rename {
        name: String,
        answer: Answer<()>,
    },
    Update {
        update: Box<api_types::UpdateConfig>,
        answer: Answer<Vec<String>>,
    },
    Remove {
        options: RemoveOptions,
        answer: Answer<()>,
    },
    /// A stream to be connected when the container starts; answered when it is registered.
    Attach {
        pending: PendingAttach,
        answer: Answer<()>,
    },
    Health(Box<api_types::Health>),
    ExecIds(Vec<String>),
    /// Whether the monitor answers.
    Contact(Answer<bool>),
    /// Tells the monitor once more which published ports it serves.
    Served(Answer<()>),
    Connect {
        network: String,
        settings: Box<api_types::EndpointSettings>,
        answer: Answer<()>,
    },
    Disconnect {
        network: String,
        force: bool,
        answer: Answer<()>,
    },
}

/// The way to a container from everywhere else.
#[derive(Clone)]
pub(crate) struct Handle {
    published: watch::Receiver<Arc<Container>>,
    commands: mpsc::Sender<Command>,
}

impl Handle {
    pub(crate) fn snapshot(&self) -> Arc<Container> {
        Arc::clone(&self.published.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Container>> {
        self.published.clone()
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let (answer, receive) = oneshot::channel();
        let gone = || Error::no_such_container(self.published.borrow().id.as_str());
        self.commands.send(command(answer)).await.map_err(|_| gone())?;
        receive.await.map_err(|_| gone())?
    }

    /// Sends what needs no answer; a container that is gone needs it no more.
    pub(crate) async fn tell(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }
}

pub(super) struct Owner {
    pub(super) engine: Arc<Inner>,
    pub(super) container: Container,
    pub(super) supervision: Option<Supervision>,
    pub(super) stopping: Option<Stopping>,
    pub(super) attaching: Vec<PendingAttach>,
    pub(super) backoff: Backoff,
    pub(super) restart_at: Option<Instant>,
    /// Answered when the container has been started again after a `restart`.
    pub(super) restarting: Vec<Answer<()>>,
    /// Whether the monitor may serve other ports than it should: the last daemon may have died between a change and telling
    /// it, or before what it had told was recorded.
    pub(super) serves_unknown: bool,
    /// Whether an earlier daemon may have started execs that are not known here.
    pub(super) execs_unknown: bool,
    publisher: watch::Sender<Arc<Container>>,
    commands: mpsc::Receiver<Command>,
}

/// Starts the owner of a container that is already in the database, with its monitor if one lives.
pub(crate) fn adopt(engine: &Arc<Inner>, container: Container, supervision: Option<Supervision>) -> Handle {
    let (publisher, published) = watch::channel(Arc::new(container.clone()));
    let (send, commands) = mpsc::channel(QUEUE);
    let owner = Owner {
        engine: Arc::clone(engine),
        container,
        serves_unknown: supervision.is_some(),
        execs_unknown: supervision.is_some(),
        supervision,
        stopping: None,
        attaching: Vec::new(),
        backoff: Backoff::default(),
        restart_at: None,
        restarting: Vec::new(),
        publisher,
        commands,
    };
    let handle = Handle {
        published,
        commands: send,
    };
    engine.tasks.spawn(owner.run(handle.clone()));
    handle
}

impl Command {
    /// What is done about it, for those who look.
    fn action(&self) -> &'static str {
        match self {
            Command::Start(_) => "start",
            Command::Stop { .. } => "stop",
            Command::Restart { .. } => "restart",
            Command::Kill { .. } => "kill",
            Command::Pause(_) => "pause",
            Command::Unpause(_) => "unpause",
            Command::Rename { .. } => "rename",
            Command::Update { .. } => "update",
            Command::Remove { .. } => "remove",
            Command::Attach { .. } => "attach",
            Command::Health(_) | Command::ExecIds(_) | Command::Contact(_) | Command::Served(_) => "note",
            Command::Connect { .. } => "connect",
            Command::Disconnect { .. } => "disconnect",
        }
    }
}

impl Owner {
    async fn run(mut self, handle: Handle) {
        if self.container.state.status.is_alive() {
            self.watch_health(&handle);
        }
        loop {
            let deadlines = [
                self.restart_at,
                self.stopping.as_ref().and_then(|s| s.deadline),
                self.supervision.as_ref().and_then(Supervision::deadline),
            ];
            let deadline = deadlines.into_iter().flatten().min();
            tokio::select! {
                biased;
                () = self.engine.shutdown.cancelled() => return,
                heard = next_heard(&mut self.supervision) => self.on_heard(heard, &handle).await,
                // What is asked of a container waits until it is known whether it lives.
                command = self.commands.recv(), if self.supervision.as_ref().is_none_or(Supervision::is_known) => match command {
                    Some(command) => self.on_command(command, &handle).await,
                    None => return,
                },
                () = sleep_until(deadline) => self.on_deadline(&handle).await,
            }
            if self.container.removed {
                return;
            }
        }
    }

    async fn on_command(&mut self, command: Command, handle: &Handle) {
        let _activity = self.begin(command.action());
        // A client that went away does not need its answer.
        match command {
            Command::Start(answer) => {
                let _ = answer.send(self.start_by_hand(handle).await);
            }
            Command::Stop {
                signal,
                timeout,
                answer,
            } => self.stop(signal.as_deref(), timeout, answer).await,
            Command::Restart {
                signal,
                timeout,
                answer,
            } => self.restart(signal.as_deref(), timeout, answer, handle).await,
            Command::Kill { signal, answer } => {
                let _ = answer.send(self.kill(signal.as_deref()).await);
            }
            Command::Pause(answer) => {
                let _ = answer.send(self.pause().await);
            }
            Command::Unpause(answer) => {
                let _ = answer.send(self.unpause().await);
            }
            Command::Rename { name, answer } => {
                let _ = answer.send(self.rename(name).await);
            }
            Command::Update { update, answer } => {
                let _ = answer.send(self.update(*update).await);
            }
            Command::Remove { options, answer } => {
                let _ = answer.send(self.remove(options).await);
            }
            Command::Attach { pending, answer } => {
                let _ = answer.send(self.attach(pending).await);
            }
            Command::Health(health) => self.on_health(*health, handle).await,
            Command::ExecIds(ids) => {
                self.container.exec_ids = ids;
                self.publish_only();
            }
            Command::Contact(answer) => self.ask_monitor(Some(answer)),
            Command::Served(answer) => {
                self.tell_served().await;
                let _ = answer.send(Ok(()));
            }
            Command::Connect {
                network,
                settings,
                answer,
            } => {
                let _ = answer.send(self.connect(network, *settings).await);
            }
            Command::Disconnect {
                network,
                force,
                answer,
            } => {
                let _ = answer.send(self.disconnect(network, force).await);
            }
        }
    }

    /// Shows what this task does, until the result is dropped.
    pub(super) fn begin(&self, action: &str) -> Activity {
        self.engine
            .activities
            .begin("container", &self.container.name, action)
    }

    /// Writes the state to the database and shows it to everyone.
    pub(super) fn publish(&mut self) -> Result<()> {
        let saved = self.engine.records.save(&self.container);
        self.publish_only();
        saved
    }

    /// Shows a change that need not survive the daemon.
    pub(super) fn publish_only(&mut self) {
        self.publisher.send_replace(Arc::new(self.container.clone()));
    }

    /// Like [`Owner::publish`], where no one waits who could be told of a failure.
    pub(super) fn publish_or_log(&mut self) {
        if let Err(error) = self.publish() {
            tracing::error!(container = %self.container.id, %error, "could not store the container's state");
        }
    }

    /// Of every network the container is on.
    fn emit_networks(&self, action: &str) {
        for network in self.container.networks.keys() {
            self.emit_network(action, network);
        }
    }

    pub(super) fn emit(&self, action: &str) {
        self.emit_with(action, []);
    }

    pub(super) fn emit_with<'a>(&self, action: &str, extra: impl IntoIterator<Item = (&'a str, String)>) {
        let mut attributes = self.container.attributes();
        attributes.extend(extra.into_iter().map(|(k, v)| (k.to_owned(), v)));
        self.engine
            .events
            .publish("container", action, self.container.id.as_str(), attributes);
    }

    pub(super) fn monitor(&self) -> Result<Arc<monitor::client::Monitor>> {
        let supervision = self
            .supervision
            .as_ref()
            .ok_or_else(|| self.container.not_running())?;
        Ok(Arc::clone(&supervision.monitor))
    }

    async fn start_by_hand(&mut self, handle: &Handle) -> Result<bool> {
        match self.container.state.status {
            Status::Running => return Ok(false),
            Status::Paused => {
                return Err(Error::conflict(
                    "cannot start a paused container, try unpause instead",
                ));
            }
            Status::Removing | Status::Dead => {
                return Err(Error::conflict(
                    "container is marked for removal and cannot be started",
                ));
            }
            Status::Created | Status::Exited | Status::Restarting => {}
        }
        self.restart_at = None;
        self.backoff.reset();
        self.container.stopped_by_hand = false;
        self.container.restart_count = 0;
        self.start(handle).await?;
        Ok(true)
    }

    /// Brings the container up. On failure everything that was prepared is taken back, and the error stays
    /// readable in the container's state.
    pub(super) async fn start(&mut self, handle: &Handle) -> Result<()> {
        let attaching = std::mem::take(&mut self.attaching);
        let watch = self.engine.metrics.watch("start");
        let launched = watch.done(
            launch::launch(
                &self.engine,
                &self.container,
                attaching,
                launch::Records::Exit,
                None,
            )
            .await,
        );
        match launched {
            Ok((launched, supervision)) => {
                launched.record(&mut self.container);
                super::mounts::show_places(&self.engine, &mut self.container);
                self.supervision = Some(supervision);
                let state = &mut self.container.state;
                state.status = Status::Running;
                state.exit_code = 0;
                state.oom_killed = false;
                state.error.clear();
                state.health = health::initial(&self.container.config);
                self.publish()?;
                self.emit_networks("connect");
                crate::volumes::emit_of_container(&self.engine, "mount", &self.container);
                self.emit("start");
                self.watch_health(handle);
                Ok(())
            }
            Err(error) => {
                crate::volumes::release(&self.engine, &self.container).await;
                let state = &mut self.container.state;
                state.status = if self.container.exits > 0 {
                    Status::Exited
                } else {
                    Status::Created
                };
                state.pid = 0;
                state.exit_code = error.exit_code.unwrap_or(128);
                state.error = error.message.clone();
                self.container.exits += 1;
                self.publish_or_log();
                if self.container.host_config.auto_remove {
                    self.remove_itself().await;
                }
                Err(error)
            }
        }
    }

    async fn on_heard(&mut self, heard: Option<serde_json::Result<Heard>>, handle: &Handle) {
        if heard.is_some() {
            self.heard();
        }
        match heard {
            Some(Ok(Heard::Event(event))) => self.on_event(event, handle).await,
            Some(Ok(Heard::Answer(Response::Failed(error)))) => {
                tracing::error!(container = %self.container.id, %error, "the container's monitor tells nothing");
                self.engine.execs.all_met(&self.container.id);
            }
            Some(Ok(Heard::Answer(Response::Watching(hello)))) => {
                let version = hello.version;
                if self.met(hello) {
                    self.tell_served().await;
                    self.meet_execs(version).await;
                }
            }
            Some(Ok(Heard::Answer(Response::Done))) => {
                let hello = Hello::first();
                let version = hello.version;
                if self.met(hello) {
                    self.meet_execs(version).await;
                }
            }
            Some(Ok(Heard::Answer(_))) => {}
            Some(Err(error)) => {
                tracing::warn!(container = %self.container.id, %error, "the monitor said something that nobody knows");
                self.engine.execs.all_met(&self.container.id);
            }
            // The monitor is gone. If it left an exit record the container ended; if not, nobody can know.
            None => {
                let record = read_exit_record(&self.exit_file()).unwrap_or_else(|| self.lost());
                self.on_exit(record, handle).await;
            }
        }
    }

    async fn on_event(&mut self, event: Event, handle: &Handle) {
        match event {
            Event::Exited(record) => self.on_exit(record, handle).await,
            Event::Oom => self.emit("oom"),
            Event::ExecExited { exec_id, exit_code } => self.on_exec_exit(&exec_id, exit_code),
            Event::LogFailed { message } => {
                self.engine.metrics.log_failed();
                tracing::error!(container = %self.container.id, %message, "output of the container is being lost");
            }
            Event::LogUnreachable { message } => {
                tracing::warn!(container = %self.container.id, %message, "the container's log cannot be delivered");
            }
            Event::LogDropped { entries } => {
                tracing::warn!(container = %self.container.id, entries, "entries of the container's log were dropped");
            }
            Event::ListenerBehind => {
                tracing::info!(container = %self.container.id, "an attached client takes too little and misses output");
            }
        }
    }

    /// How it ended when no monitor was left to say so.
    pub(super) fn lost(&self) -> ExitRecord {
        let killed = self.supervision.as_ref().is_some_and(Supervision::was_ended);
        let ran = self.supervision.as_ref().and_then(Supervision::ran);
        if !killed {
            self.engine.metrics.monitor_lost();
            tracing::error!(container = %self.container.id, "the container's monitor died; its exit code is unknown");
        }
        ExitRecord {
            exit_code: if killed { EXIT_KILLED } else { EXIT_UNKNOWN },
            signal: killed.then_some(crate::signal::KILL),
            oom_killed: false,
            started_at: self.container.state.started_at.unwrap_or_default(),
            finished_at: Timestamp::now(),
            ran_nanos: ran.and_then(|ran| u64::try_from(ran.as_nanos()).ok()),
            peak_memory: None,
        }
    }

    pub(super) fn exit_file(&self) -> PathBuf {
        self.container.files.dir.join("exit.json")
    }

    /// The first process has ended.
    async fn on_exit(&mut self, record: ExitRecord, handle: &Handle) {
        let _activity = self.begin("end");
        self.take_down(&record).await;
        let again = restart::wants_restart(
            &self.container.host_config.restart_policy,
            record.exit_code,
            self.container.restart_count,
            self.container.stopped_by_hand,
        );
        if again && self.restarting.is_empty() {
            self.container.state.status = Status::Restarting;
            self.restart_at = Some(Instant::now() + self.backoff.after_run(record.ran()));
        }
        self.publish_or_log();
        self.emit_end(&record);
        if let Some(stopping) = self.stopping.take() {
            self.emit("stop");
            stopping.done();
        }
        if !self.restarting.is_empty() {
            return self.start_again(handle).await;
        }
        if self.restart_at.is_none() && self.container.host_config.auto_remove {
            self.remove_itself().await;
        }
    }

    /// Takes away what only a run has, and notes how it ended. What comes after it is for the caller to say and to publish.
    pub(super) async fn take_down(&mut self, record: &ExitRecord) {
        self.container.silent_since = None;
        self.container.unsettled = None;
        if let Some(supervision) = self.supervision.take() {
            if let Some(health) = supervision.health {
                health.abort();
            }
            // The next run's monitor takes this one's place, so it is waited for.
            launch::release(&self.engine, &self.container, supervision.monitor).await;
        }
        launch::detach_networks(&self.engine, &self.container).await;
        self.engine.execs.container_ended(&self.container.id);
        self.container.exec_ids.clear();
        self.container.exits += 1;
        self.container.ports = Arc::new(api_types::PortMap::empty());
        let state = &mut self.container.state;
        state.status = Status::Exited;
        state.pid = 0;
        state.exit_code = record.exit_code;
        state.oom_killed = record.oom_killed;
        state.finished_at = Some(record.finished_at);
        self.emit_networks("disconnect");
        crate::volumes::release(&self.engine, &self.container).await;
        crate::volumes::emit_of_container(&self.engine, "unmount", &self.container);
        for endpoint in self.container.networks.values_mut() {
            launch::clear_endpoint(endpoint);
        }
    }

    pub(super) fn emit_end(&self, record: &ExitRecord) {
        tell_end(&self.engine, &self.container, record);
    }

    async fn on_deadline(&mut self, handle: &Handle) {
        let now = Instant::now();
        self.look_for_silence(now);
        if self.restart_at.is_some_and(|at| at <= now) {
            self.restart_at = None;
            self.container.restart_count += 1;
            self.engine.metrics.restart();
            let _activity = self.begin("restart");
            if let Err(error) = self.start(handle).await {
                tracing::warn!(container = %self.container.id, %error, "could not restart the container");
                let policy = &self.container.host_config.restart_policy;
                let code = self.container.state.exit_code;
                if !self.container.removed
                    && restart::wants_restart(policy, code, self.container.restart_count, false)
                {
                    self.container.state.status = Status::Restarting;
                    self.restart_at = Some(now + self.backoff.after_run(Duration::ZERO));
                    self.publish_or_log();
                }
            }
        }
        if self
            .stopping
            .as_ref()
            .is_some_and(|s| s.deadline.is_some_and(|at| at <= now))
        {
            self.stop_is_overdue().await;
        }
    }

    /// Starts anew after a `restart` ended the last run.
    async fn start_again(&mut self, handle: &Handle) {
        let waiting = std::mem::take(&mut self.restarting);
        self.container.stopped_by_hand = false;
        let started = self.start(handle).await;
        if started.is_ok() {
            self.emit("restart");
        }
        for answer in waiting {
            let _ = answer.send(started.clone());
        }
    }

    async fn restart(
        &mut self,
        signal: Option<&str>,
        timeout: Option<i64>,
        answer: Answer<()>,
        handle: &Handle,
    ) {
        self.restarting.push(answer);
        self.restart_at = None;
        if self.supervision.is_none() {
            return self.start_again(handle).await;
        }
        let (ignored, _) = oneshot::channel();
        self.stop(signal, timeout, ignored).await;
    }

    fn watch_health(&mut self, handle: &Handle) {
        let task = health::watch(&self.engine, &self.container, handle.clone());
        if let Some(supervision) = &mut self.supervision {
            supervision.health = task;
        }
    }

    async fn on_health(&mut self, health: api_types::Health, handle: &Handle) {
        if !self.container.state.status.is_alive() {
            return;
        }
        let before = self.container.state.health.as_ref().map(|h| h.status.clone());
        let changed = before.as_ref() != Some(&health.status);
        let status = health.status.clone();
        self.container.state.health = Some(health);
        if !changed {
            return self.publish_only();
        }
        self.publish_or_log();
        self.emit(&format!("health_status: {status}"));
        if status == "unhealthy" {
            self.on_unhealthy(handle).await;
        }
    }

    /// Does what the container's health check asks for; it has just failed for good.
    async fn on_unhealthy(&mut self, handle: &Handle) {
        let check = self.container.config.healthcheck.as_ref();
        let wanted = check.map_or(Ok(OnFailure::Nothing), OnFailure::of);
        // Nobody waits for an answer: what comes of it is told by events.
        match wanted {
            Ok(OnFailure::Nothing) | Err(_) => {}
            Ok(OnFailure::Kill) => {
                if let Err(error) = self.signal(crate::signal::KILL).await {
                    tracing::error!(container = %self.container.id, %error, "could not kill an unhealthy container");
                }
            }
            Ok(OnFailure::Restart) => self.restart(None, None, oneshot::channel().0, handle).await,
            Ok(OnFailure::Stop) => self.stop(None, None, oneshot::channel().0).await,
        }
    }

    /// Removal because of `--rm`: nobody is there to be told of a failure.
    async fn remove_itself(&mut self) {
        let options = RemoveOptions {
            force: false,
            volumes: true,
            link: false,
        };
        if let Err(error) = self.remove(options).await {
            tracing::error!(container = %self.container.id, %error, "could not remove the container after it ended");
        }
    }
}

/// Tells the end of a run.
pub(crate) fn tell_end(engine: &Inner, container: &Container, record: &ExitRecord) {
    let mut attributes = container.attributes();
    attributes.insert("exitCode".to_owned(), record.exit_code.to_string());
    attributes.insert("execDuration".to_owned(), record.ran().as_secs().to_string());
    // How much of a limit it needed is worth knowing where there is one.
    if let Some(bytes) = record.peak_memory
        && container.host_config.memory > 0
    {
        attributes.insert("peakMemory".to_owned(), bytes.to_string());
    }
    engine
        .events
        .publish("container", "die", container.id.as_str(), attributes);
}

/// The exit record a monitor left behind, if it left one that can be read.
pub(crate) fn read_exit_record(path: &std::path::Path) -> Option<ExitRecord> {
    ExitRecord::read(path).ok().flatten()
}

/// What the monitor says next; `None` when it is gone; never, when there is no monitor.
async fn next_heard(supervision: &mut Option<Supervision>) -> Option<serde_json::Result<Heard>> {
    match supervision {
        Some(supervision) => supervision.next().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
