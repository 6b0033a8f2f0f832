//! Additional processes of the container.

use std::os::fd::{AsFd, OwnedFd};

use spec::ErrorClass;
use spec::runtime::ConsoleSize;
use sys::process::Exit;

use super::internal;
use super::launch;
use super::session::{Ends, Session};
use super::supervisor::{Phase, Supervisor};
use crate::protocol::{Event, ExecRequest, ExecState, Failed, KeptExec, KeptExecs, Launch, Response};

/// Ended execs whose exit codes are kept for asking.
const REMEMBERED: usize = 128;
/// About how many bytes one answer that lists them has.
const PAGE: usize = 64 * 1024;
/// What one has beside its note, at most.
const ENTRY: usize = 256;

#[derive(Debug)]
pub(super) struct Exec {
    pub(super) pid: i32,
    pub(super) session: u32,
    pub(super) exit_code: Option<i32>,
    /// As long as it runs.
    pidfd: Option<OwnedFd>,
    /// Whether a daemon knows of its end.
    told: bool,
    /// For the daemon that asks.
    note: Option<Box<str>>,
}

/// What additional processes have of the container's: read from its configuration, and opened, for the first of them.
pub(super) struct Inherited {
    group: runtime::Membership,
    filter: Option<runtime::seccomp::Prepared>,
    identity: runtime::Identity,
}

impl Inherited {
    fn read(launch: &Launch, cgroup: &cgroup::Cgroup) -> Result<Inherited, Failed> {
        let config = launch::read_config(&launch.bundle)?;
        let document = config.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let filter = document
            .map(|document| runtime::seccomp::prepare(document, launch.seccomp_cache.as_deref()))
            .transpose();
        Ok(Inherited {
            group: runtime::Membership::of(cgroup).map_err(|error| of_launch(&error))?,
            filter: filter.map_err(|error| of_launch(&error))?,
            identity: runtime::Identity::new(&config, &launch.id, &launch.bundle),
        })
    }
}

fn of_launch(error: &runtime::LaunchError) -> Failed {
    Failed {
        message: error.to_string(),
        class: error.class(),
        exit_code: Some(error.exit_code()),
    }
}

impl Supervisor {
    pub(super) fn exec(&mut self, request: ExecRequest, fds: Vec<OwnedFd>) -> Result<Response, Failed> {
        if !matches!(self.phase, Phase::Running) {
            return Err(Failed::new(
                ErrorClass::Conflict,
                format!("container {} is not running", self.launch.id),
            ));
        }
        if self.execs.contains_key(&request.exec_id) {
            return Err(Failed::new(
                ErrorClass::Conflict,
                format!("exec {} was started already", request.exec_id),
            ));
        }
        let inherited = match self.inherited.take() {
            Some(inherited) => inherited,
            None => Inherited::read(&self.launch, &self.cgroup)?,
        };
        let inherited = &*self.inherited.insert(inherited);
        let stream = fds.into_iter().next();
        if request.streams.is_some() != stream.is_some() {
            return Err(Failed::new(
                ErrorClass::Invalid,
                "an attached exec comes with one stream socket",
            ));
        }
        let ExecRequest {
            exec_id,
            mut process,
            tty,
            streams,
            console_size,
            note,
        } = request;
        process.terminal = tty;
        if let Some((height, width)) = console_size {
            process.console_size = Some(ConsoleSize { height, width });
        }
        let (stdio, ends) = if tty {
            (runtime::Stdio::Terminal, Ends::None)
        } else if let Some(streams) = streams {
            launch::pipes(streams.stdin).map_err(|error| internal("make the process's pipes", &error))?
        } else {
            let stdio = launch::no_streams().map_err(|error| internal("open /dev/null", &error))?;
            (stdio, Ends::None)
        };
        let mut running = self
            .signals
            .lifted(|| {
                let exec = runtime::Exec {
                    cgroup: Some(&inherited.group),
                    filter: inherited.filter.as_ref(),
                    identity: inherited.identity.clone(),
                    dies_with_caller: true,
                    ..runtime::Exec::new(self.process.pid, self.process.pidfd.as_fd(), &process, stdio)
                };
                runtime::exec(exec)
            })
            .map_err(|error| internal("set its signal mask", &error))?
            .map_err(|error| Failed {
                message: self.explain(error.to_string()),
                ..of_launch(&error)
            })?;
        let ends = match running.terminal.take() {
            Some(terminal) => {
                if let Some((rows, cols)) = console_size {
                    // A terminal of the wrong size is still a terminal.
                    let _ = sys::terminal::resize(&terminal, rows, cols);
                }
                Ends::Terminal(terminal)
            }
            None => ends,
        };
        let mut session = Session::new(0, ends, true, self.launch.dir().into())
            .map_err(|error| internal("use the process's pipes", &error))?;
        if let (Some(stream), Some(streams)) = (stream, streams) {
            session.attach(stream, streams, tty, true);
        }
        self.next_session += 1;
        session.set_number(self.next_session);
        self.sessions.insert(self.next_session, session);
        let pid = running.pid;
        self.forget_old();
        let exec = Exec {
            pid,
            session: self.next_session,
            exit_code: None,
            pidfd: Some(running.pidfd),
            told: false,
            note: note.map(String::into_boxed_str),
        };
        self.execs.insert(exec_id, exec);
        Ok(Response::ExecStarted { pid })
    }

