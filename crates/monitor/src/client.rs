//! The daemon's side: launching a monitor, and asking one. All calls block, each with a deadline.
//!
//! A [`Monitor`] is only an address; every call opens its own connection, so calls from several threads do not wait
//! for each other. A monitor that is gone is told by [`Failed`] of class Unavailable; whether the container ended or
//! its monitor crashed is then told by the exit record being there or not.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use spec::ErrorClass;
use sys::program::Sealed;

use crate::protocol::{
    AttachStreams, ExecRequest, ExecState, Failed, Launch, Reply, Request, Response, Started, State,
};
use crate::{socket, wire};

/// Creating a container may wait for slow storage and hooks.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(120);
/// Anything else is answered at once, but for an exec, whose start may wait for a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Address of a monitor.
#[derive(Debug, Clone)]
pub struct Monitor {
    run_dir: PathBuf,
    id: String,
}

type Outcome<T> = Result<T, Failed>;

impl Monitor {
    /// Starts a monitor (`<program> monitor <short id>`) and has it start the container. `fds` as [`Launch`] says,
    /// but for the init program, which is the monitor's own. The monitor joins containers to start processes in
    /// them, so its program is a sealed one.
    pub fn launch(program: &Sealed, launch: &Launch, fds: &[BorrowedFd<'_>]) -> Outcome<(Monitor, Started)> {
        let failed = |action: &str, error: io::Error| {
            Failed::new(
                ErrorClass::Internal,
                format!("cannot {action} the monitor of the container: {error}"),
            )
        };
        let init = match launch.init {
            true => Some(
                program
                    .mount()
                    .map_err(|error| failed("open the init program for", error))?,
            ),
            false => None,
        };
        let fds: Vec<BorrowedFd<'_>> = fds
            .iter()
            .copied()
            .chain(init.as_ref().map(AsFd::as_fd))
            .collect();
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed("connect to", error))?;
        let short: String = launch.id.chars().take(12).collect();
        let mut child = program
            .command()
            .arg("monitor")
            .arg(short)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // The allocator's per-thread cache would keep the pages of the start-up from being given back.
            .env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
            .spawn()
            .map_err(|error| failed("start", error))?;
        let asked = ours
            .set_read_timeout(Some(LAUNCH_DEADLINE))
            .and_then(|()| wire::send(&ours, launch, &fds))
            .map_err(|error| failed("ask", error));
        // The process that was started leaves as soon as its child, the monitor proper, stands on its own feet.
        let left = child.wait().map_err(|error| failed("wait for", error));
        asked?;
        let status = left?;
        if !status.success() {
            return Err(failed("start", io::Error::other(status.to_string())));
        }
        let (reply, _) = wire::Lines::default()
            .receive(&ours)
            .map_err(|error| failed("hear from", error))?;
        match reply {
            Reply::Started(started) => Ok((
                Monitor {
                    run_dir: launch.run_dir.clone(),
                    id: launch.id.clone(),
                },
                started,
            )),
            Reply::Failed(failed) => Err(failed),
        }
    }

    /// The monitor of a container that was started earlier; fails when there is none.
    pub fn connect(run_dir: &Path, id: &str) -> Outcome<Monitor> {
        let monitor = Monitor {
            run_dir: run_dir.to_path_buf(),
            id: id.to_owned(),
        };
        monitor.open()?;
        Ok(monitor)
    }

    /// Removes the socket of a monitor that has died.
    pub fn forget(run_dir: &Path, id: &str) -> std::io::Result<()> {
        socket::forget(run_dir, id)
    }

