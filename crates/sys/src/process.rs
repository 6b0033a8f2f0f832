//! Processes: cloning one into namespaces and a cgroup, waiting, signalling by pidfd, becoming a program.
//!
//! `spawn` does what fork(2) does with the flags of clone3(2) added. The child owns a copy of the caller's
//! memory and only the calling thread; it may allocate as long as no other thread of the caller held a lock
//! at that moment, so callers are single-threaded (the monitor, the runtime's command line). The child never
//! returns from `spawn`: it ends with the closure's exit code, without running destructors or exit handlers.
//!
//! Sources: clone(2) (`clone3` Linux 5.3, `CLONE_INTO_CGROUP` 5.7), pidfd_open(2), execveat(2), signal(7).

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{WaitId, WaitIdOptions};

use crate::namespace::Kinds;

/// What a new process gets beside a copy of the caller.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'fd> {
    pub namespaces: Kinds,
    /// A version 2 cgroup directory to be born in.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// The new process is a child of the caller's parent, who is told its end and reaps it.
    pub sibling: bool,
}

/// A child of the caller (or of its parent). Dropping it neither ends nor reaps the process.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's pid namespace.
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// The C library's constant is narrower than the flag.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// The shell's number for it: the code, or 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Makes a child that runs `run` and ends with the code it returns.
pub fn spawn(options: Options<'_>, run: impl FnOnce() -> i32) -> io::Result<Child> {
    let mut pidfd: RawFd = -1;
    // SAFETY: every field of clone_args is an integer; all zeroes is the documented "nothing special".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = options.namespaces.bits() | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    if options.sibling {
        // The kernel takes the caller's own signal then and accepts no other.
        args.flags |= libc::CLONE_PARENT as u64;
    } else {
        args.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = &options.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack: the child goes on here with a copy of the caller's memory. It leaves
    // through `_exit` below and never unwinds into the caller's frames.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            std::mem::size_of::<libc::clone_args>(),
        )
    };
    let result = match result {
        // A container's filter hides clone3, whose flags it cannot see, and asks for clone(2) that way.
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS) => clone_2(&args, &mut pidfd)?,
        other => other,
    };
    match result {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(70);
            exit_now(code)
        }
        pid => {
            // SAFETY: the kernel stored a fresh descriptor there (CLONE_PIDFD, always close-on-exec).
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child {
                pid: pid as i32,
                pidfd,
            })
        }
    }
}

/// The older call: no cgroup, and no time namespace (its flag lies where the exit signal stands).
fn clone_2(args: &libc::clone_args, pidfd: &mut RawFd) -> io::Result<libc::c_long> {
    if args.flags & (CLONE_INTO_CGROUP | libc::CLONE_NEWTIME as u64) != 0 {
        return Err(io::Error::from_raw_os_error(libc::ENOSYS));
    }
    let flags = args.flags | libc::SIGCHLD as u64;
    // SAFETY: as for clone3 in `spawn`: no CLONE_VM and a null stack. The third argument is where CLONE_PIDFD
    // stores the descriptor, in every architecture's order of arguments.
    Ok(unsafe { libc::syscall(libc::SYS_clone, flags, 0usize, &raw mut *pidfd, 0usize, 0usize) })
}

/// Ends the process at once: no destructors, no exit handlers, no flushing.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return.
    unsafe { libc::_exit(code) }
}

/// A handle of a process that is not (necessarily) a child.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

