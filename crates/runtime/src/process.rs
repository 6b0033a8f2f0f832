//! The process itself: what it runs, as whom, with which rights, and the last steps of the child that becomes it.
//!
//! `ProcessPlan` is made and checked in the caller; `become_ready` and `execute` run in the child, for the
//! first process of a container and for an additional one alike. Rights are given up in an order that never
//! needs one that is already gone: bounding set, groups, user, (wait for the start), system call filter,
//! capabilities, exec.

mod credentials;
mod environment;
mod head;
pub(crate) mod limits;
pub(crate) mod lookup;
pub(crate) mod scheduling;
pub(crate) mod security;
pub(crate) mod stdio;

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::Signal;
use spec::runtime::{MemoryPolicy, Personality, Process, Rlimit};

use crate::error::{During, LaunchError, reason};
use crate::handshake::{Channel, Stage};
use crate::seccomp::Filter;
use credentials::Credentials;
use scheduling::{Affinity, Scheduling};

/// The first descriptor after the standard ones.
const FIRST: u32 = 3;

/// The variable that tells a process whether descriptors of socket activation are meant for it. Left empty in a
/// plan, it is filled by the process, which alone knows its number.
pub(crate) const LISTEN_PID: &str = "LISTEN_PID";

#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub program: String,
    pub args: Vec<CString>,
    pub env: Vec<String>,
    pub cwd: PathBuf,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub terminal: bool,
    /// How many descriptors from 3 on the program gets.
    pub preserve_fds: u32,
    /// Whether the program is killed when the caller ends.
    pub dies_with_caller: bool,
    /// It has the caller's keys and not fresh ones.
    pub callers_keyring: bool,
    credentials: Credentials,
    umask: u32,
    no_new_privileges: bool,
    security: security::Labels,
    personality: Option<u64>,
    scheduling: Scheduling,
    pub affinity: Affinity,
    filter: Option<Filter>,
}

/// Whether a process can be what its configuration says, as far as can be told before anything of it is made.
pub(crate) fn check(process: &Process) -> Result<(), LaunchError> {
    let invalid = |text: String| Err(LaunchError::Invalid(text));
    program(process)?;
    strings("process.args", &process.args)?;
    cwd(process)?;
    environment::normalise(&process.env)?;
    strings("process.env", &process.env)?;
    if let Some(umask) = process.user.umask.filter(|umask| *umask > 0o777) {
        return invalid(format!("process.user.umask: {umask} is not 0 to 511"));
    }
    limits::check(&process.rlimits)?;
    let score = process.oom_score_adj;
    if let Some(score) = score.filter(|score| !(-1000..=1000).contains(score)) {
        return invalid(format!("process.oomScoreAdj: {score} is not -1000 to 1000"));
    }
    security::Labels::new(process)?;
    Scheduling::new(process, None)?;
    Affinity::new(process.exec_cpu_affinity.as_ref()).map(drop)
}

fn program(process: &Process) -> Result<String, LaunchError> {
    let first = process.args.first().cloned();
    first.ok_or_else(|| LaunchError::Invalid("process.args is empty".to_owned()))
}

fn cwd(process: &Process) -> Result<PathBuf, LaunchError> {
    let why = match process.cwd.as_str() {
        path if !Path::new(path).is_absolute() => "is not absolute",
        path if path.contains('\0') => "has a null byte",
        path => return Ok(PathBuf::from(path)),
    };
    Err(LaunchError::Invalid(format!(
        "process.cwd {:?} {why}",
        process.cwd
    )))
}

impl ProcessPlan {
    pub fn new(
        process: &Process,
        personality: Option<&Personality>,
        memory: Option<&MemoryPolicy>,
        filter: Option<Filter>,
    ) -> Result<ProcessPlan, LaunchError> {
        let terminal = process.terminal;
        Ok(ProcessPlan {
            args: strings("process.args", &process.args)?,
            env: environment::normalise(&process.env)?,
            cwd: cwd(process)?,
            rlimits: process.rlimits.clone(),
            oom_score_adj: process.oom_score_adj,
            console_size: process.console_size.map(|size| (size.height, size.width)),
            terminal,
            preserve_fds: 0,
            dies_with_caller: false,
            callers_keyring: false,
            credentials: Credentials::new(&process.user, process.capabilities.as_ref()),
            umask: process.user.umask.unwrap_or(0o022),
            no_new_privileges: process.no_new_privileges,
            security: security::Labels::new(process)?,
            personality: personality.map(security::domain).transpose()?,
            scheduling: Scheduling::new(process, memory)?,
            affinity: Affinity::new(process.exec_cpu_affinity.as_ref())?,
            filter,
            program: program(process)?,
        })
    }

    /// The user it becomes.
    pub fn uid(&self) -> u32 {
        self.credentials.uid
    }

