//! Execs: another process in a running container.
//!
//! An exec is made, then started once; it is forgotten when its container ends. The monitor is the parent of
//! the process and tells its exit; what is known of it is kept here. From the start on the monitor knows as much, so that a
//! daemon that comes later asks it ([`Owner::meet_execs`]); what was only made is forgotten with the daemon that made it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};

use api_types::ExecCreateRequest;
use monitor::protocol::{AttachStreams, ExecRequest, KeptExec};
use spec::Id;
use spec::runtime::{Process, User};

use super::attach::{Attachment, pair};
use super::owner::{Command, Owner};
use super::security::Security;
use super::{Container, defaults, oci, user, userns};
use crate::engine::{Engine, Inner, blocking};
use crate::error::{Error, Result};
use crate::userns::IdMaps;

/// How often the monitor is asked about an exec that seems to run, and how long its exit is awaited before each time.
const EXIT_PATIENCE: usize = 5;
const EXIT_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);
/// How many bytes of a command line the next daemon gets to know.
const MOST_NOTED: usize = 4096;
/// Stands for the words of a command line that it does not.
const LEFT_OUT: &str = "…";

/// An exec as published.
#[derive(Debug, Clone)]
pub struct Exec {
    pub id: String,
    pub container: Id,
    pub config: ExecCreateRequest,
    pub running: bool,
    pub started: bool,
    /// Known once the process has ended.
    pub exit_code: Option<i64>,
    /// As the host numbers it; 0 before the start.
    pub pid: i32,
}

/// How to start an exec.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    pub detach: bool,
    pub tty: bool,
    /// Rows and columns.
    pub console_size: Option<[u16; 2]>,
    /// Nobody asks for it after this daemon.
    pub internal: bool,
}

/// The first version of what monitors say in which they tell of execs.
const SINCE: u32 = 4;

/// Ended execs of a container that can still be asked about; the oldest are forgotten.
const REMEMBERED: usize = 512;

/// Every exec of the living containers.
#[derive(Default)]
pub(crate) struct Execs {
    table: Mutex<Table>,
    /// Some exec has ended.
    ended: tokio::sync::Notify,
    /// The execs of one container more are known.
    met: tokio::sync::Notify,
}

/// Found by id, and by container without looking at those of others or at those that have ended.
#[derive(Default)]
struct Table {
    by_id: HashMap<String, Arc<Exec>>,
    by_container: HashMap<Id, Ids>,
    /// Containers of which another daemon may have started some that are not here yet.
    unmet: HashSet<Id>,
}

/// A container's execs, each list in the order in which they came to it.
#[derive(Default)]
struct Ids {
    open: Vec<String>,
    ended: VecDeque<String>,
}

impl Execs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Result<Arc<Exec>> {
        self.lock()
            .by_id
            .get(id)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("No such exec instance: {id}")))
    }

    /// The same once all are known that there may be.
    async fn find(&self, id: &str) -> Result<Arc<Exec>> {
        loop {
            let mut met = std::pin::pin!(self.met.notified());
            // From here on nothing is missed.
            met.as_mut().enable();
            let found = self.get(id);
            if found.is_ok() || self.lock().unmet.is_empty() {
                return found;
            }
            met.await;
        }
    }

    fn add(&self, exec: Exec) {
        let mut table = self.lock();
        let ids = table.by_container.entry(exec.container.clone()).or_default();
        ids.open.push(exec.id.clone());
        table.by_id.insert(exec.id.clone(), Arc::new(exec));
    }

    /// Another daemon may have started some in this container, whose monitor is yet to be asked.
    pub(crate) fn expect(&self, container: &Id) {
        self.lock().unmet.insert(container.clone());
    }

    /// Nobody has to wait any longer for this container's.
    pub(super) fn all_met(&self, container: &Id) {
        if self.lock().unmet.remove(container) {
            self.met.notify_waiters();
        }
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Exec)) {
        if let Some(exec) = self.lock().by_id.get_mut(id) {
            change(Arc::make_mut(exec));
        }
    }

    /// The exec has ended, or could not begin. Whether it is known.
    fn end(&self, id: &str, exit_code: i64) -> bool {
        let mut table = self.lock();
        let Table {
            by_id, by_container, ..
        } = &mut *table;
        let Some(exec) = by_id.get_mut(id) else {
            return false;
        };
        let exec = Arc::make_mut(exec);
        exec.running = false;
        exec.exit_code = Some(exit_code);
        let Some(ids) = by_container.get_mut(&exec.container) else {
            return true;
        };
        // Told before, it is in its list already.
        if let Some(place) = ids.open.iter().position(|open| open == id) {
            let id = ids.open.remove(place);
            ids.ended.push_back(id);
        }
        if ids.ended.len() > REMEMBERED
            && let Some(oldest) = ids.ended.pop_front()
        {
            by_id.remove(&oldest);
        }
        true
    }

    /// Those of a container that have not ended.
    fn ids_of(&self, container: &Id) -> Vec<String> {
        let table = self.lock();
        let ids = table.by_container.get(container);
        ids.map(|ids| ids.open.clone()).unwrap_or_default()
    }

    pub(crate) fn container_ended(&self, container: &Id) {
        self.all_met(container);
        let mut table = self.lock();
        let Some(ids) = table.by_container.remove(container) else {
            return;
        };
        for id in ids.open.iter().chain(&ids.ended) {
            table.by_id.remove(id);
        }
    }
}

