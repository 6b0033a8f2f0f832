//! The three standard descriptors of the process.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FileType, Uid, makedev};
use sys::terminal::Pair;

use crate::error::{During, LaunchError};
use crate::launch::Stdio;

/// In the child: a session of its own, and descriptors 0 to 2 in place.
pub(crate) fn place(
    stdio: &Stdio,
    terminal: Option<&Pair>,
    size: Option<(u16, u16)>,
) -> Result<(), LaunchError> {
    // Fails for a process group leader only, which a fresh child is not.
    let _ = rustix::process::setsid();
    let fds: [BorrowedFd<'_>; 3] = match (stdio, terminal) {
        (_, Some(pair)) => {
            if let Some((rows, columns)) = size.filter(|size| *size != (0, 0)) {
                sys::terminal::resize(&pair.master, rows, columns).during("set the terminal's size")?;
            }
            sys::terminal::take_controlling(&pair.slave).during("take the terminal")?;
            [pair.slave.as_fd(); 3]
        }
        (
            Stdio::Streams {
                stdin,
                stdout,
                stderr,
            },
            None,
        ) => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        (Stdio::Inherit | Stdio::Terminal, None) => return Ok(()),
    };
    // A stream may itself have one of the three numbers; copies above them cannot be overwritten on the way.
    let copies = fds.map(|fd| rustix::io::fcntl_dupfd_cloexec(fd, 3));
    for (number, copy) in (0..).zip(copies) {
        let copy = copy.during("place the standard streams")?;
        sys::fd::place(copy.as_fd(), number).during("place the standard streams")?;
    }
    Ok(())
}

/// The same as [`give_to`] by the caller, for a process in a user namespace: pipes that were made outside of it belong
/// to nobody inside, and cannot be given away there. Files are left to whom they belong.
pub(crate) fn give_from_outside(stdio: &Stdio, uid: u32) {
    let Stdio::Streams {
        stdin,
        stdout,
        stderr,
    } = stdio
    else {
        return;
    };
    for fd in [stdin, stdout, stderr] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo {
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// Lets the process open its own `/dev/stdout`: pipes and terminals that root made are given to its user.
/// The null device stays root's, and what cannot be given (a socket, a file of a read-only filesystem) is left.
pub(crate) fn give_to(uid: u32) {
    let own = Uid::from_raw(uid);
    for fd in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && stat.st_rdev == makedev(1, 3);
        if stat.st_uid != uid && !null {
            let _ = rustix::fs::fchown(fd, Some(own), None);
        }
    }
}