    /// The kernel says no more than "temporarily unavailable" when a limit is met.
    fn explain(&self, message: String) -> String {
        let Ok(stats) = self.cgroup.stats() else {
            return message;
        };
        match stats.pids.limit {
            Some(limit) if stats.pids.current >= limit => format!(
                "{message}: the container has {} of the {limit} processes that --pids-limit allows",
                stats.pids.current
            ),
            _ => message,
        }
    }

    pub(super) fn exec_resize(&self, exec_id: &str, rows: u16, cols: u16) -> Result<Response, Failed> {
        let exec = self.find(exec_id)?;
        let session = self
            .sessions
            .get(&exec.session)
            .ok_or_else(|| not_running(exec_id))?;
        session
            .resize(rows, cols)
            .map_err(|error| internal("resize the terminal", &error))?;
        Ok(Response::Done)
    }

    pub(super) fn exec_kill(&self, exec_id: &str, signal: i32) -> Result<Response, Failed> {
        let exec = self.find(exec_id)?;
        let process = exec.pidfd.as_ref().ok_or_else(|| not_running(exec_id))?;
        sys::process::send_signal(process.as_fd(), signal)
            .map_err(|error| internal(&format!("send signal {signal}"), &error))?;
        Ok(Response::Done)
    }

    pub(super) fn exec_state(&self, exec_id: &str) -> Result<Response, Failed> {
        let exec = self.find(exec_id)?;
        let state = ExecState {
            running: exec.exit_code.is_none(),
            pid: exec.pid,
            exit_code: exec.exit_code,
        };
        Ok(Response::ExecState(state))
    }

    /// Those behind this one, as many as an answer holds.
    pub(super) fn kept_execs(&mut self, after: u32) -> KeptExecs {
        let mut behind: Vec<(&String, &mut Exec)> = self
            .execs
            .iter_mut()
            .filter(|(_, exec)| exec.session > after)
            .collect();
        behind.sort_by_key(|(_, exec)| exec.session);
        let mut page = KeptExecs {
            execs: Vec::new(),
            more: false,
        };
        let mut size = 0;
        for (id, exec) in behind {
            if size >= PAGE {
                page.more = true;
                break;
            }
            size += ENTRY + exec.note.as_ref().map_or(0, |note| note.len());
            page.execs.push(KeptExec {
                number: exec.session,
                exec_id: id.clone(),
                pid: exec.pid,
                exit_code: exec.exit_code,
                told: exec.told,
                note: exec.note.as_deref().map(str::to_owned),
            });
            exec.told |= exec.exit_code.is_some();
        }
        page
    }

    /// A reaped process that may have been an exec; anything else was an orphan of the container.
    pub(super) fn exec_ended(&mut self, pid: i32, exit: Exit) {
        let found = self
            .execs
            .iter_mut()
            .find(|(_, exec)| exec.pid == pid && exec.exit_code.is_none());
        let Some((exec_id, exec)) = found else { return };
        exec.exit_code = Some(exit.code());
        exec.pidfd = None;
        let (exec_id, number) = (exec_id.clone(), exec.session);
        // All that the process wrote is in its pipes by now. What processes that it left behind may still write is
        // read, so that they are not stopped by it, but nobody waits for it.
        self.read_all_output(number);
        let told = self.tell(&Event::ExecExited {
            exec_id: exec_id.clone(),
            exit_code: exit.code(),
        });
        if let Some(exec) = self.execs.get_mut(&exec_id) {
            exec.told = told;
        }
        if let Some(session) = self.sessions.get_mut(&number) {
            session.end_process(&mut self.poller);
            session.release_listeners();
        }
    }

    fn find(&self, exec_id: &str) -> Result<&Exec, Failed> {
        self.execs
            .get(exec_id)
            .ok_or_else(|| Failed::new(ErrorClass::NotFound, format!("No such exec instance: {exec_id}")))
    }

    fn forget_old(&mut self) {
        while self.execs.len() >= REMEMBERED {
            let oldest = self
                .execs
                .iter()
                .filter(|(_, exec)| exec.exit_code.is_some())
                .min_by_key(|(_, exec)| exec.session);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.execs.remove(&id);
        }
    }
}

fn not_running(exec_id: &str) -> Failed {
    Failed::new(ErrorClass::Conflict, format!("exec {exec_id} is not running"))
}