impl Engine {
    /// Makes an exec; nothing runs yet.
    pub async fn exec_create(&self, name: &str, config: ExecCreateRequest) -> Result<Id> {
        let handle = self.inner.containers.find(name)?;
        let container = handle.snapshot();
        if config.cmd.is_empty() {
            return Err(Error::invalid("No exec command specified"));
        }
        match container.state.status {
            super::Status::Running => {}
            super::Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is paused, unpause the container before exec",
                    container.id
                )));
            }
            _ => return Err(container.not_running()),
        }
        let id = Id::random();
        let command = config.cmd.join(" ");
        let exec = Exec {
            id: id.to_string(),
            container: container.id.clone(),
            config,
            running: false,
            started: false,
            exit_code: None,
            pid: 0,
        };
        self.inner.execs.add(exec);
        handle
            .tell(Command::ExecIds(self.inner.execs.ids_of(&container.id)))
            .await;
        emit(
            &self.inner,
            &container,
            &format!("exec_create: {command}"),
            id.as_str(),
            None,
        );
        Ok(id)
    }

    /// Starts an exec. Gives its streams unless it is detached.
    pub async fn exec_start(&self, id: &str, start: ExecStart) -> Result<Option<Attachment>> {
        let exec = self.inner.execs.find(id).await?;
        let container = self.container(exec.container.as_str())?;
        if !container.state.status.is_alive() {
            return Err(container.not_running());
        }
        let claimed = {
            let mut first = false;
            self.inner
                .execs
                .change(id, |e| first = !std::mem::replace(&mut e.started, true));
            first
        };
        if !claimed {
            return Err(Error::conflict(format!("exec {id} has already run")));
        }
        let tty = exec.config.tty;
        let streams = (!start.detach).then_some(AttachStreams {
            stdin: exec.config.attach_stdin,
            stdout: exec.config.attach_stdout,
            stderr: exec.config.attach_stderr,
        });
        let (socket, ours) = match start.detach {
            true => (None, None),
            false => {
                let (theirs, ours) = pair()?;
                (Some(theirs), Some(ours))
            }
        };
        let size = start.console_size.or_else(|| {
            let [rows, cols] = exec.config.console_size?.0;
            Some([u16::try_from(rows).ok()?, u16::try_from(cols).ok()?])
        });
        let inner = Arc::clone(&self.inner);
        let (request_exec, target) = (Arc::clone(&exec), Arc::clone(&container));
        let started = blocking(move || {
            let process = process(&inner, &target, &request_exec.config)?;
            let console_size = size.map(|[rows, cols]| (rows, cols));
            let request = ExecRequest {
                exec_id: request_exec.id.clone(),
                process,
                tty,
                streams,
                console_size,
                note: (!start.internal).then(|| note(&request_exec.config)).flatten(),
            };
            let socket = socket.as_ref().map(|s| s.as_fd());
            inner
                .monitor_of(&target)?
                .exec(&request, socket)
                .map_err(Error::from)
        })
        .await;
        match started {
            Ok(pid) => {
                // The exit may have been told already; then it stands.
                self.inner.execs.change(id, |e| {
                    e.pid = pid;
                    e.running = e.exit_code.is_none();
                });
                emit(
                    &self.inner,
                    &container,
                    &format!("exec_start: {}", exec.config.cmd.join(" ")),
                    id,
                    None,
                );
                Ok(ours.map(|stream| Attachment {
                    tty,
                    multiplexed: !tty,
                    prefix: None,
                    stream: Some(stream),
                }))
            }
            Err(error) => {
                let code = i64::from(error.exit_code.unwrap_or(126));
                self.inner.execs.end(id, code);
                Err(error)
            }
        }
    }

    /// What is known of an exec. A client whose stream has ended asks at once, and may be faster than the event
    /// that tells the exit; so for one that seems to run that is awaited, for as long as an exit takes, and the monitor
    /// is asked where it does not come.
    pub async fn exec_inspect(&self, id: &str) -> Result<Exec> {
        self.inner.execs.find(id).await?;
        for _ in 0..EXIT_PATIENCE {
            let ended = self.inner.execs.ended.notified();
            let exec = self.inner.execs.get(id)?;
            if !exec.running {
                return Ok(Exec::clone(&exec));
            }
            if tokio::time::timeout(EXIT_PAUSE, ended).await.is_ok() {
                continue;
            }
            let container = self.container(exec.container.as_str())?;
            let (inner, exec_id) = (Arc::clone(&self.inner), id.to_owned());
            let state = blocking(move || Ok(inner.monitor_of(&container)?.exec_state(&exec_id)?)).await;
            if let Ok(Some(code)) = state.map(|state| state.exit_code) {
                self.inner.execs.end(id, i64::from(code));
            }
        }
        Ok(Exec::clone(&*self.inner.execs.get(id)?))
    }

    /// Tells an exec's terminal its size.
    pub async fn exec_resize(&self, id: &str, rows: u16, cols: u16) -> Result<()> {
        let exec = self.inner.execs.find(id).await?;
        if !exec.running {
            return Err(Error::conflict(format!("exec {id} is not running")));
        }
        let container = self.container(exec.container.as_str())?;
        let monitor = self.inner.monitor_of(&container)?;
        blocking(move || monitor.exec_resize(&exec.id, rows, cols).map_err(Error::from)).await
    }
}

