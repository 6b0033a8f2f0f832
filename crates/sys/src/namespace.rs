//! Namespaces: kinds, joining, making, and doing one thing inside one.
//!
//! Joining changes the calling *thread*; the functions that take a closure do it on a thread of their own,
//! which ends with the closure, so that the caller's namespaces never change.
//!
//! Sources: namespaces(7), setns(2) (a pidfd as target: Linux 5.8), unshare(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Pid,
    Network,
    Mount,
    Ipc,
    Uts,
    User,
    Cgroup,
    Time,
}

impl Kind {
    pub const ALL: [Kind; 8] = [
        Kind::Pid,
        Kind::Network,
        Kind::Mount,
        Kind::Ipc,
        Kind::Uts,
        Kind::User,
        Kind::Cgroup,
        Kind::Time,
    ];

    /// The `CLONE_NEW*` flag.
    pub fn flag(self) -> u64 {
        (match self {
            Kind::Pid => libc::CLONE_NEWPID,
            Kind::Network => libc::CLONE_NEWNET,
            Kind::Mount => libc::CLONE_NEWNS,
            Kind::Ipc => libc::CLONE_NEWIPC,
            Kind::Uts => libc::CLONE_NEWUTS,
            Kind::User => libc::CLONE_NEWUSER,
            Kind::Cgroup => libc::CLONE_NEWCGROUP,
            Kind::Time => libc::CLONE_NEWTIME,
        }) as u64
    }

    /// The name below `/proc/<pid>/ns`.
    pub fn proc_name(self) -> &'static str {
        match self {
            Kind::Pid => "pid",
            Kind::Network => "net",
            Kind::Mount => "mnt",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
            Kind::User => "user",
            Kind::Cgroup => "cgroup",
            Kind::Time => "time",
        }
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds(u64);

impl Kinds {
    pub const fn empty() -> Kinds {
        Kinds(0)
    }
    pub fn insert(&mut self, kind: Kind) {
        self.0 |= kind.flag();
    }
    pub fn remove(&mut self, kind: Kind) {
        self.0 &= !kind.flag();
    }
    pub fn contains(self, kind: Kind) -> bool {
        self.0 & kind.flag() != 0
    }
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Kinds {
        let mut set = Kinds::empty();
        for kind in kinds {
            set.insert(kind);
        }
        set
    }
}

/// A handle of a process's namespace; `None` is the calling thread.
pub fn open(pid: Option<i32>, kind: Kind) -> io::Result<OwnedFd> {
    let path = match pid {
        Some(pid) => format!("/proc/{pid}/ns/{}", kind.proc_name()),
        None => format!("/proc/thread-self/ns/{}", kind.proc_name()),
    };
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// Moves the calling thread into the namespace (for pid: its future children). Fails when the descriptor is
/// of another kind.
pub fn join(namespace: BorrowedFd<'_>, kind: Kind) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(
        namespace,
        ThreadNameSpaceType::from_bits_retain(kind.flag() as u32),
    )?)
}

/// Moves the calling thread into several namespaces of the process behind a pidfd at once.
pub fn join_process(pidfd: BorrowedFd<'_>, kinds: Kinds) -> io::Result<()> {
    Ok(rustix::thread::move_into_thread_name_spaces(
        pidfd,
        ThreadNameSpaceType::from_bits_retain(kinds.bits() as u32),
    )?)
}

/// Gives the calling thread fresh namespaces of these kinds.
pub fn unshare(kinds: Kinds) -> io::Result<()> {
    // SAFETY: only `CLONE_NEW*` flags are passed (and CLONE_FS by kernel implication for a mount namespace);
    // the descriptor table stays shared, so no borrowed descriptor of another thread loses its meaning.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::from_bits_retain(kinds.bits() as u32)) }?)
}

/// Whether two handles are the same namespace.
pub fn same(left: impl AsFd, right: impl AsFd) -> io::Result<bool> {
    let (left, right) = (rustix::fs::fstat(left)?, rustix::fs::fstat(right)?);
    Ok((left.st_dev, left.st_ino) == (right.st_dev, right.st_ino))
}

/// Runs `f` on a fresh thread inside the namespace. Not possible for user namespaces (the kernel moves only
/// single-threaded processes) and, for pid namespaces, only children of the thread would be inside.
pub fn in_namespace<T: Send>(
    namespace: BorrowedFd<'_>,
    kind: Kind,
    f: impl FnOnce() -> T + Send,
) -> io::Result<T> {
    on_thread(move || {
        if kind == Kind::Mount {
            // A thread that shares its root and working directory cannot change its mount namespace.
            // SAFETY: CLONE_FS only stops the sharing of root, working directory and umask of this thread.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FS) }?;
        }
        join(namespace, kind)?;
        Ok(f())
    })
}

/// A fresh namespace that nothing is in yet; it lives as long as the handle (or a mount of it).
pub fn create(kind: Kind) -> io::Result<OwnedFd> {
    on_thread(move || {
        unshare([kind].into_iter().collect())?;
        open(None, kind)
    })
}

/// Like `create`, and runs `f` inside before the thread ends.
pub fn create_with<T: Send>(kind: Kind, f: impl FnOnce() -> T + Send) -> io::Result<(OwnedFd, T)> {
    on_thread(move || {
        unshare([kind].into_iter().collect())?;
        let namespace = open(None, kind)?;
        Ok((namespace, f()))
    })
}

fn on_thread<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("namespace".to_owned())
            .stack_size(256 * 1024)
            .spawn_scoped(scope, f)?;
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_inside_a_new_network_namespace_leaves_the_caller_where_it_was() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let before = open(None, Kind::Network).unwrap();
        let created = create(Kind::Network).unwrap();
        assert!(!same(&before, &created).unwrap());
        let inside = in_namespace(created.as_fd(), Kind::Network, || {
            open(None, Kind::Network).unwrap()
        })
        .unwrap();
        assert!(same(&inside, &created).unwrap());
        assert!(same(&before, open(None, Kind::Network).unwrap()).unwrap());
    }

    #[test]
    fn the_kind_of_a_handle_is_checked() {
        let uts = open(None, Kind::Uts).unwrap();
        assert!(in_namespace(uts.as_fd(), Kind::Network, || ()).is_err());
    }
}
