//! The process: detaching, the launch handshake, the loop.
//!
//! ```text
//!   main: take the launch socket from descriptor 0 ── fork ──> parent leaves (its parent, the daemon, waits for it)
//!                                                      └─────> own session, subreaper, no descriptor but 0 to 2
//!     receive Launch ─> launch::prepare ─> created ─> started ─> Reply ─> Supervisor::run until the end
//! ```
//!
//! One thread, one epoll, no timer but the wait's own timeout. Nothing here waits for a peer: sockets and pipes are
//! non-blocking, what a peer does not take is kept within bounds. Signals that ask to leave are ignored: the monitor
//! lives as long as its container.

mod backlog;
mod control;
mod exec;
mod exit;
mod launch;
mod listener;
mod poller;
mod relay;
mod session;
mod supervisor;

use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;

use rustix::fs::{Mode, OFlags};

use crate::protocol::{Failed, Launch, Reply};
use crate::wire::{self, Lines};

/// `berth monitor <short id>`, started by [`crate::client::Monitor::stand`] with the launch socket as standard input.
/// The argument is for people who read `ps`. Returns the exit code.
pub fn main() -> i32 {
    match detach() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!(
                "berth monitor: {error} (it is started by the daemon, with a socket as standard input)"
            );
            1
        }
    }
}

/// Leaves the launch socket to a child that goes on as the monitor.
fn detach() -> std::io::Result<()> {
    let inherited = sys::fd::take_inherited(0)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(&inherited, 3)?;
    rustix::net::getsockname(&socket)?;
    drop(inherited);
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    for standard in 0..3 {
        sys::fd::place(null.as_fd(), standard)?;
    }
    // It may itself be one of the three, which stay open for good.
    let _ = null.into_raw_fd();
    // Nothing of the daemon's, not even what it forgot to mark.
    sys::fd::close_all_except(&[socket.as_raw_fd()])?;
    let socket = UnixStream::from(socket);
    sys::process::spawn(sys::process::Options::default(), move || serve(&socket))?;
    Ok(())
}

/// The monitor proper.
fn serve(socket: &UnixStream) -> i32 {
    let outcome = settle()
        .map_err(|error| internal("become independent of the daemon", &error))
        .and_then(|()| {
            let (launch, fds) = Lines::default()
                .receive::<Launch>(socket)
                .map_err(|error| internal("understand what to launch", &error))?;
            launch::start(launch, fds)
        });
    match outcome {
        Ok(mut supervisor) => {
            // A daemon that is gone by now finds the container by its control socket.
            let _ = wire::send(socket, &Reply::Started(supervisor.started()), &[]);
            // The other end may still be read from; this end is of no more use.
            let _ = socket.shutdown(std::net::Shutdown::Both);
            supervisor.run();
            0
        }
        Err(failed) => {
            let _ = wire::send(socket, &Reply::Failed(failed), &[]);
            1
        }
    }
}

fn settle() -> std::io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::thread::set_name(c"berth-monitor")?;
    for signal in sys::event::ASKS_TO_LEAVE {
        sys::event::disregard(*signal)?;
    }
    Ok(())
}

pub(crate) fn internal(action: &str, error: &dyn std::fmt::Display) -> Failed {
    Failed::new(
        spec::ErrorClass::Internal,
        format!("the monitor cannot {action}: {error}"),
    )
}