/// The process of an exec: the container's own settings, changed by what the exec asks for.
pub(super) fn process(inner: &Inner, container: &Container, config: &ExecCreateRequest) -> Result<Process> {
    let host = &container.host_config;
    let capabilities = defaults::capabilities(
        &host.cap_add,
        &host.cap_drop,
        host.privileged || config.privileged,
    )?;
    let wanted = if config.user.is_empty() {
        &container.config.user
    } else {
        &config.user
    };
    let root = inner.root_of(container)?;
    let identity = user::resolve(root.as_fd(), wanted, &host.group_add)?;
    if let Some(ids) = root.ids() {
        let maps = IdMaps {
            uids: userns::mappings(&ids.uids),
            gids: userns::mappings(&ids.gids),
        };
        let groups = identity.groups.iter().copied();
        maps.check(identity.uid, std::iter::once(identity.gid).chain(groups))?;
    }
    let cwd = [&config.working_dir, &container.config.working_dir]
        .into_iter()
        .find(|d| !d.is_empty());
    let security = Security::parse(&host.security_opt)?;
    Ok(Process {
        terminal: config.tty,
        args: config.cmd.to_vec(),
        env: oci::environment(container, &[], &config.env, &identity.home, config.tty),
        cwd: cwd.cloned().unwrap_or_else(|| "/".to_owned()),
        capabilities: Some(oci::sets(&capabilities, identity.uid == 0)),
        rlimits: oci::rlimits(container)?,
        no_new_privileges: security.no_new_privileges,
        // As it was started, whatever is so of the host and of this release by now.
        apparmor_profile: container.apparmor_profile.clone(),
        selinux_label: container.process_label.clone(),
        user: User {
            uid: identity.uid,
            gid: identity.gid,
            additional_gids: identity.groups,
            ..User::default()
        },
        oom_score_adj: Some(i32::try_from(host.oom_score_adj).unwrap_or(0)),
        ..Process::default()
    })
}

/// What `inspect` shows of an exec, for the daemon that comes next. The monitor keeps it, so a long command line is cut.
fn note(config: &ExecCreateRequest) -> Option<String> {
    let mut length = 0;
    let words = config.cmd.iter();
    let mut cmd: Vec<String> = words
        .take_while(|word| {
            // With its quotes and a comma: empty words count, too.
            length += word.len() + 3;
            length <= MOST_NOTED
        })
        .cloned()
        .collect();
    if cmd.len() < config.cmd.len() {
        cmd.push(LEFT_OUT.to_owned());
    }
    let noted = ExecCreateRequest {
        env: Vec::new().into(),
        // Nobody attaches to it any more.
        detach_keys: Default::default(),
        cmd: cmd.into(),
        ..config.clone()
    };
    // Without it the exec is not known later, which is no reason not to start it.
    serde_json::to_string(&noted).ok()
}

/// An exec that another daemon has started; none where it left no note for others.
fn kept(container: &Id, kept: &KeptExec) -> Option<Exec> {
    Some(Exec {
        id: kept.exec_id.clone(),
        container: container.clone(),
        config: serde_json::from_str(kept.note.as_deref()?).ok()?,
        running: kept.exit_code.is_none(),
        started: true,
        exit_code: kept.exit_code.map(i64::from),
        pid: kept.pid,
    })
}

fn emit(inner: &Inner, container: &Container, action: &str, exec: &str, exit_code: Option<i32>) {
    let mut attributes = container.attributes();
    attributes.insert("execID".to_owned(), exec.to_owned());
    if let Some(code) = exit_code {
        attributes.insert("exitCode".to_owned(), code.to_string());
    }
    inner
        .events
        .publish("container", action, container.id.as_str(), attributes);
}

