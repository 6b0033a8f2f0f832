//! An additional process in a running container.
//!
//! The caller clones a child, which enters the cgroup and joins all of the container's namespaces through the
//! pidfd. A pid namespace takes in newborns only, so the child then makes the process itself, as a child of the
//! caller, and leaves. That process goes the same way as a first one: standard streams, rights, filter, exec.
//! It does not wait for its caller where it need not, because each time two processes have to be scheduled: only for
//! limits, and where it has a terminal or a filter's listener to hand over.
//!
//! Processes of the container can see it from its birth on. By then its root, its working directory and its
//! descriptors (the streams and the handshake excepted) are the container's own: one that may trace any process
//! (CAP_SYS_PTRACE) finds nothing of the host in `/proc/N/root`. Others cannot look at all, for it is not dumpable.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use cgroup::{Below, Cgroup, CgroupError, Entry};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{DumpableBehavior, Signal};
use spec::runtime::{MemoryPolicy, Personality, Process, Rlimit, State, Status};
use sys::namespace::{self, Kind, Kinds};
use sys::process::Options;

use crate::container::{become_root, isolate};
use crate::error::{During, LaunchError};
use crate::handshake::{Channel, Stage};
use crate::identity::Identity;
use crate::launch::{Running, Stdio, Unstarted, await_exec, born};
use crate::process::scheduling::run_on;
use crate::process::{ProcessPlan, limits, stdio};
use crate::rootfs::open_devpts;
use crate::seccomp::{Answerer, Listener, Prepared};

/// How processes get into a control group: made once, it serves for any number of them.
#[derive(Debug)]
pub struct Membership {
    born_in: Option<OwnedFd>,
    entry: Entry,
}

impl Membership {
    pub fn of(cgroup: &Cgroup) -> Result<Membership, LaunchError> {
        Membership::below(cgroup, &Below::default())
    }

    /// In groups below this one.
    pub fn below(cgroup: &Cgroup, below: &Below) -> Result<Membership, LaunchError> {
        let failed = |error: CgroupError| LaunchError::Cgroup(error.to_string());
        Ok(Membership {
            born_in: cgroup.fd_below(below).map_err(failed)?,
            entry: cgroup.entry_below(below).map_err(failed)?,
        })
    }
}

/// What is to run, and where.
pub struct Exec<'a> {
    /// Any process of the container, as seen by the caller.
    pub target_pid: i32,
    pub target_pidfd: BorrowedFd<'a>,
    pub process: &'a Process,
    pub stdio: Stdio,
    pub cgroup: Option<&'a Membership>,
    pub filter: Option<&'a Prepared>,
    pub default_rlimits: &'a [Rlimit],
    /// How many of the caller's descriptors from 3 on the process gets. They must be open.
    pub preserve_fds: u32,
    /// For whoever answers for its system calls.
    pub identity: Identity,
    /// As in [`crate::Launch`].
    pub dies_with_caller: bool,
    /// As in [`crate::Launch`].
    pub callers_keyring: bool,
    /// Those of the container's configuration, which hold for all of its processes.
    pub personality: Option<&'a Personality>,
    pub memory_policy: Option<&'a MemoryPolicy>,
}

impl<'a> Exec<'a> {
    /// An exec without any of the optional parts.
    pub fn new(
        target_pid: i32,
        target_pidfd: BorrowedFd<'a>,
        process: &'a Process,
        stdio: Stdio,
    ) -> Exec<'a> {
        Exec {
            target_pid,
            target_pidfd,
            process,
            stdio,
            cgroup: None,
            filter: None,
            default_rlimits: &[],
            preserve_fds: 0,
            identity: Identity::default(),
            dies_with_caller: false,
            callers_keyring: false,
            personality: None,
            memory_policy: None,
        }
    }
}

struct ExecPlan<'a> {
    process: ProcessPlan,
    stdio: Stdio,
    kinds: Kinds,
    pidfd: OwnedFd,
    /// The container's root, where it is not that of a mount namespace of its own.
    root: Option<OwnedFd>,
    cgroup: Option<&'a Entry>,
    /// The caller has limits to set, which in a user namespace nobody could raise, or must know of the process before it
    /// hears from it.
    waits: bool,
}

