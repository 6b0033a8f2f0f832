//! The caller's side of making a container: clone, configure from outside, wait, start.
//!
//! `create` returns when everything but the exec is done; failures of the child come back as its own words.
//! The child is a direct child of the caller, who reaps it. `Created` that is dropped unstarted ends and
//! reaps the child.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use spec::runtime::{Rlimit, State, Status};
use sys::mount::Tree;
use sys::process::{Child, Exit, Options};

use crate::container;
use crate::error::{During, LaunchError};
use crate::handshake::{Channel, Received, Stage};
use crate::hooks;
use crate::identity::Identity;
use crate::net_devices::Moved;
use crate::plan::Plan;
use crate::process::{limits, stdio};
use crate::seccomp::{Answerer, Listener, Prepared};

const SIGKILL: i32 = 9;

/// What a container is made from.
pub struct Launch<'a> {
    pub id: &'a str,
    /// Relative mount sources are looked up here; hooks are told of it.
    pub bundle: &'a Path,
    pub spec: &'a spec::runtime::Spec,
    pub rootfs: RootFs<'a>,
    pub stdio: Stdio,
    /// Takes the place of a network namespace in the configuration.
    pub netns: Option<BorrowedFd<'a>>,
    /// Takes the place of a user namespace in the configuration, whose maps say what is in it. An overlay as root is
    /// mounted with the ids it has inside.
    pub userns: Option<BorrowedFd<'a>>,
    pub cgroup: Option<&'a cgroup::Cgroup>,
    /// Our own program, to be seen read-only as `/sbin/docker-init`. A fresh descriptor for each launch.
    pub init: Option<BorrowedFd<'a>>,
    /// A directory for compiled system call filters.
    pub seccomp_cache: Option<&'a Path>,
    pub extra_mounts: &'a [ExtraMount<'a>],
    /// Limits for what the configuration leaves open; lowered to what the host allows.
    pub default_rlimits: &'a [Rlimit],
    /// A listening socket on which the child awaits the start instead of on `Created`, for a caller that ends
    /// before the container is started.
    pub start_socket: Option<BorrowedFd<'a>>,
    /// How many of the caller's descriptors from 3 on the process gets. They must be open.
    pub preserve_fds: u32,
    /// By chroot(2) instead of pivot_root(2), which a root on a ramdisk does not allow.
    pub no_pivot: bool,
    /// The process has the caller's keys and not fresh ones.
    pub callers_keyring: bool,
    /// The filter of `linux.seccomp` where it is made ready already; it is made here otherwise.
    pub filter: Option<&'a Prepared>,
    /// The caller puts the process into the class of `linux.intelRdt` before it starts it.
    pub classed: bool,
    /// The program is killed when the caller ends, however that ends, and with the first process of a pid namespace all
    /// others of it. The kernel forgets the wish where the program gains rights by its file (set-user-ID, file
    /// capabilities) or gets another label as it begins (a profile of AppArmor, SELinux), and the program can take it back (prctl(2), PR_SET_PDEATHSIG).
    pub dies_with_caller: bool,
}

impl<'a> Launch<'a> {
    /// A launch without any of the optional parts.
    pub fn new(
        id: &'a str,
        bundle: &'a Path,
        spec: &'a spec::runtime::Spec,
        rootfs: RootFs<'a>,
        stdio: Stdio,
    ) -> Self {
        Launch {
            id,
            bundle,
            spec,
            rootfs,
            stdio,
            netns: None,
            userns: None,
            cgroup: None,
            init: None,
            seccomp_cache: None,
            extra_mounts: &[],
            default_rlimits: &[],
            start_socket: None,
            preserve_fds: 0,
            no_pivot: false,
            callers_keyring: false,
            filter: None,
            classed: false,
            dies_with_caller: false,
        }
    }
}

/// Where the root filesystem comes from.
#[derive(Debug, Clone, Copy)]
pub enum RootFs<'a> {
    Path(&'a Path),
    Overlay(&'a sys::mount::Overlay),
}

/// What descriptors 0 to 2 of the process are.
#[derive(Debug)]
pub enum Stdio {
    Streams {
        stdin: OwnedFd,
        stdout: OwnedFd,
        stderr: OwnedFd,
    },
    /// A terminal of the container's own devpts; its master goes to the caller.
    Terminal,
    /// The caller's own.
    Inherit,
}

/// A file or directory given by descriptor, to be bound at a path of the container. A descriptor of a detached
/// mount (`sys::program::Sealed::mount`) serves for one launch only: older kernels move it instead of copying it.
#[derive(Debug, Clone, Copy)]
pub struct ExtraMount<'a> {
    pub source: BorrowedFd<'a>,
    pub destination: &'a Path,
    pub read_only: bool,
}

