//! The control socket's address. A unix address holds 107 bytes; a run directory may be deeper, so both sides go
//! through the directory's descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// `<run_dir>/<first 12 characters of the id>.sock`.
pub(crate) fn name_of(id: &str) -> String {
    let short: String = id.chars().take(12).collect();
    format!("{short}.sock")
}

fn open_directory(run_dir: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        run_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

fn through(directory: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
}

/// Never waits: where so many wait to be accepted that no more can, this would block.
pub(crate) fn connect(run_dir: &Path, id: &str) -> io::Result<UnixStream> {
    let directory = open_directory(run_dir)?;
    let address = SocketAddrUnix::new(through(&directory, &name_of(id)))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether a failure of [`connect`] says that nobody listens.
pub(crate) fn is_deserted(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

/// Removes the name of a socket on which nobody listens any more, if it is there.
pub(crate) fn forget(run_dir: &Path, id: &str) -> io::Result<()> {
    match connect(run_dir, id) {
        Ok(_) => return Ok(()),
        Err(error) if is_deserted(&error) => {}
        Err(error) => return Err(error),
    }
    match std::fs::remove_file(run_dir.join(name_of(id))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A listening socket that unlinks its name when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: UnixListener,
    directory: OwnedFd,
    name: String,
}

impl Listener {
    /// Listens, in place of a socket that nobody listens on any more.
    pub(crate) fn bind(run_dir: &Path, id: &str) -> io::Result<Self> {
        let directory = open_directory(run_dir)?;
        let name = name_of(id);
        let address = through(&directory, &name);
        let socket = match UnixListener::bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(&address).is_ok() {
                    return Err(error);
                }
                rustix::fs::unlinkat(&directory, &*name, AtFlags::empty())?;
                UnixListener::bind(&address)?
            }
            other => other?,
        };
        let listener = Self {
            socket,
            directory,
            name,
        };
        rustix::fs::chmodat(
            listener.directory.as_fd(),
            &*listener.name,
            Mode::RUSR | Mode::WUSR,
            AtFlags::empty(),
        )?;
        listener.socket.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing to do about a failure: the next launch replaces a dead socket.
        let _ = rustix::fs::unlinkat(&self.directory, &*self.name, AtFlags::empty());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_directory_a_dead_socket_and_a_live_one() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let id = "0123456789abcdef";
        let first = Listener::bind(&deep, id).unwrap();
        connect(&deep, id).unwrap();
        assert_eq!(
            Listener::bind(&deep, id).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let Listener { socket, .. } = &first;
        let copy = socket.try_clone().unwrap();
        drop(first);
        drop(copy);
        assert!(is_deserted(&connect(&deep, id).unwrap_err()));
        // What a killed process leaves behind.
        let directory = open_directory(&deep).unwrap();
        drop(UnixListener::bind(through(&directory, &name_of(id))).unwrap());
        let _again = Listener::bind(&deep, id).unwrap();
        connect(&deep, id).unwrap();
        forget(&deep, id).unwrap();
        connect(&deep, id).unwrap();
        let dead = "dead56789abc";
        forget(&deep, dead).unwrap();
        drop(UnixListener::bind(through(&directory, &name_of(dead))).unwrap());
        forget(&deep, dead).unwrap();
        assert!(!deep.join(name_of(dead)).exists());
    }

    #[test]
    fn nobody_waits_for_a_listener_that_does_not_accept() {
        let dir = tempfile::tempdir().unwrap();
        let id = "0123456789ab";
        let listener = Listener::bind(dir.path(), id).unwrap();
        rustix::net::listen(&listener.socket, 1).unwrap();
        let mut connected = Vec::new();
        let refused = loop {
            match connect(dir.path(), id) {
                Ok(stream) => connected.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        assert!(!is_deserted(&refused));
        assert!(forget(dir.path(), id).is_err());
        assert!(dir.path().join(name_of(id)).exists());
    }
}