/// The number of the process behind a handle, in the caller's pid namespace.
pub fn number(pidfd: BorrowedFd<'_>) -> io::Result<i32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .filter(|pid| *pid > 0)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Waits for the end of a child and reaps it.
pub fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Exit> {
    loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return Ok(match status.terminating_signal() {
                    Some(signal) => Exit::Signal(signal),
                    None => Exit::Code(status.exit_status().unwrap_or(0)),
                });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reaps a child if it has ended.
pub fn try_wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Exit>> {
    let status = rustix::process::waitid(
        WaitId::PidFd(pidfd),
        WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
    )?;
    Ok(status.map(|status| match status.terminating_signal() {
        Some(signal) => Exit::Signal(signal),
        None => Exit::Code(status.exit_status().unwrap_or(0)),
    }))
}

/// Reaps any one ended child: its number and how it ended; `None` when none has ended or there is none.
pub fn reap_any() -> io::Result<Option<(i32, Exit)>> {
    match rustix::process::wait(rustix::process::WaitOptions::NOHANG) {
        Ok(Some((pid, status))) => {
            let exit = match status.terminating_signal() {
                Some(signal) => Exit::Signal(signal),
                None => Exit::Code(status.exit_status().unwrap_or(0)),
            };
            Ok(Some((pid.as_raw_nonzero().get(), exit)))
        }
        Ok(None) | Err(rustix::io::Errno::CHILD) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sends any signal, real-time ones included; 0 only asks whether the process still exists.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: integers and a null siginfo.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends a signal by number: a positive pid, or a negated process group, or -1 for all that may be reached.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: two integers.
    if unsafe { libc::kill(pid, signal) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives every signal its default action and unblocks all: a fresh program's state. Rust's runtime ignores
/// SIGPIPE, and an ignored signal stays ignored over exec.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: SIG_DFL is a valid action for any signal; the numbers the C library keeps for itself
        // (32, 33) are refused with EINVAL, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut none);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Blocks all signals for the calling thread, for a process that reads them with `wait_signal`.
pub fn block_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by sigfillset before it is read.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Waits for the next blocked signal and takes it.
pub fn wait_signal() -> io::Result<i32> {
    // SAFETY: the set is initialised before use; the siginfo pointer may be null.
    let signal = unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&raw mut all);
        libc::sigwaitinfo(&raw const all, std::ptr::null_mut())
    };
    if signal > 0 {
        Ok(signal)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Becomes the program at `path`; returns only on failure.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists are null-terminated arrays of pointers into strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Becomes the program behind a descriptor; returns only on failure. A script needs the descriptor to stay
/// open over exec.
pub fn exec_fd(file: BorrowedFd<'_>, args: &[CString], env: &[CString]) -> io::Error {
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: as in `exec`; the path is the empty string, as AT_EMPTY_PATH asks.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

/// Makes the terminal behind the descriptor the session's own. The caller leads its session.
pub fn set_controlling_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer argument.
    if unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets a resource limit of a process by the kernel's number of the resource.
pub fn set_limit(pid: i32, resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let new = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `new` lives over the call; the old value is not asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            &raw const new,
            std::ptr::null_mut::<libc::rlimit64>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A process's limit: soft and hard.
pub fn limit(pid: i32, resource: u32) -> io::Result<(u64, u64)> {
    let mut old = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `old` is written by the kernel and lives over the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            pid,
            resource,
            std::ptr::null::<libc::rlimit64>(),
            &raw mut old,
        )
    };
    if result == 0 {
        Ok((old.rlim_cur, old.rlim_max))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs `f` with the calling thread's filesystem ids set: what it makes belongs to them. All its other rights, over
/// files too, stay as they are.
pub fn with_filesystem_ids<T>(uid: u32, gid: u32, f: impl FnOnce() -> T) -> io::Result<T> {
    let before = rustix::thread::capabilities(None)?;
    let old = (
        set_filesystem_id(libc::SYS_setfsuid, uid),
        set_filesystem_id(libc::SYS_setfsgid, gid),
    );
    let guard = FilesystemIds(old);
    // An id that is not 0 takes the rights over files out of the effective set.
    rustix::thread::set_capabilities(None, before)?;
    // The call gives no error: it was refused when the id is not what was set.
    let now = (
        set_filesystem_id(libc::SYS_setfsuid, u32::MAX),
        set_filesystem_id(libc::SYS_setfsgid, u32::MAX),
    );
    if now != (uid, gid) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let result = f();
    drop(guard);
    rustix::thread::set_capabilities(None, before)?;
    Ok(result)
}

struct FilesystemIds((u32, u32));

impl Drop for FilesystemIds {
    fn drop(&mut self) {
        set_filesystem_id(libc::SYS_setfsuid, self.0.0);
        set_filesystem_id(libc::SYS_setfsgid, self.0.1);
    }
}

/// Gives the id that was in force before.
fn set_filesystem_id(call: libc::c_long, id: u32) -> u32 {
    // SAFETY: an integer argument. The raw call is for the calling thread only.
    unsafe { libc::syscall(call, id) as u32 }
}

/// Sets the execution domain (personality(2)).
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: an integer argument.
    if unsafe { libc::personality(domain as libc::c_ulong) } >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets the calling process's input and output priority (ioprio_set(2)); `class` 1 to 3, `level` 0 to 7.
pub fn set_io_priority(class: u32, level: u32) -> io::Result<()> {
    const WHO_PROCESS: libc::c_int = 1;
    // SAFETY: integer arguments.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, (class << 13) | level) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Gives the process a session keyring of its own, so that it cannot reach the caller's keys. Where the kernel
/// has no keyrings, or no room for one more, or forbids the call, the caller's is not reachable either or stays:
/// only that last case, a full quota, is reported.
pub fn new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: an operation number and a null name (an anonymous keyring).
    let result = unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<libc::c_char>(),
        )
    };
    if result >= 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EPERM) => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_child_ends_with_its_closures_code() {
        let child = spawn(Options::default(), || 42).unwrap();
        assert!(child.pid > 0);
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Code(42));
    }

    #[test]
    fn a_sibling_is_the_callers_parents_child() {
        let (receive, send) = std::os::unix::net::UnixStream::pair().unwrap();
        let child = spawn(Options::default(), || {
            let sibling = Options {
                sibling: true,
                ..Options::default()
            };
            match spawn(sibling, || 5) {
                Ok(born) => crate::fd::send_fds(&send, b"x", &[born.pidfd.as_fd()]).map_or(1, |()| 0),
                Err(_) => 2,
            }
        })
        .unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Code(0));
        let (_, fds) = crate::fd::recv_fds(&receive, &mut [0; 8]).unwrap();
        assert_ne!(number(fds[0].as_fd()).unwrap(), child.pid);
        assert_eq!(wait(fds[0].as_fd()).unwrap(), Exit::Code(5));
    }

    #[test]
    fn a_signalled_child_is_told_apart() {
        let child = spawn(Options::default(), || {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
        send_signal(child.pidfd.as_fd(), libc::SIGKILL).unwrap();
        let exit = wait(child.pidfd.as_fd()).unwrap();
        assert_eq!((exit, exit.code()), (Exit::Signal(9), 137));
    }

    #[test]
    fn files_are_made_with_the_filesystem_ids() {
        use std::os::unix::fs::MetadataExt as _;
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // Others may not write here: the rights over files stay.
        let (inside, after) = (dir.path().join("inside"), dir.path().join("after"));
        with_filesystem_ids(4711, 4712, || std::fs::write(&inside, "").unwrap()).unwrap();
        std::fs::write(&after, "").unwrap();
        let owner = |path| std::fs::metadata(path).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!(owner(&inside), (4711, 4712));
        assert_eq!(owner(&after), (0, 0));
    }

    #[test]
    fn exec_replaces_the_child() {
        let child = spawn(Options::default(), || {
            let args = [c"sh".to_owned(), c"-c".to_owned(), c"exit 7".to_owned()];
            exec(c"/bin/sh", &args, &[]);
            1
        })
        .unwrap();
        assert_eq!(wait(child.pidfd.as_fd()).unwrap(), Exit::Code(7));
    }
}
