//! File descriptors: closing ranges of them, handing them to another process, files that live in memory.
//!
//! Every descriptor made here is close-on-exec; every one received is, too (`MSG_CMSG_CLOEXEC`). A message
//! with descriptors whose control part did not fit is an error and its descriptors are closed: nobody keeps
//! a descriptor that he does not know of.
//!
//! Sources: close_range(2) (Linux 5.9, `CLOSE_RANGE_CLOEXEC` 5.11), unix(7), memfd_create(2), fcntl(2).

use std::io;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// How many descriptors one message may carry.
pub const MAX_FDS: usize = 64;

/// Has the kernel begin to write what a file holds in memory, and waits for nothing. Whether that can be done does not
/// count: whoever needs the file to be on the disk syncs it, and hears of failures then (sync_file_range(2)).
#[allow(unsafe_code)]
pub fn begin_writing_back<F: AsFd>(file: F) {
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: a system call without pointers, on a descriptor that is borrowed for as long.
    unsafe {
        libc::sync_file_range(descriptor, 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
}

/// Sends all of `bytes`; `fds` travel with the first byte, and where they are more than one message carries, with those
/// behind it, a message each. There must be a byte for each message.
pub fn send_fds<S: AsFd>(socket: S, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut groups = fds.chunks(MAX_FDS).peekable();
    if groups.len() > bytes.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too few bytes for so many descriptors",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut sent = 0;
    while sent < bytes.len() {
        let mut control = SendAncillaryBuffer::new(&mut space);
        if let Some(group) = groups.peek().copied()
            && !control.push(SendAncillaryMessage::ScmRights(group))
        {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many descriptors",
            ));
        }
        let end = if groups.len() > 1 { sent + 1 } else { bytes.len() };
        let rest = [io::IoSlice::new(&bytes[sent..end])];
        match rustix::net::sendmsg(socket.as_fd(), &rest, &mut control, SendFlags::NOSIGNAL) {
            Ok(count) => {
                sent += count;
                groups.next();
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Receives once into `buffer`; zero bytes mean the end of the stream.
pub fn recv_fds<S: AsFd>(socket: S, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [io::IoSliceMut::new(&mut *buffer)];
        match rustix::net::recvmsg(socket.as_fd(), &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "more descriptors were sent than fit",
        ));
    }
    Ok((received.bytes, fds))
}

/// Closes every descriptor from 3 on that is not in `keep`.
///
/// Only for a process that is about to become another program: whoever still owns one of the closed
/// descriptors as an `OwnedFd` must never drop it (leave with `_exit` or `exec`).
pub fn close_all_except(keep: &[RawFd]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first: u32 = 3;
    for fd in keep {
        let fd = fd as u32;
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// As [`close_all_except`], without taking memory: for a child of a process that has other threads.
pub(crate) fn close_all_but(keep: [RawFd; 2]) -> io::Result<()> {
    let mut keep = keep.map(|fd| fd as u32);
    keep.sort_unstable();
    let mut first: u32 = 3;
    for fd in keep {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, u32::MAX, 0)
}

/// Whether the number stands for an open file.
pub fn is_open(number: u32) -> bool {
    let Ok(number) = RawFd::try_from(number) else {
        return false;
    };
    // SAFETY: F_GETFD takes no argument beside the number and reports a closed one as an error.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn set_cloexec_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: the call takes three integers and touches no memory. That closed descriptors may still be
    // owned somewhere in this process is the documented duty of the callers above.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Places `from` at the number `to`, replacing what is there, without close-on-exec.
pub fn place(from: BorrowedFd<'_>, to: RawFd) -> io::Result<()> {
    if from.as_raw_fd() == to {
        return Ok(rustix::io::fcntl_setfd(from, rustix::io::FdFlags::empty())?);
    }
    // SAFETY: dup2 takes two integers. What was at `to` is replaced: callers pass the standard numbers 0 to 2
    // only, which nothing in this workspace holds as an owned descriptor.
    let result = unsafe { libc::dup2(from.as_raw_fd(), to) };
    if result == to {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes over a descriptor that this process was started with (by number), for example a control socket.
/// Fails when nothing is open there. The descriptor becomes close-on-exec.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open, and by the caller's word nobody else in this process owns it: it was
    // inherited over exec.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(fd)
}

/// A file in memory with these bytes that nobody can change any more.
pub fn sealed_memfd(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    rustix::fs::fcntl_add_seals(
        &fd,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::os::unix::net::UnixStream;

    #[test]
    fn bytes_and_descriptors_arrive_together() {
        let (left, right) = UnixStream::pair().unwrap();
        let file = sealed_memfd("sent", b"content").unwrap();
        send_fds(&left, b"hello", &[file.as_fd(), left.as_fd()]).unwrap();
        let mut buffer = [0; 16];
        let (count, mut fds) = recv_fds(&right, &mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"hello");
        assert_eq!(fds.len(), 2);
        let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        let mut text = String::new();
        let mut received = std::fs::File::from(fds.remove(0));
        received.rewind().unwrap();
        received.read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
    }

    #[test]
    fn more_descriptors_than_a_message_carries_come_in_their_order() {
        let (left, right) = UnixStream::pair().unwrap();
        let files: Vec<OwnedFd> = (0..2 * MAX_FDS + 5)
            .map(|n| sealed_memfd("sent", n.to_string().as_bytes()).unwrap())
            .collect();
        let sent: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        assert!(
            send_fds(&left, b"ab", &sent).is_err(),
            "three messages need three bytes"
        );
        send_fds(&left, b"hello", &sent).unwrap();
        let (mut bytes, mut fds) = (Vec::new(), Vec::new());
        while bytes.len() < 5 {
            let mut buffer = [0; 16];
            let (count, more) = recv_fds(&right, &mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..count]);
            fds.extend(more);
        }
        assert_eq!(bytes, b"hello");
        let texts = fds.into_iter().map(|fd| {
            let mut text = String::new();
            let mut file = std::fs::File::from(fd);
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        assert!(texts.eq((0..files.len()).map(|n| n.to_string())));
    }

    #[test]
    fn a_sealed_file_cannot_be_written() {
        let mut file = std::fs::File::from(sealed_memfd("sealed", b"x").unwrap());
        assert_eq!(file.write(b"y").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(file.set_len(0).is_err());
    }

    #[test]
    fn a_closed_number_cannot_be_taken() {
        assert!(take_inherited(987_654).is_err());
    }
}
