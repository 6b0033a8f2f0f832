//! Signals as a readable descriptor, and the signal mask. Epoll, timers and eventfds are safe in rustix already.
//!
//! A signal must be blocked to arrive at the descriptor. The mask is inherited through fork and exec, so whoever
//! starts foreign programs with a blocked mask lifts it first ([`Signals::lifted`]).
//! Source: signalfd(2), sigprocmask(2), signal-safety(7).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A set of signals, blocked for this thread, that arrive at a descriptor instead.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
    set: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals in the calling thread and opens the descriptor, non-blocking and close-on-exec.
    pub fn block(signals: &[i32]) -> io::Result<Self> {
        let set = set_of(signals)?;
        mask(libc::SIG_BLOCK, &set)?;
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else knows.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, set })
    }

    /// The number of the next pending signal, if any.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes into `info`.
        let read = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if read < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        }
        if usize::try_from(read) != Ok(size) {
            return Ok(None);
        }
        // SAFETY: the kernel filled all of it.
        let number = unsafe { info.assume_init() }.ssi_signo;
        Ok(i32::try_from(number).ok())
    }

    /// Runs `f` with these signals unblocked, so that programs started meanwhile have a clean mask. A signal that
    /// arrives meanwhile takes its default course.
    pub fn lifted<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        mask(libc::SIG_UNBLOCK, &self.set)?;
        let value = f();
        mask(libc::SIG_BLOCK, &self.set)?;
        Ok(value)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Signals by which others ask a process to leave, and SIGPIPE, which would make it.
pub const ASKS_TO_LEAVE: &[i32] = &[
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGPIPE,
];

extern "C" fn nothing(_: libc::c_int) {}

/// Makes a signal have no effect on this process, by a handler that does nothing: unlike an ignored signal, a handled
/// one has its default action again in a program that is executed. Calls that are interrupted are not restarted.
pub fn disregard(signal: i32) -> io::Result<()> {
    // SAFETY: all zeroes is a valid sigaction; the handler touches nothing, so it may run at any instruction.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        libc::sigemptyset(&mut action.sa_mask);
        libc::sigaction(signal, &action, std::ptr::null_mut())
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_of(signals: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the whole set.
    let mut set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    };
    for &signal in signals {
        // SAFETY: `set` is initialised; a bad number is refused with EINVAL.
        if unsafe { libc::sigaddset(&mut set, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

fn mask(how: libc::c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: `set` is initialised and the old mask is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_arrives_at_the_descriptor() {
        let signals = Signals::block(&[libc::SIGUSR2]).unwrap();
        assert_eq!(signals.next().unwrap(), None);
        // SAFETY: the signal is blocked in this thread, which is the one it is sent to.
        unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR2) };
        assert_eq!(signals.next().unwrap(), Some(libc::SIGUSR2));
        assert_eq!(signals.next().unwrap(), None);
    }
}
