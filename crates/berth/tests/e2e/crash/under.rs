//! A daemon whose operations are seen, counted, and stopped at.
//!
//! The daemon starts under a system call filter that asks before each call by which something is made to last or changed
//! in the kernel, and everything that it starts inherits it. Whoever has the filter's listener sees the calls of daemon,
//! monitors and containers in one order, before they happen, and can kill one of them right there. The product has
//! nothing built in for it, and an operation that is added to it joins by itself.
//!
//! Sources: seccomp_unotify(2).

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};
use sys::seccomp::questions::{self, Question};
use sys::seccomp::{Instruction, load_with_listener};
use syscalls::Sysno;

use crate::support::{self, Daemon};

const SOCKET: &str = "BERTH_CRASH_SOCKET";
const WORDS: &str = "BERTH_CRASH_WORDS";

/// What makes something last: in a file, in a directory, in the database.
const LASTING: &[Sysno] = &[
    Sysno::mkdirat,
    Sysno::renameat,
    Sysno::renameat2,
    Sysno::unlinkat,
    Sysno::linkat,
    Sysno::symlinkat,
    Sysno::mknodat,
    Sysno::fsync,
    Sysno::fdatasync,
    Sysno::syncfs,
    Sysno::pwrite64,
    Sysno::ftruncate,
    Sysno::writev,
];

/// What changes something in the kernel, or tells somebody something.
const KERNEL: &[Sysno] = &[
    Sysno::clone,
    Sysno::clone3,
    Sysno::unshare,
    Sysno::setns,
    Sysno::execve,
    Sysno::mount,
    Sysno::umount2,
    Sysno::open_tree,
    Sysno::move_mount,
    Sysno::fsopen,
    Sysno::fsconfig,
    Sysno::fsmount,
    Sysno::mount_setattr,
    Sysno::pivot_root,
    Sysno::bpf,
    Sysno::bind,
    Sysno::connect,
    Sysno::sendto,
    Sysno::sendmsg,
    Sysno::kill,
    Sysno::pidfd_send_signal,
];

/// Their older forms, which newer machines do not have.
#[cfg(target_arch = "x86_64")]
const OLDER: &[Sysno] = &[
    Sysno::mkdir,
    Sysno::rmdir,
    Sysno::rename,
    Sysno::unlink,
    Sysno::link,
    Sysno::symlink,
    Sysno::mknod,
    Sysno::fork,
    Sysno::vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[Sysno] = &[];

/// The filter: asks for all of these, for an `openat` that may create, and for a `write` that is not an event
/// descriptor's, by which threads wake each other.
fn filter() -> Vec<Instruction> {
    const LOAD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const ANY_OF: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const THIRD_ARGUMENT: u32 = 32;
    const ALLOW: u32 = 0x7fff_0000;
    const ASK: u32 = 0x7fc0_0000;
    const O_CREAT: u32 = 0o100;
    const OF_EVENT: u32 = 8;
    let step = |code, jump_true, jump_false, value| Instruction {
        code,
        jump_true,
        jump_false,
        value,
    };
    let number = |call: &Sysno| u32::try_from(call.id()).unwrap();
    let asked = [LASTING, KERNEL, OLDER].concat();
    let mut program = vec![step(LOAD, 0, 0, 0)];
    for (index, call) in asked.iter().enumerate() {
        // To the last instruction, over what is left of these and the eight that follow.
        let distance = u8::try_from(asked.len() - index - 1 + 8).unwrap();
        program.push(step(EQUAL, distance, 0, number(call)));
    }
    program.extend([
        step(EQUAL, 0, 2, number(&Sysno::openat)),
        step(LOAD, 0, 0, THIRD_ARGUMENT),
        step(ANY_OF, 5, 4, O_CREAT),
        step(EQUAL, 0, 3, number(&Sysno::write)),
        step(LOAD, 0, 0, THIRD_ARGUMENT),
        step(EQUAL, 1, 2, OF_EVENT),
        step(RETURN, 0, 0, ASK),
        step(RETURN, 0, 0, ALLOW),
        step(RETURN, 0, 0, ASK),
    ]);
    program
}

/// Run in a process of its own, which puts itself under the filter and becomes the daemon; does nothing when the suite
/// runs it.
#[test]
fn stage() {
    let (Some(socket), Ok(words)) = (std::env::var_os(SOCKET), std::env::var(WORDS)) else {
        return;
    };
    let mut socket = UnixStream::connect(socket).unwrap();
    let listener = load_with_listener(&filter(), 0).unwrap();
    // Eight bytes: a write that is not asked for, since nobody can answer yet.
    let number = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&listener)).unwrap();
    rustix::io::write(&socket, &number.to_ne_bytes()).unwrap();
    socket.read_exact(&mut [0]).unwrap();
    let mut words = words.split('\n');
    let failed = Command::new(words.next().unwrap())
        .args(words)
        .env_remove(SOCKET)
        .env_remove(WORDS)
        .exec();
    panic!("{failed}");
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Daemon,
    /// At what it does itself, or a process of its container on its way to its program.
    Monitor,
    /// At what the daemon does with its container.
    MonitorMeanwhile,
}

