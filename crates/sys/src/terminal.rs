//! Pseudo terminals: a pair made inside a given devpts instance, its size, taking it as controlling terminal.
//!
//! The pair of a container must come from the container's own devpts, or its `/dev/pts/N` would name a terminal of
//! the host. The slave is opened through the master (TIOCGPTPEER, Linux 4.13) and never by a path that the
//! container could have replaced.
//! Source: pts(4), ioctl_tty(2), Linux Documentation/filesystems/devpts.rst.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

/// Both ends of a terminal.
#[derive(Debug)]
pub struct Pair {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

/// Makes a pair in the devpts instance whose root directory is `devpts`.
pub fn open_in(devpts: BorrowedFd<'_>) -> io::Result<Pair> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?;
    complete(master)
}

/// Makes a pair in the devpts instance of the calling process.
pub fn open() -> io::Result<Pair> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    complete(master)
}

fn complete(master: OwnedFd) -> io::Result<Pair> {
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok(Pair { master, slave })
}

/// Sets the size in characters; the foreground process group gets SIGWINCH when it differs.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// Rows and columns.
pub fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Makes the terminal the controlling one of the calling session leader.
pub fn take_controlling(slave: impl AsFd) -> io::Result<()> {
    Ok(rustix::process::ioctl_tiocsctty(slave)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_to_one_end_comes_out_at_the_other() {
        let Ok(pair) = open() else {
            println!("skipped: no devpts");
            return;
        };
        resize(&pair.master, 40, 132).unwrap();
        assert_eq!(size(&pair.slave).unwrap(), (40, 132));
        rustix::io::write(&pair.slave, b"x\n").unwrap();
        let mut buffer = [0; 8];
        let count = rustix::io::read(&pair.master, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"x\r\n");
    }
}