impl Owner {
    /// Learns of the execs that an earlier daemon has started, and tells of those that ended while there was none.
    pub(super) async fn meet_execs(&mut self, version: u32) {
        let id = self.container.id.clone();
        if !std::mem::take(&mut self.execs_unknown) {
            return;
        }
        let known = match self.monitor() {
            Ok(monitor) if version >= SINCE => blocking(move || Ok(monitor.execs()?)).await,
            Ok(_) => Ok(Vec::new()),
            Err(gone) => Err(gone),
        };
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(container = %id, %error, "execs that an earlier daemon started are not known");
            Vec::new()
        });
        let execs = &self.engine.execs;
        let mut untold = Vec::new();
        for (kept_exec, exec) in known.iter().filter_map(|one| Some((one, kept(&id, one)?))) {
            // One that this daemon has started meanwhile.
            if execs.get(&exec.id).is_ok() {
                continue;
            }
            execs.add(exec);
            if let Some(code) = kept_exec.exit_code {
                execs.end(&kept_exec.exec_id, i64::from(code));
                untold.extend((!kept_exec.told).then_some((&kept_exec.exec_id, code)));
            }
        }
        execs.all_met(&id);
        self.container.exec_ids = execs.ids_of(&id);
        self.publish_only();
        for (exec, code) in untold {
            emit(&self.engine, &self.container, "exec_die", exec, Some(code));
        }
    }

    /// The monitor says that an exec has ended.
    pub(super) fn on_exec_exit(&mut self, id: &str, exit_code: i32) {
        let known = self.engine.execs.end(id, i64::from(exit_code));
        self.engine.execs.ended.notify_waiters();
        if known {
            self.container.exec_ids = self.engine.execs.ids_of(&self.container.id);
            self.publish_only();
            emit(&self.engine, &self.container, "exec_die", id, Some(exit_code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_knows_what_inspect_shows() {
        let config = ExecCreateRequest {
            user: "www".to_owned(),
            tty: true,
            env: vec!["SECRET=1".to_owned()].into(),
            cmd: vec!["sh".to_owned(), "-c".to_owned(), "x".repeat(MOST_NOTED)].into(),
            ..ExecCreateRequest::default()
        };
        let container = Id::random();
        let told = |note| KeptExec {
            number: 1,
            exec_id: "one".to_owned(),
            pid: 7,
            exit_code: Some(3),
            told: false,
            note,
        };
        let exec = kept(&container, &told(note(&config))).unwrap();
        assert_eq!((exec.exit_code, exec.running, exec.pid), (Some(3), false, 7));
        assert_eq!((exec.config.user.as_str(), exec.config.tty), ("www", true));
        assert_eq!(exec.config.cmd.to_vec(), ["sh", "-c", LEFT_OUT]);
        assert!(exec.config.env.is_empty());
        assert!(kept(&container, &told(None)).is_none());
    }

    #[tokio::test]
    async fn who_asks_early_waits_until_the_monitors_have_told() {
        let execs = Arc::new(Execs::default());
        let (one, other) = (Id::random(), Id::random());
        assert!(execs.find("missing").await.is_err());
        execs.expect(&one);
        execs.expect(&other);
        let asking = tokio::spawn({
            let execs = Arc::clone(&execs);
            async move { execs.find("missing").await.is_err() }
        });
        tokio::task::yield_now().await;
        execs.all_met(&one);
        tokio::task::yield_now().await;
        assert!(!asking.is_finished());
        execs.container_ended(&other);
        assert!(asking.await.unwrap());
    }

    #[test]
    fn ended_execs_are_remembered_for_a_while_and_the_open_ones_for_good() {
        let execs = Execs::default();
        let (container, other) = (Id::random(), Id::random());
        let exec = |id: &str, container: &Id| Exec {
            id: id.to_owned(),
            container: container.clone(),
            config: ExecCreateRequest::default(),
            running: true,
            started: true,
            exit_code: None,
            pid: 1,
        };
        execs.add(exec("open", &container));
        execs.add(exec("theirs", &other));
        for number in 0..=REMEMBERED {
            let id = number.to_string();
            execs.add(exec(&id, &container));
            assert!(execs.end(&id, 7) && execs.end(&id, 7));
        }
        assert_eq!(execs.ids_of(&container), ["open"]);
        assert!(execs.get("0").is_err() && !execs.end("0", 1));
        assert_eq!(execs.get("1").unwrap().exit_code, Some(7));
        assert_eq!(execs.lock().by_id.len(), REMEMBERED + 2);
        execs.container_ended(&container);
        assert!(execs.get("open").is_err() && execs.get("1").is_err());
        assert_eq!(execs.ids_of(&other), ["theirs"]);
    }
}
