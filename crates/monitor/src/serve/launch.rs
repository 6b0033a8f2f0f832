//! From a launch request to a running container. Whatever fails takes back what was made before it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use cgroup::Cgroup;
use jiff::Timestamp;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use spec::ErrorClass;
use spec::runtime::{ConsoleSize, Resources, Spec};
use sys::event::Signals;

use super::internal;
use super::relay::Relay;
use super::session::{Ends, Session};
use super::supervisor::{MAIN, Parts, Supervisor};
use crate::log::Writer;
use crate::protocol::{Failed, Launch, Started, Took};
use crate::socket::Listener;

/// A configuration holds environments, mounts and a system call filter; more than this is no configuration.
const MAX_CONFIG: u64 = 16 << 20;

/// The descriptors of a launch, each where it belongs.
struct Descriptors {
    netns: Option<OwnedFd>,
    userns: Option<OwnedFd>,
    dns: Option<dns::Sockets>,
    streams: Vec<OwnedFd>,
    relay: Vec<OwnedFd>,
    init: Option<OwnedFd>,
}

impl Descriptors {
    fn split(launch: &Launch, fds: Vec<OwnedFd>) -> Result<Self, Failed> {
        let dns = if launch.has_dns { 2 } else { 0 };
        let rest = dns
            + launch.attach.len()
            + launch.relay.len()
            + usize::from(launch.init)
            + usize::from(launch.has_userns);
        let wrong = || {
            let text = format!(
                "a launch came with {} descriptors where {rest} or one more were due",
                fds.len()
            );
            Failed::new(ErrorClass::Invalid, text)
        };
        let with_netns = match fds.len().checked_sub(rest) {
            Some(0) => false,
            Some(1) => true,
            _ => return Err(wrong()),
        };
        let mut fds = fds.into_iter();
        let netns = if with_netns { fds.next() } else { None };
        let userns = if launch.has_userns { fds.next() } else { None };
        let dns = match (
            launch.has_dns.then(|| fds.next()).flatten(),
            launch.has_dns.then(|| fds.next()).flatten(),
        ) {
            (Some(udp), Some(tcp)) => Some(dns::Sockets { udp, tcp }),
            _ => None,
        };
        let mut streams: Vec<OwnedFd> = fds.collect();
        let init = if launch.init { streams.pop() } else { None };
        let relay = streams.split_off(launch.attach.len().min(streams.len()));
        Ok(Self {
            netns,
            userns,
            dns,
            streams,
            relay,
            init,
        })
    }
}

/// Makes the container and starts its process.
pub(super) fn start(launch: Launch, fds: Vec<OwnedFd>) -> Result<Supervisor, Failed> {
    let begun = Instant::now();
    let descriptors = Descriptors::split(&launch, fds)?;
    // Before anything that may take its time: whoever waits for the start finds the monitor by it, and can end it.
    let listener = Listener::bind(&launch.run_dir, &launch.id)
        .map_err(|error| internal("listen on its control socket", &error))?;
    let mut config = read_config(&launch.bundle)?;
    let signals = Signals::block(&[SIGCHLD]).map_err(|error| internal("receive signals", &error))?;
    let log = Writer::open(&launch.log).map_err(|error| {
        Failed::new(
            ErrorClass::Internal,
            format!("failed to create task for container: {error}"),
        )
    })?;
    let limits = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let group = launch
        .cgroup
        .make(
            &format!("Container {}", launch.id),
            limits.unwrap_or(&Resources::default()),
        )
        .map_err(|error| of_cgroup(&error))?;
    // Of a failure nothing is left but an empty group that cannot be removed, which the daemon finds again.
    let container = start_in(&launch, descriptors, &mut config, &signals, group.cgroup(), begun)?;
    let cgroup = group.cgroup().clone();
    group.keep();
    Supervisor::new(Parts {
        launch,
        listener,
        signals,
        log,
        cgroup,
        container,
    })
}

const SIGCHLD: i32 = 17;

/// A running container and the monitor's ends of it.
pub(super) struct Container {
    pub(super) process: runtime::Running,
    pub(super) session: Session,
    pub(super) dns: Option<dns::Server>,
    pub(super) relay: Option<Relay>,
    pub(super) started: Started,
    pub(super) begun: Instant,
}

