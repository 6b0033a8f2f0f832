//! Terminals of the command line: handing the master to whoever asked for it, or showing it on our own terminal.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{OptionalActions, Termios};
use sys::event::Signals;
use sys::process::Exit;

use super::error::CliError;

/// Sends the terminal's master over the socket, with a name, as engines expect it.
pub(super) fn hand_over(socket: &Path, master: &OwnedFd) -> Result<(), CliError> {
    UnixStream::connect(socket)
        .and_then(|stream| sys::fd::send_fds(&stream, b"/dev/ptmx", &[master.as_fd()]))
        .map_err(|error| CliError::io(&format!("console socket {}", socket.display()), error))
}

/// Sends a handle of the process over the socket.
pub(super) fn hand_over_process(socket: &Path, process: BorrowedFd<'_>) -> Result<(), CliError> {
    UnixStream::connect(socket)
        .and_then(|stream| sys::fd::send_fds(&stream, b"pidfd", &[process]))
        .map_err(|error| CliError::io(&format!("pidfd socket {}", socket.display()), error))
}

const SIGCHLD: i32 = 17;
const SIGWINCH: i32 = 28;

/// Signals that are the container's rather than ours while we stand in front of it.
const FORWARDED: [i32; 14] = [1, 2, 3, 10, 12, 13, 15, 18, 20, SIGCHLD, SIGWINCH, 23, 29, 30];

/// Before the container exists, so that none is lost.
pub(super) fn take_signals() -> Result<Signals, CliError> {
    Signals::block(&FORWARDED).map_err(|error| CliError::io("signals", error))
}

/// Waits for the process, passes signals on, and with `terminal` shows it on our own terminal.
pub(super) fn attend(
    pidfd: BorrowedFd<'_>,
    terminal: Option<&OwnedFd>,
    signals: &Signals,
) -> Result<Exit, CliError> {
    let raw = terminal.map(|_| Raw::enter());
    if let Some(master) = terminal {
        copy_size(master);
    }
    let result = proxy(pidfd, terminal, signals);
    drop(raw);
    result.map_err(|error| CliError::io("attend the container", error))
}

fn proxy(pidfd: BorrowedFd<'_>, terminal: Option<&OwnedFd>, signals: &Signals) -> io::Result<Exit> {
    let stdin = rustix::stdio::stdin();
    let mut input_open = terminal.is_some();
    let mut output_open = terminal.is_some();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let mut fds = vec![
            PollFd::new(signals, PollFlags::IN),
            PollFd::new(&pidfd, PollFlags::IN),
        ];
        let output_at = terminal.filter(|_| output_open).map(|master| {
            fds.push(PollFd::new(master, PollFlags::IN));
            fds.len() - 1
        });
        let input_at = input_open.then(|| {
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
            fds.len() - 1
        });
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let is = |place: Option<usize>| place.and_then(|place| ready.get(place)).copied().unwrap_or(false);
        drop(fds);
        if let (true, Some(master)) = (is(output_at), terminal) {
            output_open = pass(master.as_fd(), rustix::stdio::stdout(), &mut buffer);
        }
        if let (true, Some(master)) = (is(input_at), terminal) {
            input_open = pass(stdin, master.as_fd(), &mut buffer);
        }
        while let Some(signal) = signals.next()? {
            match signal {
                SIGCHLD => {}
                SIGWINCH => terminal.map_or((), copy_size),
                other => drop(sys::process::send_signal(pidfd, other)),
            }
        }
        if is(Some(1)) && !(output_open && is(output_at)) {
            return sys::process::wait(pidfd);
        }
    }
}

/// One portion; false at the end of either side.
fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    let Ok(count) = rustix::io::read(from, &mut *buffer) else {
        return false;
    };
    let mut rest = buffer.get(..count).unwrap_or_default();
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        match rustix::io::write(to, rest) {
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

fn copy_size(master: &OwnedFd) {
    if let Ok((rows, columns)) = sys::terminal::size(rustix::stdio::stdin()) {
        let _ = sys::terminal::resize(master, rows, columns);
    }
}

/// Our own terminal without echo and line editing; as before when dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Raw {
        let stdin = rustix::stdio::stdin();
        let Ok(before) = rustix::termios::tcgetattr(stdin) else {
            return Raw(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        let set = rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw);
        Raw(set.is_ok().then_some(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = rustix::termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, before);
        }
    }
}