/// A container whose process waits for the start.
#[derive(Debug)]
pub struct Created {
    /// Before the child, for its interfaces return while their namespace is there.
    moved: Moved,
    child: Unstarted,
    channel: Channel,
    terminal: Option<OwnedFd>,
    poststart: hooks::Pending,
    asks: Option<Asks>,
    kept: Vec<Tree>,
    /// The start comes over another socket.
    detached: bool,
}

/// A process of a container, child of the caller.
#[derive(Debug)]
pub struct Running {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
    /// The container's mounts of filesystems that servers have. Whoever lets go of one last takes leave of the server,
    /// for minutes if that does not answer; as long as they are held, that is not the container's process in its end.
    pub kept: Vec<Tree>,
}

/// A child that is ended and reaped unless it is taken out.
#[derive(Debug)]
pub(crate) struct Unstarted {
    child: Option<Child>,
}

impl Unstarted {
    pub fn new(child: Child) -> Unstarted {
        Unstarted { child: Some(child) }
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    pub fn into_running(mut self, terminal: Option<OwnedFd>) -> Result<Running, LaunchError> {
        match self.child.take() {
            Some(Child { pid, pidfd }) => Ok(Running {
                pid,
                pidfd,
                terminal,
                kept: Vec::new(),
            }),
            None => Err(LaunchError::Handshake("the child is gone".to_owned())),
        }
    }

    /// When the conversation broke because the child ended, how it ended says more.
    pub fn explain(&mut self, error: LaunchError) -> LaunchError {
        let LaunchError::Handshake(_) = &error else {
            return error;
        };
        let Some(child) = &self.child else { return error };
        let exit = match sys::process::try_wait(child.pidfd.as_fd()) {
            Ok(Some(exit)) => exit,
            _ => return error,
        };
        self.child = None;
        LaunchError::Died {
            how: match exit {
                Exit::Code(code) => format!("exit code {code}"),
                Exit::Signal(signal) => format!("signal {signal}"),
            },
        }
    }
}

impl Drop for Unstarted {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            let _ = sys::process::send_signal(child.pidfd.as_fd(), SIGKILL);
            let _ = sys::process::wait(child.pidfd.as_fd());
        }
    }
}

/// Makes the container up to the exec.
pub fn create(launch: Launch<'_>) -> Result<Created, LaunchError> {
    Planned::new(launch)?.create(|| {})
}

/// A container of which nothing is there yet: all is opened, checked and compiled that can be without it.
#[derive(Debug)]
pub(crate) struct Planned {
    plan: Plan,
    defaults: Vec<Rlimit>,
    asks: Option<Asks>,
    detached: bool,
}

impl Planned {
    pub fn new(launch: Launch<'_>) -> Result<Planned, LaunchError> {
        let identity = Identity::new(launch.spec, launch.id, launch.bundle);
        Ok(Planned {
            asks: Asks::new(launch.spec, identity),
            defaults: launch.default_rlimits.to_vec(),
            detached: launch.start_socket.is_some(),
            plan: Plan::new(launch)?,
        })
    }

    /// From here on hooks may run. `meanwhile` is done while the container's process sets itself up.
    pub fn create(self, meanwhile: impl FnOnce()) -> Result<Created, LaunchError> {
        let Planned {
            mut plan,
            defaults,
            asks,
            detached,
        } = self;
        let (mut channel, child_channel) = Channel::pair()?;
        let cgroup = plan.cgroup_fd.take();
        let options = Options {
            namespaces: plan.namespaces.at_clone(),
            cgroup: cgroup.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        if plan.namespaces.has_user()
            && let Some((uid, _)) = plan.namespaces.outside(plan.process.uid(), 0)
        {
            stdio::give_from_outside(&plan.stdio, uid);
        }
        let entered = plan.namespaces.enter_for_clone()?;
        let cloned = if plan.namespaces.joins_user() {
            let options = Options {
                namespaces: Default::default(),
                ..options
            };
            sys::process::spawn(options, || container::run_joining(&mut plan, child_channel))
        } else {
            sys::process::spawn(options, || container::run(&mut plan, child_channel))
        };
        let returned = entered.leave();
        let mut child = Unstarted::new(cloned.during("clone the container's process")?);
        returned?;
        if plan.namespaces.joins_user() {
            child = born(&mut channel, child)?;
        }
        let moved = plan.net_devices.hand_over(&plan.namespaces, child.pid());
        let moved = moved.map_err(|error| child.explain(error))?;
        let terminal = configure(&mut channel, &plan, child.pid(), &defaults, meanwhile)
            .map_err(|error| child.explain(error))?;
        let poststart = plan.hooks.poststart(child.pid());
        let kept = plan.rootfs.take_of_network();
        Ok(Created {
            moved,
            child,
            channel,
            terminal,
            poststart,
            asks,
            kept,
            detached,
        })
    }
}

/// The process that a child made inside the container, when that one has got there.
pub(crate) fn born(channel: &mut Channel, mut child: Unstarted) -> Result<Unstarted, LaunchError> {
    let adopt = |pidfd: OwnedFd| {
        let pid = sys::process::number(pidfd.as_fd()).during("the process that was born in the container")?;
        Ok(Unstarted::new(Child { pid, pidfd }))
    };
    match channel.expect(Stage::Joined) {
        // The one that brought it there is done, and is reaped here.
        Ok(mut fds) => fds.pop().map_or(Ok(child), adopt),
        Err(error) => {
            // It may be the newborn that failed, before the one that brought it there could say that it is there. Nobody
            // else would reap it, and its pid namespace would not end.
            if let Ok(Received::Reached(mut fds)) = channel.receive(Stage::Joined)
                && let Some(Ok(mut newborn)) = fds.pop().map(adopt)
            {
                return Err(newborn.explain(error));
            }
            Err(child.explain(error))
        }
    }
}

/// A filter that asks somebody, and what he is told.
#[derive(Debug)]
struct Asks {
    answerer: Answerer,
    identity: Identity,
}

impl Asks {
    fn new(spec: &spec::runtime::Spec, identity: Identity) -> Option<Asks> {
        let answerer = Answerer::of(spec.linux.as_ref()?.seccomp.as_ref()?)?;
        Some(Asks { answerer, identity })
    }

