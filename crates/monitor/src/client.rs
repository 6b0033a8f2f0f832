//! The daemon's side: launching a monitor, and asking one. All calls block, each with a deadline.
//!
//! A monitor may be started before there is something to launch ([`Standing`]), since that takes a while.
//!
//! A [`Monitor`] is only an address; every call opens its own connection, so calls from several threads do not wait
//! for each other. A monitor that is gone is told by [`Failed`] of class Unavailable; whether the container ended or
//! its monitor crashed is then told by the exit record being there or not.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use spec::ErrorClass;
use sys::program::Sealed;

use crate::protocol::{
    AttachStreams, ExecRequest, ExecState, Failed, KeptExec, Launch, Reply, Request, Response, Started, State,
};
use crate::{socket, wire};

/// Creating a container may wait for slow storage and hooks.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(120);
/// The start of an exec may wait for a busy machine.
const EXEC_DEADLINE: Duration = Duration::from_secs(30);
/// How long a process that was killed may take to be gone.
const LEAVING: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};
/// Anything else is answered at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Address of a monitor.
#[derive(Debug, Clone)]
pub struct Monitor {
    run_dir: PathBuf,
    id: String,
}

type Outcome<T> = Result<T, Failed>;

/// A monitor that has no container yet. It leaves when this is dropped.
#[derive(Debug)]
pub struct Standing {
    id: String,
    socket: UnixStream,
    /// Leaves as soon as its child, the monitor proper, stands on its own feet.
    parent: Child,
}

impl Standing {
    /// Waits until it stands on its own feet.
    pub fn wait(&mut self) -> Outcome<()> {
        let status = self.parent.wait().map_err(|error| failed("wait for", error))?;
        match status.success() {
            true => Ok(()),
            false => Err(failed("start", io::Error::other(status.to_string()))),
        }
    }

    /// Whether it is still there.
    pub fn is_there(&self) -> bool {
        let mut there = [PollFd::new(&self.socket, PollFlags::IN)];
        let at_once = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // It says nothing before it is asked: what can be read is the end.
        matches!(rustix::event::poll(&mut there, Some(&at_once)), Ok(0))
    }

    /// Has it start the container; `program` and `fds` as for [`Monitor::launch`].
    pub fn launch(
        self,
        program: &Sealed,
        launch: &Launch,
        fds: &[BorrowedFd<'_>],
    ) -> Outcome<(Monitor, Started)> {
        self.launch_within(LAUNCH_DEADLINE, program, launch, fds)
    }

    fn launch_within(
        mut self,
        patience: Duration,
        program: &Sealed,
        launch: &Launch,
        fds: &[BorrowedFd<'_>],
    ) -> Outcome<(Monitor, Started)> {
        if launch.id != self.id {
            let other = io::Error::other(format!("it stands for {}", self.id));
            return Err(failed("take", other));
        }
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
        let asked = self
            .socket
            .set_read_timeout(Some(patience))
            .and_then(|()| wire::send(&self.socket, launch, &fds))
            .map_err(|error| failed("ask", error));
        let stands = self.wait();
        asked?;
        stands?;
        let monitor = Monitor::at(&launch.run_dir, &launch.id);
        let heard = wire::Lines::default().receive(&self.socket);
        let (reply, _) = heard.map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                monitor.give_up();
                let text = format!(
                    "the container was not up within {} s, and its start was given up",
                    patience.as_secs()
                );
                Failed::new(ErrorClass::Internal, text)
            }
            _ => failed("hear from", error),
        })?;
        match reply {
            Reply::Started(started) => Ok((monitor, started)),
            Reply::Failed(failed) => Err(failed),
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        // It has left by itself, or is about to.
        let _ = self.parent.wait();
    }
}

/// The first line on a stream. It is looked at before it is taken, so that nothing of what follows is taken with it.
fn first_line(mut stream: &UnixStream) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut buffer = [0u8; 512];
    while line.last() != Some(&b'\n') {
        let look = || rustix::net::recv(stream, &mut buffer[..], RecvFlags::PEEK);
        let (_, seen) = rustix::io::retry_on_intr(look)?;
        let seen = buffer.get_mut(..seen).unwrap_or_default();
        let end = seen.iter().position(|byte| *byte == b'\n');
        let taken = match end {
            Some(end) => seen.get_mut(..=end).unwrap_or_default(),
            None => seen,
        };
        if taken.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stream.read_exact(taken)?;
        line.extend_from_slice(taken);
    }
    Ok(line)
}

fn failed(action: &str, error: io::Error) -> Failed {
    Failed::new(
        ErrorClass::Internal,
        format!("cannot {action} the monitor of the container: {error}"),
    )
}