    /// Keys of its own for the process that becomes the program, unless it keeps the caller's.
    pub fn new_keyring(&self) -> Result<(), LaunchError> {
        if self.callers_keyring {
            return Ok(());
        }
        self.security.new_keyring()
    }

    /// The descriptors that the program gets beside the standard ones.
    pub fn preserved(&self) -> impl Iterator<Item = RawFd> {
        (FIRST..FIRST + self.preserve_fds).filter_map(|number| RawFd::try_from(number).ok())
    }

    /// In the child, inside its root and with its standard streams in place: everything but what must wait for
    /// the start. Gives the path of the program's file.
    pub fn become_ready(&mut self) -> Result<PathBuf, LaunchError> {
        environment::add_home(&mut self.env, self.credentials.uid);
        self.learn_number();
        stdio::give_to(self.credentials.uid);
        self.security.prepare()?;
        if let Some(domain) = self.personality {
            sys::process::set_personality(domain).during("set linux.personality")?;
        }
        self.scheduling.apply()?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).during("set no_new_privs")?;
        }
        let entered = rustix::process::chdir(&self.cwd);
        self.credentials.take()?;
        if entered.is_err() {
            // The user may have rights that root lacks (a network filesystem).
            rustix::process::chdir(&self.cwd).map_err(|error| self.cwd_error(&reason(&error.into())))?;
        }
        self.check_cwd()?;
        rustix::process::umask(Mode::from_raw_mode(self.umask));
        lookup::find(&self.program, &self.env)
    }

    /// In the child: the last steps. Returns only on failure.
    pub fn execute(&self, program: &Path, channel: &mut Channel) -> LaunchError {
        match self.finish(channel) {
            Err(error) => error,
            Ok(env) => match CString::new(program.as_os_str().as_encoded_bytes()) {
                Err(_) => LaunchError::Invalid("process.args has a null byte".to_owned()),
                Ok(path) => {
                    let error = sys::process::exec(&path, &self.args, &env);
                    lookup::explain(&program.display().to_string(), program, &error)
                }
            },
        }
    }

    fn finish(&self, channel: &mut Channel) -> Result<Vec<CString>, LaunchError> {
        let env = strings("process.env", &self.env)?;
        sys::process::reset_signals().during("reset signals")?;
        // Anew where it is to stay: the change of ids has cleared it. The filter that follows may not allow it.
        let on_death = self.dies_with_caller.then_some(Signal::KILL);
        rustix::process::set_parent_process_death_signal(on_death).during("set the death signal")?;
        if self.dies_with_caller {
            // A caller that ended before the signal was set sends none.
            channel.check_peer()?;
        }
        sys::fd::set_cloexec_from(FIRST + self.preserve_fds).during("close descriptors")?;
        match &self.filter {
            // Without no_new_privs only a privileged process may load a filter, so it comes before the last
            // right is given up; with it, it comes last and need not allow capset(2).
            Some(filter) if !self.no_new_privileges => {
                self.credentials.raise_for_filter()?;
                hand_over(filter.load()?, channel)?;
                self.credentials.limit()?;
            }
            Some(filter) => {
                self.credentials.limit()?;
                hand_over(filter.load()?, channel)?;
            }
            None => self.credentials.limit()?,
        }
        Ok(env)
    }

    fn learn_number(&mut self) {
        let empty = format!("{LISTEN_PID}=");
        for variable in self.env.iter_mut().filter(|variable| **variable == empty) {
            variable.push_str(&rustix::process::getpid().as_raw_nonzero().to_string());
        }
    }

    /// The working directory must be below the root: a descriptor of the host that survived until here could
    /// make it point outside (CVE-2024-21626).
    fn check_cwd(&self) -> Result<(), LaunchError> {
        let path =
            rustix::process::getcwd(Vec::new()).map_err(|error| self.cwd_error(&reason(&error.into())))?;
        if path.to_bytes().starts_with(b"/") {
            return Ok(());
        }
        Err(self.cwd_error("current working directory is outside of container mount namespace root"))
    }

    fn cwd_error(&self, reason: &str) -> LaunchError {
        LaunchError::WorkingDirectory {
            path: self.cwd.display().to_string(),
            reason: reason.to_owned(),
        }
    }
}

/// Gives the filter's listener to the caller, who knows for whom it is.
fn hand_over(listener: Option<OwnedFd>, channel: &mut Channel) -> Result<(), LaunchError> {
    match listener {
        Some(listener) => channel.reach(Stage::Filtered, &[listener.as_fd()]),
        None => Ok(()),
    }
}

fn strings(what: &str, list: &[String]) -> Result<Vec<CString>, LaunchError> {
    let each = list.iter().enumerate().map(|(index, text)| {
        CString::new(text.as_str())
            .map_err(|_| LaunchError::Invalid(format!("{what}[{index}]: {text:?} has a null byte")))
    });
    each.collect()
}
