//! Filesystems that may take any time until they are there: those of a server, or on a disk that does not answer.
//!
//! The kernel waits for them for minutes, or for ever, and a thread that waits cannot be called back. So a child of the caller
//! waits in its place, and is ended when the patience is over. It only makes the filesystem, in the context that both have;
//! the caller goes on with it, so nothing has to be handed over, and the child does nothing but system calls: the caller may
//! have other threads.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::{Filesystem, Tree};
use crate::fd;
use crate::process::{self, Child};

/// How long the kernel may take to let go of a process that was killed.
const LEAVING: Duration = Duration::from_secs(5);

impl Filesystem {
    /// As [`Filesystem::mount`], or an error of the kind `TimedOut`.
    pub fn mount_within(self, attributes: u64, patience: Duration) -> io::Result<Tree> {
        let create = || match rustix::mount::fsconfig_create(self.context.as_fd()) {
            Ok(()) => 0,
            Err(error) => error.raw_os_error(),
        };
        match within(patience, self.context.as_fd(), create)? {
            0 => self.attached_nowhere(attributes),
            error => Err(self.explain(Errno::from_raw_os_error(error), "")),
        }
    }
}

/// What `run` gives in a child of the caller, unless that takes longer. It must be one of system calls alone, and has no
/// descriptor but `keep`: one that is left to itself must not hold the caller's locks and sockets.
fn within(patience: Duration, keep: BorrowedFd<'_>, run: impl FnOnce() -> i32) -> io::Result<i32> {
    let (result, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child = process::spawn(process::Options::default(), || {
        // Nobody waits for it once the caller has ended.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let _ = fd::close_all_but([keep.as_raw_fd(), told.as_raw_fd()]);
        let _ = rustix::io::write(&told, &run().to_ne_bytes());
        0
    })?;
    drop(told);
    let mut answer = [0; 4];
    let read = match is_ready(&result, patience) {
        Ok(true) => rustix::io::read(&result, &mut answer).map_err(io::Error::from),
        Ok(false) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("no answer within {} s", patience.as_secs()),
        )),
        Err(error) => Err(error),
    };
    end(&child);
    match read? {
        4 => Ok(i32::from_ne_bytes(answer)),
        _ => Err(io::Error::other("the process that was to wait for it was ended")),
    }
}

/// Ends a child that has nothing more to do. One that waits where the kernel cannot be interrupted is left to itself.
fn end(child: &Child) {
    let _ = process::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    if matches!(is_ready(&child.pidfd, LEAVING), Ok(true)) {
        let _ = process::wait(child.pidfd.as_fd());
    }
}

/// Whether there is something to be read within so much time.
fn is_ready(file: &impl AsFd, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut [PollFd::new(file, PollFlags::IN)], Some(&left)) {
            Ok(count) => return Ok(count > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_in_time_is_given_up() {
        let error = within(Duration::from_secs(1), io::stderr().as_fd(), || {
            loop {
                // SAFETY: takes nothing and only waits.
                unsafe { libc::pause() };
            }
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "no answer within 1 s");
    }

    #[test]
    fn what_comes_is_told() {
        let long = Duration::from_secs(100);
        let (kept, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let seen = || {
            i32::from(fd::is_open(kept.as_raw_fd() as u32))
                + 2 * i32::from(fd::is_open(other.as_raw_fd() as u32))
        };
        assert_eq!(
            within(long, kept.as_fd(), seen).unwrap(),
            1,
            "it has what it needs alone"
        );
        let gone = within(long, kept.as_fd(), || process::exit_now(3)).unwrap_err();
        assert!(gone.to_string().contains("was ended"), "{gone}");
    }

    #[test]
    fn a_filesystem_is_made_or_the_kernel_says_why_not() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let long = Duration::from_secs(100);
        let made = Filesystem::new("tmpfs").unwrap().mount_within(0, long).unwrap();
        assert_eq!(rustix::fs::fstatfs(&made).unwrap().f_type as u64, 0x0102_1994);
        let ext4 = Filesystem::new("ext4").unwrap();
        ext4.string("source", "/no/such/device").unwrap();
        let error = ext4.mount_within(0, long).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
