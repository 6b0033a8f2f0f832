//! Namespaces: kinds, joining, making, and doing one thing inside one.
//!
//! Joining changes the calling *thread*; the functions that take a closure do it on a thread of their own,
//! which ends with the closure, so that the caller's namespaces never change.
//!
//! Sources: namespaces(7), setns(2) (a pidfd as target: Linux 5.8), unshare(2), user_namespaces(7), ioctl_ns(2).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use std::os::fd::AsRawFd as _;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags};

use crate::process;

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

/// The kinds in which a process is in another namespace than the calling thread. Of a kind that the kernel does not have
/// there is one for all.
pub fn foreign(pid: i32) -> io::Result<Kinds> {
    let directory = |path: &str| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty())
    };
    let own = directory("/proc/thread-self/ns")?;
    let theirs = directory(&format!("/proc/{pid}/ns"))?;
    let mut kinds = Kinds::empty();
    for kind in Kind::ALL {
        let number = |of: &OwnedFd| {
            let stat = rustix::fs::statat(of, kind.proc_name(), AtFlags::empty());
            stat.map(|stat| (stat.st_dev, stat.st_ino))
        };
        match number(&own) {
            Err(rustix::io::Errno::NOENT) => {}
            own if own? == number(&theirs)? => {}
            _ => kinds.insert(kind),
        }
    }
    Ok(kinds)
}

/// Whether all ids of the host are the caller's, as they are in the first user namespace only.
pub fn in_initial_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        // A kernel without user namespaces has one for all.
        return true;
    };
    id_range(&map).is_some_and(|range| {
        let whole = IdRange {
            inside: 0,
            outside: 0,
            count: u32::MAX,
        };
        range == whole
    })
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

/// Which kind of namespace a file is; `None` where it is none.
pub fn kind_of(file: BorrowedFd<'_>) -> io::Result<Option<Kind>> {
    const NS_GET_NSTYPE: libc::c_ulong = 0xb703;
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    // The number of the request may be another's for other files.
    if rustix::fs::fstatfs(file)?.f_type != NSFS_MAGIC {
        return Ok(None);
    }
    // SAFETY: the request takes no argument and gives a number.
    let flag = match unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) } {
        -1 => return Err(io::Error::last_os_error()),
        flag => u64::from(flag.unsigned_abs()),
    };
    Ok(Kind::ALL.into_iter().find(|kind| kind.flag() == flag))
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

/// A range of ids of a user namespace: `count` ids from `inside` on are those from `outside` on in the namespace above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// A user namespace that nobody is in, and namespaces that belong to it.
#[derive(Debug)]
pub struct Owned {
    pub user: OwnedFd,
    /// In the order they were asked for.
    pub others: Vec<OwnedFd>,
}

/// Makes a user namespace with these maps, and namespaces of the kinds in `others` that it owns. They live as long
/// as their handles. The caller may have other threads: the process that is cloned for it does nothing but wait.
pub fn create_user(uids: &[IdRange], gids: &[IdRange], others: &[Kind]) -> io::Result<Owned> {
    let mut namespaces: Kinds = others.iter().copied().collect();
    namespaces.insert(Kind::User);
    let options = process::Options {
        namespaces,
        ..process::Options::default()
    };
    let holder = process::spawn(options, || {
        // It may only make system calls: another thread may have held any lock when it was cloned. Should the
        // caller end before it does, so does this.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        loop {
            // SAFETY: takes nothing and only waits.
            unsafe { libc::pause() };
        }
    })?;
    let made = map_and_open(holder.pid, uids, gids, others);
    process::send_signal(holder.pidfd.as_fd(), libc::SIGKILL)?;
    process::wait(holder.pidfd.as_fd())?;
    made
}

/// Makes namespaces of these kinds that belong to a user namespace. As with [`create_user`], the caller may have other
/// threads.
pub fn create_in(user: BorrowedFd<'_>, kinds: &[Kind]) -> io::Result<Vec<OwnedFd>> {
    with_member(user, kinds, |pid| {
        kinds.iter().map(|kind| open(Some(pid), *kind)).collect()
    })
}

/// The maps of a user namespace, as the caller's own sees them: of users and of groups.
pub fn maps_in(user: BorrowedFd<'_>) -> io::Result<(Vec<IdRange>, Vec<IdRange>)> {
    with_member(user, &[], maps_of)
}

/// Looks at a process that is in a user namespace and in new namespaces of these kinds.
fn with_member<T>(
    user: BorrowedFd<'_>,
    kinds: &[Kind],
    look: impl FnOnce(i32) -> io::Result<T>,
) -> io::Result<T> {
    let (result, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let holder = process::spawn(process::Options::default(), || {
        // System calls only, as above.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let made = join(user, Kind::User).and_then(|()| unshare(kinds.iter().copied().collect()));
        let error = made.err().and_then(|error| error.raw_os_error()).unwrap_or(0);
        let _ = rustix::io::write(&told, &error.to_ne_bytes());
        loop {
            // SAFETY: takes nothing and only waits.
            unsafe { libc::pause() };
        }
    })?;
    let mut error = [0; 4];
    let found = match rustix::io::read(&result, &mut error) {
        Ok(_) if error == [0; 4] => look(holder.pid),
        Ok(_) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(error))),
        Err(error) => Err(error.into()),
    };
    process::send_signal(holder.pidfd.as_fd(), libc::SIGKILL)?;
    process::wait(holder.pidfd.as_fd())?;
    found
}