/// What is done when an operation is seen.
#[derive(Debug, Default)]
enum Plan {
    #[default]
    Nothing,
    Count {
        victim: Victim,
        seen: usize,
    },
    KillAt {
        victim: Victim,
        left: usize,
    },
    Killed(String),
}

/// Sees what a daemon and everything it has started does.
#[derive(Clone)]
pub struct Watcher {
    plan: Arc<Mutex<Plan>>,
    daemon: u32,
    /// In the environment of everything that daemons of this directory start.
    mark: String,
}

impl Watcher {
    /// Starts a daemon on this directory.
    fn spawn(dir: &Path, args: &[String]) -> (Watcher, Child) {
        let daemon = support::command(dir, args);
        let words: Vec<OsString> = std::iter::once(daemon.get_program())
            .chain(daemon.get_args())
            .map(ToOwned::to_owned)
            .collect();
        let path = dir.join("stage.sock");
        // Of the daemon before.
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::under::stage", "--nocapture"])
            .env(SOCKET, &path)
            .env(WORDS, words.join(std::ffi::OsStr::new("\n")))
            .env(support::OF_DAEMON, dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(support::log_of(dir))
            .spawn()
            .unwrap();
        let (mut socket, _) = socket.accept().unwrap();
        let mut number = [0; 8];
        socket.read_exact(&mut number).unwrap();
        let process = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
        let number = i32::try_from(u64::from_ne_bytes(number)).unwrap();
        let listener = rustix::process::pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).unwrap();
        let watcher = Watcher {
            plan: Arc::default(),
            daemon: child.id(),
            mark: format!("{}={}", support::OF_DAEMON, dir.display()),
        };
        let answering = watcher.clone();
        std::thread::spawn(move || answering.answer(&listener));
        socket.write_all(&[1]).unwrap();
        (watcher, child)
    }