impl Monitor {
    /// Starts a monitor (`<program> monitor <short id>`) and has it start the container. `fds` as [`Launch`] says,
    /// but for the init program, which is the monitor's own. The monitor joins containers to start processes in
    /// them, so its program is a sealed one.
    pub fn launch(program: &Sealed, launch: &Launch, fds: &[BorrowedFd<'_>]) -> Outcome<(Monitor, Started)> {
        Monitor::launch_within(LAUNCH_DEADLINE, program, launch, fds)
    }

    /// The same for whoever waits no longer than this. A monitor that has not answered by then is ended, so that nothing
    /// starts that is taken for not started.
    pub fn launch_within(
        patience: Duration,
        program: &Sealed,
        launch: &Launch,
        fds: &[BorrowedFd<'_>],
    ) -> Outcome<(Monitor, Started)> {
        Monitor::stand(program, &launch.id)?.launch_within(patience, program, launch, fds)
    }

    /// Starts a monitor for a container of this id that is yet to be launched.
    pub fn stand(program: &Sealed, id: &str) -> Outcome<Standing> {
        let (ours, theirs) = UnixStream::pair().map_err(|error| failed("connect to", error))?;
        let parent = program
            .command()
            .arg("monitor")
            .arg(short(id))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // It goes to the root directory by itself: asked to do that for it, the library would copy the daemon's whole
            // address space where it otherwise lends it to the child for a moment.
            //
            // The allocator's per-thread cache would keep the pages of the start-up from being given back.
            .env("GLIBC_TUNABLES", "glibc.malloc.tcache_count=0")
            .spawn()
            .map_err(|error| failed("start", error))?;
        Ok(Standing {
            id: id.to_owned(),
            socket: ours,
            parent,
        })
    }

    /// Ends a monitor that is still about to start its container.
    fn give_up(&self) {
        let process = socket::connect(&self.run_dir, &self.id).and_then(|stream| process_of(&stream));
        if let Ok(process) = process {
            // One that the kernel does not let go ends as soon as that does, before it does anything else.
            let _ = self.end(process);
        }
    }

    /// The monitor of a container that was started earlier; fails when there is none.
    pub fn connect(run_dir: &Path, id: &str) -> Outcome<Monitor> {
        let monitor = Monitor::at(run_dir, id);
        monitor.open(AT_ONCE)?;
        Ok(monitor)
    }

    /// Whether a monitor listens, though it may not answer.
    pub fn is_there(run_dir: &Path, id: &str) -> bool {
        !matches!(socket::connect(run_dir, id), Err(error) if socket::is_deserted(&error))
    }

    /// The monitor of a container that is known to live. Whether it is there shows when it is asked.
    pub fn at(run_dir: &Path, id: &str) -> Monitor {
        Monitor {
            run_dir: run_dir.to_path_buf(),
            id: id.to_owned(),
        }
    }

    /// Like [`Monitor::connect`], and asks for its events without waiting for an answer, which a monitor that is held
    /// up cannot give. The answer is the first [`Heard`] of the stream. `None` when there is no monitor; fails when
    /// that cannot be told.
    pub fn find(run_dir: &Path, id: &str) -> Outcome<Option<(Monitor, UnixStream)>> {
        let monitor = Monitor::at(run_dir, id);
        let stream = match socket::connect(run_dir, id) {
            Ok(stream) => stream,
            Err(error) if socket::is_deserted(&error) => return Ok(None),
            Err(error) => return Err(monitor.unreachable(&error)),
        };
        wire::send(&stream, &Request::Watch, &[]).map_err(|error| monitor.unreachable(&error))?;
        Ok(Some((monitor, stream)))
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

    /// Every additional process that the monitor knows, in the order of their starts. A monitor of an earlier release cannot
    /// tell.
    pub fn execs(&self) -> Outcome<Vec<KeptExec>> {
        let mut all: Vec<KeptExec> = Vec::new();
        loop {
            let after = all.last().map_or(0, |exec| exec.number);
            match self.ask(&Request::Execs { after }, &[])? {
                Response::Execs(page) => {
                    let more = page.more && !page.execs.is_empty();
                    all.extend(page.execs);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Has the monitor serve these published ports; for the ones of these places in the list there is a socket that is
    /// bound there, and it has the sockets of the others. A monitor of an earlier release cannot.
    pub fn relay(&self, ports: &[relay::Port], sockets: &[(usize, BorrowedFd<'_>)]) -> Outcome<()> {
        let request = Request::Relay {
            ports: ports.to_vec(),
            new: sockets.iter().map(|(place, _)| *place).collect(),
        };
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| *socket).collect();
        self.ask_done(&request, &sockets)
    }

    /// Events from now on, one JSON [`crate::protocol::Event`] per line, on a socket without deadline. An exit that
    /// has happened already is the first event. End of file without an exit means that the monitor crashed.
    pub fn watch(&self) -> Outcome<UnixStream> {
        let stream = self.open(AT_ONCE)?;
        wire::send(&stream, &Request::Watch, &[]).map_err(|error| self.unreachable(&error))?;
        let line = first_line(&stream).map_err(|error| self.unreachable(&error))?;
        match serde_json::from_slice(&line) {
            Ok(Response::Done | Response::Watching(_)) => {}
            Ok(other) => return Err(unexpected(other)),
            Err(error) => return Err(self.unreachable(&error.into())),
        }
        stream
            .set_read_timeout(None)
            .map_err(|error| self.unreachable(&error))?;
        Ok(stream)
    }

    /// Ends the monitor's process, which has this number, and with it its container: for one that does not answer.
    /// False when the process is another one by now. Waits for its end, which may take the kernel some time.
    pub fn end(&self, process: i32) -> io::Result<bool> {
        let Some(pid) = Pid::from_raw(process) else {
            return Ok(false);
        };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(false),
            handle => handle?,
        };
        // Read once the process is held: PROGRAM monitor ID
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).skip(1);
        let ours = words.next() == Some(b"monitor") && words.next() == Some(short(&self.id).as_bytes());
        if ours {
            pidfd_send_signal(&handle, Signal::KILL)?;
            let mut gone = [PollFd::new(&handle, PollFlags::IN)];
            rustix::event::poll(&mut gone, Some(&LEAVING))?;
        }
        Ok(ours)
    }

    /// Lets the monitor of an ended container leave.
    pub fn release(&self) -> Outcome<()> {
        self.ask_done(&Request::Release, &[])
    }

    fn open(&self, deadline: Duration) -> Outcome<UnixStream> {
        let stream = socket::connect(&self.run_dir, &self.id).map_err(|error| self.unreachable(&error))?;
        stream
            .set_read_timeout(Some(deadline))
            .and_then(|()| stream.set_write_timeout(Some(deadline)))
            .map_err(|error| self.unreachable(&error))?;
        Ok(stream)
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Outcome<Response> {
        let deadline = match request {
            Request::Exec(_) => EXEC_DEADLINE,
            _ => AT_ONCE,
        };
        let stream = self.open(deadline)?;
        wire::send(&stream, request, fds).map_err(|error| self.unreachable(&error))?;
        let (response, _) = wire::Lines::default()
            .receive(&stream)
            .map_err(|error| self.unreachable(&error))?;
        match response {
            // What cannot be done to a process is told with an exit code.
            Response::Failed(failed)
                if failed.class == ErrorClass::NotImplemented && failed.exit_code.is_none() =>
            {
                Err(self.too_old(failed))
            }
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

    fn too_old(&self, failed: Failed) -> Failed {
        Failed {
            message: format!(
                "the monitor of container {} is of an earlier release and cannot do this ({}); restart the container to \
                 give it a monitor of the present one",
                self.id, failed.message
            ),
            ..failed
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failed {
        let reason = match error.kind() {
            _ if wire::is_unknown(error) => format!("it answers in the words of another release ({error})"),
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

/// The process of the monitor at the other end.
pub fn process_of(stream: &UnixStream) -> io::Result<i32> {
    let peer = rustix::net::sockopt::socket_peercred(stream)?;
    Ok(peer.pid.as_raw_nonzero().get())
}

/// The beginning of an id, as people read it in `ps`.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn unexpected(response: Response) -> Failed {
    Failed::new(
        ErrorClass::Internal,
        format!("unexpected answer of the monitor: {response:?}"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_taken_and_nothing_of_what_follows() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let long = "x".repeat(2_000);
        theirs.write_all(format!("{long}\nnext\n").as_bytes()).unwrap();
        assert_eq!(first_line(&ours).unwrap(), format!("{long}\n").as_bytes());
        assert_eq!(first_line(&ours).unwrap(), b"next\n");
        theirs.write_all(b"cut of").unwrap();
        drop(theirs);
        let error = first_line(&ours).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    /// A monitor that reads one request and gives one answer, whatever was asked.
    fn answering(answer: &'static [u8], ask: impl FnOnce(&Monitor) -> Failed) -> Failed {
        let dir = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef";
        let listener = socket::Listener::bind(dir.path(), id).unwrap();
        listener.socket.set_nonblocking(false).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (stream, _) = listener.socket.accept().unwrap();
                wire::Lines::default()
                    .receive::<serde_json::Value>(&stream)
                    .unwrap();
                sys::fd::send_fds(&stream, answer, &[]).unwrap();
            });
            ask(&Monitor::at(dir.path(), id))
        })
    }

    #[test]
    fn a_monitor_of_another_release_is_named_as_the_reason() {
        let old = br#"{"failed":{"message":"this monitor does not know the request","class":"not_implemented","exit_code":null}}
"#;
        let failed = answering(old, |monitor| monitor.kill(15).unwrap_err());
        assert_eq!(failed.class, ErrorClass::NotImplemented);
        assert!(
            failed.message.contains("earlier release") && failed.message.contains("restart the container"),
            "{failed}"
        );
        let new = b"{\"danced\":{\"on\":\"ice\"}}\n";
        let failed = answering(new, |monitor| monitor.state().unwrap_err());
        assert_eq!(failed.class, ErrorClass::Unavailable);
        assert!(
            failed.message.contains("the words of another release"),
            "{failed}"
        );
    }
}