/// Runs the process. When this returns, the program has begun.
pub fn exec(exec: Exec<'_>) -> Result<Running, LaunchError> {
    let filter = exec.filter.map(|prepared| prepared.filter.clone());
    let mut process = ProcessPlan::new(exec.process, exec.personality, exec.memory_policy, filter)?;
    process.terminal = matches!(exec.stdio, Stdio::Terminal);
    process.preserve_fds = exec.preserve_fds;
    process.dies_with_caller = exec.dies_with_caller;
    process.callers_keyring = exec.callers_keyring;
    let answerer = exec.filter.and_then(|prepared| prepared.answerer.as_ref());
    let listener = answerer.map(Answerer::connect).transpose()?;
    let limited = !(exec.process.rlimits.is_empty() && exec.default_rlimits.is_empty());
    let waits = limited || process.terminal || listener.is_some();
    // Joining an own namespace again would be refused for some kinds, and in a user namespace for all.
    let kinds = namespace::foreign(exec.target_pid).during("the container's namespaces (is it running?)")?;
    if kinds.contains(Kind::User) {
        let (uids, _) = namespace::maps_of(exec.target_pid).during("the container's id maps")?;
        if let Some(uid) = namespace::outside(&uids, process.uid()) {
            stdio::give_from_outside(&exec.stdio, uid);
        }
    }
    let pidfd = exec
        .target_pidfd
        .try_clone_to_owned()
        .during("the container's process")?;
    let root = match kinds.contains(Kind::Mount) {
        true => None,
        false => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let path = format!("/proc/{}/root", exec.target_pid);
            Some(rustix::fs::openat(CWD, path, flags, Mode::empty()).during("the container's root")?)
        }
    };
    let mut plan = ExecPlan {
        process,
        stdio: exec.stdio,
        kinds,
        pidfd,
        root,
        cgroup: exec.cgroup.map(|group| &group.entry),
        waits,
    };
    let (mut channel, child_channel) = Channel::pair()?;
    let options = Options {
        cgroup: exec
            .cgroup
            .and_then(|group| group.born_in.as_ref())
            .map(AsFd::as_fd),
        ..Options::default()
    };
    let cloned = sys::process::spawn(options, || {
        run(child_channel, |channel| enter(&mut plan, channel))
    });
    let child = Unstarted::new(cloned.during("clone the process")?);
    let mut child = born(&mut channel, child)?;
    let asked = listener.map(|listener| {
        let state = exec.identity.state(Status::Running, Some(exec.target_pid));
        (listener, state)
    });
    let result = converse(&mut channel, &plan, child.pid(), exec.default_rlimits, asked);
    let terminal = result.map_err(|error| child.explain(error))?;
    child.into_running(terminal)
}

fn converse(
    channel: &mut Channel,
    plan: &ExecPlan<'_>,
    pid: i32,
    defaults: &[Rlimit],
    asked: Option<(Listener, State)>,
) -> Result<Option<OwnedFd>, LaunchError> {
    if plan.waits {
        limits::apply(pid, &plan.process.rlimits, defaults)?;
        channel.reach(Stage::Configured, &[])?;
    }
    let terminal = match plan.process.terminal {
        true => channel.expect(Stage::Ready)?.pop(),
        false => None,
    };
    await_exec(channel, pid, asked)?;
    Ok(terminal)
}

/// The closure of a clone: gives the exit code of a process that does not become the program.
fn run(mut channel: Channel, work: impl FnOnce(&mut Channel) -> Result<(), LaunchError>) -> i32 {
    match work(&mut channel) {
        Ok(()) => 0,
        Err(error) => {
            channel.fail(&error);
            error.exit_code()
        }
    }
}

/// The way into the container, outside of its pid namespace and so out of its sight.
fn enter(plan: &mut ExecPlan<'_>, channel: &mut Channel) -> Result<(), LaunchError> {
    run_on(&plan.process.affinity.initial)?;
    isolate(plan.fds(), plan.cgroup, &plan.process, channel)?;
    // Entering the cgroup may have changed it.
    run_on(&plan.process.affinity.last)?;
    if let Some(score) = plan.process.oom_score_adj {
        // With the caller's rights and through its /proc; what is born below has it, too.
        limits::set_own_oom_score(score)?;
    }
    namespace::join_process(plan.pidfd.as_fd(), plan.kinds).during("join the container's namespaces")?;
    if let Some(root) = &plan.root {
        rustix::process::fchdir(root).during("enter the container's root")?;
        rustix::process::chroot(".").during("enter the container's root")?;
    }
    if !plan.kinds.contains(Kind::Pid) {
        channel.reach(Stage::Joined, &[])?;
        return become_process(plan, channel).map(|never| match never {});
    }
    let sibling = Options {
        sibling: true,
        ..Options::default()
    };
    let theirs = channel.try_clone()?;
    let born = sys::process::spawn(sibling, || run(theirs, |channel| be_born(plan, channel)));
    channel.reach(Stage::Joined, &[born.during("clone the process")?.pidfd.as_fd()])
}

/// In the newborn: what a clone does not inherit.
fn be_born(plan: &mut ExecPlan<'_>, channel: &mut Channel) -> Result<(), LaunchError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).during("set the death signal")?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).during("protect the process")?;
    // A caller that ended before the signal was set sends none.
    channel.check_peer()?;
    become_process(plan, channel).map(|never| match never {})
}

fn become_process(plan: &mut ExecPlan<'_>, channel: &mut Channel) -> Result<Infallible, LaunchError> {
    if plan.waits {
        channel.expect(Stage::Configured)?;
    }
    if plan.kinds.contains(Kind::User) {
        // Until now it has the caller's ids, which are nobody's inside: a terminal it made would be nobody's.
        become_root()?;
        plan.process.new_keyring()?;
    }
    let pair = if plan.process.terminal {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, c"/", flags, Mode::empty()).during("open the root")?;
        let devpts = open_devpts(root.as_fd())?;
        Some(sys::terminal::open_in(devpts.as_fd()).during("make a terminal")?)
    } else {
        None
    };
    stdio::place(&plan.stdio, pair.as_ref(), plan.process.console_size)?;
    let program = plan.process.become_ready()?;
    if let Some(pair) = pair {
        channel.reach(Stage::Ready, &[pair.master.as_fd()])?;
    }
    Err(plan.process.execute(&program, channel))
}

impl ExecPlan<'_> {
    fn fds(&self) -> Vec<RawFd> {
        let mut fds = vec![self.pidfd.as_raw_fd()];
        fds.extend(self.root.as_ref().map(AsRawFd::as_raw_fd));
        fds.extend(self.process.preserved());
        if let Stdio::Streams {
            stdin,
            stdout,
            stderr,
        } = &self.stdio
        {
            fds.extend([stdin, stdout, stderr].map(AsRawFd::as_raw_fd));
        }
        fds
    }
}