    pub fn state(&self) -> Outcome<State> {
        match self.ask(&Request::State, &[])? {
            Response::State(state) => Ok(state),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a signal to the first process.
    pub fn kill(&self, signal: i32) -> Outcome<()> {
        self.ask_done(&Request::Kill { signal }, &[])
    }

    /// Sets the size of the terminal.
    pub fn resize(&self, rows: u16, cols: u16) -> Outcome<()> {
        self.ask_done(&Request::Resize { rows, cols }, &[])
    }

    /// Joins a stream socket to the container's streams.
    pub fn attach(&self, streams: AttachStreams, stream: BorrowedFd<'_>) -> Outcome<()> {
        self.ask_done(&Request::Attach(streams), &[stream])
    }

    /// Starts an additional process; `stream` goes with `request.streams`. Returns its pid.
    pub fn exec(&self, request: &ExecRequest, stream: Option<BorrowedFd<'_>>) -> Outcome<i32> {
        let fds: Vec<BorrowedFd<'_>> = stream.into_iter().collect();
        match self.ask(&Request::Exec(request.clone()), &fds)? {
            Response::ExecStarted { pid } => Ok(pid),
            other => Err(unexpected(other)),
        }
    }

    pub fn exec_resize(&self, exec_id: &str, rows: u16, cols: u16) -> Outcome<()> {
        self.ask_done(
            &Request::ExecResize {
                exec_id: exec_id.to_owned(),
                rows,
                cols,
            },
            &[],
        )
    }

    pub fn exec_kill(&self, exec_id: &str, signal: i32) -> Outcome<()> {
        self.ask_done(
            &Request::ExecKill {
                exec_id: exec_id.to_owned(),
                signal,
            },
            &[],
        )
    }

    pub fn exec_state(&self, exec_id: &str) -> Outcome<ExecState> {
        match self.ask(
            &Request::ExecState {
                exec_id: exec_id.to_owned(),
            },
            &[],
        )? {
            Response::ExecState(state) => Ok(state),
            other => Err(unexpected(other)),
        }
    }

    /// Events from now on, one JSON [`crate::protocol::Event`] per line, on a socket without deadline. An exit that
    /// has happened already is the first event. End of file without an exit means that the monitor crashed.
    pub fn watch(&self) -> Outcome<UnixStream> {
        let stream = self.open()?;
        wire::send(&stream, &Request::Watch, &[]).map_err(|error| self.unreachable(&error))?;
        // Byte by byte, so that no event is swallowed with the answer.
        let mut line = Vec::new();
        let mut byte = [0u8; 1];
        while byte != [b'\n'] {
            (&stream)
                .read_exact(&mut byte)
                .map_err(|error| self.unreachable(&error))?;
            line.extend_from_slice(&byte);
        }
        match serde_json::from_slice(&line) {
            Ok(Response::Done) => {}
            Ok(other) => return Err(unexpected(other)),
            Err(error) => return Err(self.unreachable(&error.into())),
        }
        stream
            .set_read_timeout(None)
            .map_err(|error| self.unreachable(&error))?;
        Ok(stream)
    }

    /// Lets the monitor of an ended container leave.
    pub fn release(&self) -> Outcome<()> {
        self.ask_done(&Request::Release, &[])
    }

    fn open(&self) -> Outcome<UnixStream> {
        let stream = socket::connect(&self.run_dir, &self.id).map_err(|error| self.unreachable(&error))?;
        stream
            .set_read_timeout(Some(DEADLINE))
            .and_then(|()| stream.set_write_timeout(Some(DEADLINE)))
            .map_err(|error| self.unreachable(&error))?;
        Ok(stream)
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Outcome<Response> {
        let stream = self.open()?;
        wire::send(&stream, request, fds).map_err(|error| self.unreachable(&error))?;
        let (response, _) = wire::Lines::default()
            .receive(&stream)
            .map_err(|error| self.unreachable(&error))?;
        match response {
            Response::Failed(failed) => Err(failed),
            response => Ok(response),
        }
    }

    fn ask_done(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Outcome<()> {
        match self.ask(request, fds)? {
            Response::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failed {
        let reason = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            io::ErrorKind::UnexpectedEof => "it left".to_owned(),
            _ => error.to_string(),
        };
        Failed::new(
            ErrorClass::Unavailable,
            format!("cannot reach the monitor of container {}: {reason}", self.id),
        )
    }
}

fn unexpected(response: Response) -> Failed {
    Failed::new(
        ErrorClass::Internal,
        format!("unexpected answer of the monitor: {response:?}"),
    )
}