    fn connect(&self, pid: i32) -> Result<(Listener, State), LaunchError> {
        let listener = self.answerer.connect()?;
        Ok((listener, self.identity.state(Status::Created, Some(pid))))
    }
}

/// What only the caller can do to the child, and the wait for it, which begins with `meanwhile`.
fn configure(
    channel: &mut Channel,
    plan: &Plan,
    pid: i32,
    defaults: &[Rlimit],
    meanwhile: impl FnOnce(),
) -> Result<Option<OwnedFd>, LaunchError> {
    plan.namespaces.map_ids(pid)?;
    limits::apply(pid, &plan.process.rlimits, defaults)?;
    if let Some(score) = plan.process.oom_score_adj {
        limits::set_oom_score(pid, score)?;
    }
    channel.reach(Stage::Configured, &[])?;
    meanwhile();
    if plan.hooks.wait_for_mounts() {
        channel.expect(Stage::Mounted)?;
        plan.hooks.run_before_pivot(pid)?;
        channel.reach(Stage::Hooked, &[])?;
    }
    Ok(channel.expect(Stage::Ready)?.pop())
}

impl Created {
    pub fn pid(&self) -> i32 {
        self.child.pid()
    }

    /// A handle of the process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        match &self.child.child {
            Some(child) => child.pidfd.as_fd(),
            // Only `start` takes the child out, and it takes this value with it.
            None => self.channel.as_fd(),
        }
    }

    /// The terminal's master, once.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Lets the process execute the user's program, waits until it has, and runs the hooks of that moment.
    pub fn start(mut self) -> Result<Running, LaunchError> {
        let pid = self.pid();
        let asked = self.asks.as_ref().map(|asks| asks.connect(pid)).transpose()?;
        self.channel.reach(Stage::Started, &[])?;
        await_exec(&mut self.channel, pid, asked)?;
        // Where one fails the process is ended, as the specification has it since 1.3.
        self.poststart.run()?;
        self.moved.keep();
        let mut running = self.child.into_running(self.terminal)?;
        running.kept = self.kept;
        Ok(running)
    }

    /// Leaves the process waiting for its start over the launch's `start_socket`.
    pub fn leave(mut self) -> Result<Running, LaunchError> {
        if !self.detached {
            return Err(LaunchError::Invalid("the launch has no start socket".to_owned()));
        }
        self.moved.keep();
        self.child.into_running(self.terminal)
    }
}

/// The exec closes the child's end; anything it says instead is why it failed.
pub(crate) fn await_exec(
    channel: &mut Channel,
    pid: i32,
    asked: Option<(Listener, State)>,
) -> Result<(), LaunchError> {
    if let Some((listener, state)) = asked {
        let handed = channel.expect(Stage::Filtered)?.pop();
        let handed = handed.ok_or_else(|| LaunchError::Handshake("no seccomp listener came".to_owned()))?;
        listener.hand_over(&handed, pid, state)?;
    }
    match channel.receive(Stage::Filtered)? {
        Received::Closed => Ok(()),
        Received::Reached(_) => Err(LaunchError::Handshake("an answer after the start".to_owned())),
    }
}

/// Starts a container that another process created with a `start_socket`, over a connection to that socket.
pub(crate) fn start_over(
    connection: OwnedFd,
    spec: &spec::runtime::Spec,
    identity: Identity,
    pid: i32,
) -> Result<(), LaunchError> {
    let asked = Asks::new(spec, identity)
        .map(|asks| asks.connect(pid))
        .transpose()?;
    let mut channel = Channel::resumed(connection, Stage::Ready);
    channel.reach(Stage::Started, &[])?;
    await_exec(&mut channel, pid, asked)
}