fn map_and_open(pid: i32, uids: &[IdRange], gids: &[IdRange], others: &[Kind]) -> io::Result<Owned> {
    for (file, map) in [("uid_map", uids), ("gid_map", gids)] {
        let lines: String = map
            .iter()
            .map(|range| format!("{} {} {}\n", range.inside, range.outside, range.count))
            .collect();
        // The kernel takes the whole map in one write only.
        std::fs::write(format!("/proc/{pid}/{file}"), &lines).map_err(|error| {
            let text = format!("write {file} {:?}: {error}", lines.trim_end());
            io::Error::new(error.kind(), text)
        })?;
    }
    Ok(Owned {
        user: open(Some(pid), Kind::User)?,
        others: others
            .iter()
            .map(|kind| open(Some(pid), *kind))
            .collect::<io::Result<_>>()?,
    })
}

/// The user namespace that a namespace belongs to.
pub fn owner(namespace: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the request takes no argument and gives a new descriptor (close-on-exec) or -1.
    unsafe {
        match libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(std::os::fd::FromRawFd::from_raw_fd(fd)),
        }
    }
}

/// The maps of a process's user namespace, as the caller's own sees them: of users and of groups.
pub fn maps_of(pid: i32) -> io::Result<(Vec<IdRange>, Vec<IdRange>)> {
    let read = |file: &str| -> io::Result<Vec<IdRange>> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}"))?;
        Ok(text.lines().filter_map(id_range).collect())
    };
    Ok((read("uid_map")?, read("gid_map")?))
}

fn id_range(line: &str) -> Option<IdRange> {
    let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
    Some(IdRange {
        inside: numbers.next()??,
        outside: numbers.next()??,
        count: numbers.next()??,
    })
}

/// What an id of a user namespace is outside.
pub fn outside(map: &[IdRange], id: u32) -> Option<u32> {
    map.iter()
        .find(|range| id >= range.inside && id - range.inside < range.count)
        .and_then(|range| range.outside.checked_add(id - range.inside))
}

/// What an id from outside is in a user namespace.
pub fn inside(map: &[IdRange], id: u32) -> Option<u32> {
    map.iter()
        .find(|range| id >= range.outside && id - range.outside < range.count)
        .and_then(|range| range.inside.checked_add(id - range.outside))
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

    const SHIFTED: [IdRange; 2] = [
        IdRange {
            inside: 0,
            outside: 300_000,
            count: 1000,
        },
        IdRange {
            inside: 1000,
            outside: 7,
            count: 1,
        },
    ];

    #[test]
    fn ids_go_through_a_map_both_ways() {
        assert_eq!(outside(&SHIFTED, 999), Some(300_999));
        assert_eq!(outside(&SHIFTED, 1000), Some(7));
        assert_eq!(outside(&SHIFTED, 1001), None);
        assert_eq!(inside(&SHIFTED, 300_001), Some(1));
        assert_eq!(inside(&SHIFTED, 7), Some(1000));
        assert_eq!(inside(&SHIFTED, 0), None);
        // A map that the kernel would refuse.
        let beyond = IdRange {
            inside: 0,
            outside: u32::MAX,
            count: 2,
        };
        assert_eq!(
            (outside(&[beyond], 0), outside(&[beyond], 1)),
            (Some(u32::MAX), None)
        );
    }

    #[test]
    fn a_user_namespace_without_anybody_owns_what_it_was_made_with() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let made = create_user(&SHIFTED, &SHIFTED[..1], &[Kind::Network]).unwrap();
        assert!(same(owner(made.others[0].as_fd()).unwrap(), &made.user).unwrap());
        let mine = open(None, Kind::Network).unwrap();
        assert!(!same(owner(mine.as_fd()).unwrap(), &made.user).unwrap());
        assert_eq!(
            maps_in(made.user.as_fd()).unwrap(),
            (SHIFTED.to_vec(), SHIFTED[..1].to_vec())
        );
        let later = create_in(made.user.as_fd(), &[Kind::Network]).unwrap();
        assert!(same(owner(later[0].as_fd()).unwrap(), &made.user).unwrap());
        let error = create_in(later[0].as_fd(), &[Kind::Network]).unwrap_err();
        assert_eq!(
            error.raw_os_error(),
            Some(libc::EINVAL),
            "it is no user namespace"
        );
        // Who joins it sees the maps.
        let child = process::spawn(process::Options::default(), || {
            join(made.user.as_fd(), Kind::User).map_or(1, |()| i32::from(maps_of_self() != "300000 7") * 2)
        })
        .unwrap();
        assert_eq!(
            process::wait(child.pidfd.as_fd()).unwrap(),
            process::Exit::Code(0)
        );
        let twice = create_user(&[SHIFTED[0], SHIFTED[0]], &SHIFTED, &[]).unwrap_err();
        assert!(twice.to_string().contains("uid_map"), "{twice}");
    }

    /// The outsides of the map, as /proc of the initial namespace shows them to a process inside: as seen from the
    /// parent of the namespace.
    fn maps_of_self() -> String {
        let (uids, _) = maps_of(process_id()).unwrap();
        let outsides: Vec<String> = uids.iter().map(|range| range.outside.to_string()).collect();
        outsides.join(" ")
    }

    fn process_id() -> i32 {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    #[test]
    fn the_kind_of_a_handle_is_checked() {
        let uts = open(None, Kind::Uts).unwrap();
        assert!(in_namespace(uts.as_fd(), Kind::Network, || ()).is_err());
    }
}