    /// Until no process is under the filter any more.
    fn answer(&self, listener: &OwnedFd) {
        loop {
            let mut ready = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut ready, None).unwrap();
            if ready[0].revents().contains(rustix::event::PollFlags::HUP) {
                return;
            }
            match questions::receive(listener.as_fd()) {
                Ok(question) => {
                    self.see(question);
                    questions::allow(listener.as_fd(), question).unwrap();
                }
                // Whoever asked is gone.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn see(&self, question: Question) {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let victim = match &*plan {
            Plan::Nothing | Plan::Killed(_) => return,
            Plan::Count { victim, .. } | Plan::KillAt { victim, .. } => *victim,
        };
        let Some(process) = process_of(question.thread) else {
            return;
        };
        let monitor = monitor_of(process);
        let is_meant = match victim {
            Victim::Daemon => true,
            Victim::Monitor => monitor.is_some(),
            Victim::MonitorMeanwhile => process == self.daemon,
        };
        if !is_meant {
            return;
        }
        match &mut *plan {
            Plan::Count { seen, .. } => *seen += 1,
            Plan::KillAt { left: left @ 1.., .. } => *left -= 1,
            _ => {}
        }
        if !matches!(&*plan, Plan::KillAt { left: 0, .. }) {
            return;
        }
        let killed = match victim {
            Victim::Daemon => vec![self.daemon],
            Victim::Monitor => monitor.into_iter().collect(),
            Victim::MonitorMeanwhile => self.monitors(),
        };
        if killed.is_empty() {
            // Nobody lives at this operation who could be killed; somebody may at the next one.
            return;
        }
        for pid in killed {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
            // One that has ended by itself is past its last operation.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let call = usize::try_from(question.call).ok().and_then(Sysno::new);
        let whose = match process {
            process if process == self.daemon => "the daemon",
            _ if monitor.is_some() => "the monitor",
            _ => "another process",
        };
        *plan = Plan::Killed(format!("{} of {whose}", call.map_or("?", |call| call.name())));
    }

    /// The monitors of the containers that live.
    fn monitors(&self) -> Vec<u32> {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
        let ours = |process: &u32| {
            let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == self.mark.as_bytes())
        };
        numbers
            .filter(|process: &u32| monitor_of(*process) == Some(*process))
            .filter(ours)
            .collect()
    }

    fn set(&self, plan: Plan) -> Plan {
        let mut present = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *present, plan)
    }

    /// How many operations are made while `work` runs at which the victim could be killed.
    pub fn count<T>(&self, victim: Victim, work: impl FnOnce() -> T) -> (usize, T) {
        self.set(Plan::Count { victim, seen: 0 });
        let result = work();
        match self.set(Plan::Nothing) {
            Plan::Count { seen, .. } => (seen, result),
            plan => unreachable!("{plan:?}"),
        }
    }

    /// Kills the victim before the operation of this number, if `work` comes so far; says which one it was.
    pub fn kill_at<T>(&self, victim: Victim, number: usize, work: impl FnOnce() -> T) -> (Option<String>, T) {
        self.set(Plan::KillAt { victim, left: number });
        let result = work();
        match self.set(Plan::Nothing) {
            Plan::Killed(what) => (Some(what), result),
            _ => (None, result),
        }
    }
}

fn status(process: u32, key: &str) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().parse().ok()
}

fn process_of(thread: u32) -> Option<u32> {
    status(thread, "Tgid:")
}

/// The monitor that this process is, or is becoming a container's first process of.
fn monitor_of(mut process: u32) -> Option<u32> {
    let is_monitor = |process: u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        // PROGRAM monitor ID
        line.split(|byte| *byte == 0).nth(1) == Some(b"monitor")
    };
    if !is_monitor(process) {
        return None;
    }
    while let Some(parent) = status(process, "PPid:").filter(|parent| is_monitor(*parent)) {
        process = parent;
    }
    Some(process)
}

/// A daemon that is watched, and the next one after it.
pub struct Watched {
    pub daemon: Daemon,
    pub watcher: Watcher,
}

impl Watched {
    /// With these arguments of `berth daemon`.
    pub fn start(args: &[&str]) -> Watched {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let dir = tempfile::Builder::new().prefix("berth-e2e-").tempdir().unwrap();
        let (watcher, child) = Watcher::spawn(dir.path(), &args);
        let daemon = Daemon::of(dir, args, child);
        Watched { daemon, watcher }
    }

    /// After the daemon was killed.
    pub fn start_again(&mut self) {
        // One of its threads may wait for a disk that others keep busy.
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.daemon.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the daemon does not die");
            std::thread::sleep(Duration::from_millis(2));
        }
        let (watcher, child) = Watcher::spawn(self.daemon.dir.path(), &self.daemon.args);
        self.watcher = watcher;
        self.daemon.child = child;
        self.daemon.wait_until_ready();
    }
}