fn start_in(
    launch: &Launch,
    descriptors: Descriptors,
    config: &mut Spec,
    signals: &Signals,
    cgroup: &Cgroup,
    mut begun: Instant,
) -> Result<Container, Failed> {
    if let Some(resources) = config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
        cgroup.apply(resources).map_err(|error| of_cgroup(&error))?;
    }
    let mut took = Took {
        group: lap(&mut begun),
        ..Took::default()
    };
    let dns = match (descriptors.dns, &launch.dns) {
        (Some(sockets), Some(config)) => {
            Some(dns::Server::new(sockets, config.clone()).map_err(|error| internal("serve names", &error))?)
        }
        _ => None,
    };
    let relay = match launch.relay.is_empty() {
        true => None,
        false => Some(
            relay_of(launch, descriptors.relay).map_err(|error| internal("serve published ports", &error))?,
        ),
    };
    if let Some(process) = &mut config.process {
        process.terminal = launch.tty;
        if let Some((height, width)) = launch.console_size {
            process.console_size = Some(ConsoleSize { height, width });
        }
    }
    let (stdio, ends) = if launch.tty {
        (runtime::Stdio::Terminal, Ends::None)
    } else {
        pipes(launch.open_stdin).map_err(|error| internal("make the container's pipes", &error))?
    };
    let mut request = runtime::Launch::new(
        &launch.id,
        &launch.bundle,
        config,
        runtime::RootFs::Overlay(&launch.rootfs),
        stdio,
    );
    request.netns = descriptors.netns.as_ref().map(AsFd::as_fd);
    request.userns = descriptors.userns.as_ref().map(AsFd::as_fd);
    request.cgroup = Some(cgroup);
    request.init = descriptors.init.as_ref().map(AsFd::as_fd);
    request.seccomp_cache = launch.seccomp_cache.as_deref();
    // Without a monitor nobody takes its output, reaps or records its end; a daemon that could end it may be gone, too.
    request.dies_with_caller = true;
    // Signals are let through meanwhile: the mask would be inherited by the container's process.
    let process = signals
        .lifted(|| {
            runtime::create(request).and_then(|mut created| {
                took.container = lap(&mut begun);
                let terminal = created.terminal();
                let mut running = created.start()?;
                took.exec = lap(&mut begun);
                running.terminal = running.terminal.take().or(terminal);
                Ok(running)
            })
        })
        .map_err(|error| internal("set its signal mask", &error))?;
    let mut process = process.map_err(|error| Failed {
        message: error.to_string(),
        class: error.class(),
        exit_code: Some(error.exit_code()),
    })?;
    let started = Started {
        pid: process.pid,
        started_at: Timestamp::now(),
        took,
    };
    let ends = match process.terminal.take() {
        Some(terminal) => {
            if let Some((rows, cols)) = launch.console_size {
                // A terminal of the wrong size is still a terminal.
                let _ = sys::terminal::resize(&terminal, rows, cols);
            }
            Ends::Terminal(terminal)
        }
        None => ends,
    };
    let mut session = Session::new(MAIN, ends, launch.stdin_once, launch.dir().into())
        .map_err(|error| internal("use the container's pipes", &error))?;
    for (streams, socket) in launch.attach.iter().zip(descriptors.streams) {
        session.attach(socket, *streams, launch.tty, true);
    }
    Ok(Container {
        process,
        session,
        dns,
        relay,
        started,
        begun: Instant::now(),
    })
}

/// Clients may come from here on, and wait until the container runs.
fn relay_of(launch: &Launch, sockets: Vec<OwnedFd>) -> io::Result<Relay> {
    let mut relay = Relay::new()?;
    relay.set(launch.relay.clone(), sockets.into_iter().enumerate().collect())?;
    Ok(relay)
}

/// Microseconds since it was asked last.
fn lap(begun: &mut Instant) -> u64 {
    let now = Instant::now();
    let took = now - std::mem::replace(begun, now);
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// The process's ends and ours. Without `stdin` it reads end-of-file. Whoever the process runs as is made the owner of
/// its ends by the runtime, or it could not open `/dev/stdout` and its like again.
pub(super) fn pipes(stdin: bool) -> io::Result<(runtime::Stdio, Ends)> {
    let (stdin, our_stdin) = if stdin {
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
        (theirs, Some(ours))
    } else {
        (null()?, None)
    };
    let (our_stdout, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (our_stderr, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let ends = Ends::Pipes {
        stdin: our_stdin,
        stdout: our_stdout,
        stderr: our_stderr,
    };
    Ok((
        runtime::Stdio::Streams {
            stdin,
            stdout,
            stderr,
        },
        ends,
    ))
}

/// All three streams at /dev/null.
pub(super) fn no_streams() -> io::Result<runtime::Stdio> {
    Ok(runtime::Stdio::Streams {
        stdin: null()?,
        stdout: null()?,
        stderr: null()?,
    })
}

fn null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(
        "/dev/null",
        OFlags::RDWR | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

/// `<bundle>/config.json`.
pub(super) fn read_config(bundle: &Path) -> Result<Spec, Failed> {
    let path = bundle.join("config.json");
    let read = || -> io::Result<Spec> {
        let mut text = Vec::new();
        File::open(&path)?.take(MAX_CONFIG).read_to_end(&mut text)?;
        serde_json::from_slice(&text).map_err(io::Error::from)
    };
    read().map_err(|error| internal(&format!("read {}", path.display()), &error))
}

fn of_cgroup(error: &cgroup::CgroupError) -> Failed {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    Failed {
        message,
        class: error.class(),
        exit_code: Some(125),
    }
}
