//! Receiving and answering what a filter asks (`SECCOMP_RET_USER_NOTIF`, see [`super::load_with_listener`]).
//!
//! A process under such a filter waits in the system call until somebody answers, so whoever has the listener sees
//! the calls of all of them in one order, before they happen.
//!
//! Sources: seccomp_unotify(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A system call that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    id: u64,
    /// The thread that made the call, as the receiver's pid namespace numbers it; 0 when it does not.
    pub thread: u32,
    /// The number of the call.
    pub call: i64,
    pub arguments: [u64; 6],
}

/// Waits for the next call. `NotFound` when its thread was killed meanwhile, or when no process is under the filter
/// any more; poll(2) tells the latter by `POLLHUP`.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Question> {
    // SAFETY: all fields are integers, for which zero is a value; the kernel demands it.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the request writes one seccomp_notif, and the pointer is to a live one.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut asked,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Question {
        id: asked.id,
        thread: asked.pid,
        call: asked.data.nr.into(),
        arguments: asked.data.args,
    })
}

/// Lets the call happen. A thread that was killed meanwhile needs no answer.
pub fn allow(listener: BorrowedFd<'_>, question: Question) -> io::Result<()> {
    let answer = libc::seccomp_notif_resp {
        id: question.id,
        val: 0,
        error: 0,
        flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
    };
    // SAFETY: the request reads one seccomp_notif_resp, and the pointer is to a live one.
    let result = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw const answer,
        )
    };
    let error = io::Error::last_os_error();
    match result {
        0.. => Ok(()),
        _ if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Instruction, load_with_listener};
    use super::*;
    use crate::process::{self, Exit, Options};
    use std::os::fd::AsFd;
    use std::sync::mpsc;

    #[test]
    fn a_call_waits_for_its_answer() {
        let instruction = |code, jump_true, value| Instruction {
            code,
            jump_true,
            jump_false: 0,
            value,
        };
        // load nr; if == getppid skip one; allow; ask
        let program = [
            instruction(0x20, 0, 0),
            instruction(0x15, 1, libc::SYS_getppid as u32),
            instruction(0x06, 0, 0x7fff_0000),
            instruction(0x06, 0, libc::SECCOMP_RET_USER_NOTIF),
        ];
        let child = process::spawn(Options::default(), || {
            // The asking thread and the answering one share the process, but only one of them the filter.
            let (send, receive_listener) = mpsc::channel();
            let asking = std::thread::spawn(move || {
                if rustix::thread::set_no_new_privs(true).is_err() {
                    return false;
                }
                let Ok(listener) = load_with_listener(&program, 0) else {
                    return false;
                };
                send.send(listener).is_ok() && rustix::process::getppid().is_some()
            });
            let Ok(listener) = receive_listener.recv() else {
                return 1;
            };
            let Ok(question) = receive(listener.as_fd()) else {
                return 2;
            };
            if question.call != libc::SYS_getppid || asking.is_finished() {
                return 3;
            }
            if allow(listener.as_fd(), question).is_err() {
                return 4;
            }
            i32::from(!asking.join().unwrap_or(false)) * 5
        })
        .unwrap();
        assert_eq!(process::wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0));
    }
}
