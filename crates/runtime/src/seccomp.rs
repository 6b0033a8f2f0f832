//! System call filters: from the configuration's document to a program for the kernel.
//!
//! `architecture` knows the numbers, `compile` makes the program, `cache` keeps compiled ones on disk, `profile`
//! is the default allow-list. Compiling is ours because it is on the start path: half a millisecond for the
//! default profile, nothing when cached.
//!
//! Sources: OCI runtime-spec config-linux.md "Seccomp", seccomp(2), libseccomp's documented behaviour.

mod action;
mod architecture;
mod cache;
mod compile;
#[cfg(test)]
mod interpreter;
mod listener;
mod profile;
mod program;

use std::os::fd::OwnedFd;
use std::path::Path;

use spec::runtime::Seccomp;
use sys::seccomp::Instruction;

use crate::error::{During, LaunchError};

pub use compile::compile;
pub(crate) use listener::{Answerer, Listener};
pub use profile::default_seccomp;

/// A document that cannot be made into a filter: what is wrong, and where in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {mistake}")]
pub struct SeccompError {
    pub place: String,
    pub mistake: Mistake,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    #[error("there is no action {0:?}")]
    Action(String),
    #[error("SCMP_ACT_NOTIFY needs listenerPath, the socket of whoever answers")]
    NoListener,
    #[error("{0} cannot have the action SCMP_ACT_NOTIFY: handing over the listener needs it")]
    CannotNotify(String),
    #[error("it is for whoever listens at listenerPath, which is not there")]
    NobodyToTell,
    #[error("there is no architecture {0:?}")]
    Architecture(String),
    #[error("there is no comparison {0:?}")]
    Comparison(String),
    #[error("{0} is no argument: a system call has arguments 0 to 5")]
    Argument(u32),
    #[error("{0} is out of range (0 to 4095)")]
    Errno(u32),
    #[error("the action {0} gives back no errno (SCMP_ACT_ERRNO and SCMP_ACT_TRACE do)")]
    NoErrno(String),
    #[error("there is no flag {0:?}")]
    Flag(String),
    #[error("it names no system call")]
    NoNames,
    #[error("they make a program of {0} instructions; the kernel takes 4096")]
    TooLong(usize),
}

impl Mistake {
    fn at(self, place: impl Into<String>) -> SeccompError {
        SeccompError {
            place: place.into(),
            mistake: self,
        }
    }
}

impl From<SeccompError> for LaunchError {
    fn from(error: SeccompError) -> LaunchError {
        LaunchError::Invalid(format!("linux.seccomp.{error}"))
    }
}

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    flags: u32,
    notifies: bool,
}

impl Filter {
    /// With a filter that notifies, gives the listener's descriptor.
    pub fn load(&self) -> Result<Option<OwnedFd>, LaunchError> {
        let step = "load the seccomp filter";
        if self.notifies {
            return sys::seccomp::load_with_listener(&self.program, self.flags)
                .map(Some)
                .during(step);
        }
        sys::seccomp::load(&self.program, self.flags).during(step)?;
        Ok(None)
    }
}

/// A container's filter, made ready once for all of its processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    pub(crate) filter: Filter,
    /// Where the filter asks somebody.
    pub(crate) answerer: Option<Answerer>,
}

/// Makes the filter of a document, or gets it from the cache.
pub fn prepare(document: &Seccomp, cache: Option<&Path>) -> Result<Prepared, LaunchError> {
    Ok(Prepared {
        filter: filter(document, cache)?,
        answerer: Answerer::of(document),
    })
}

/// The filter of a document, from the cache when it is there.
fn filter(document: &Seccomp, cache: Option<&Path>) -> Result<Filter, LaunchError> {
    let flags = flags(document)?;
    check_notifications(document)?;
    let program = match cache {
        Some(directory) => cache::load_or_make(directory, document, || compile(document)),
        None => compile(document),
    };
    Ok(Filter {
        program: program?,
        flags,
        notifies: notifies(document),
    })
}

/// What the specification forbids beyond what makes no filter.
pub(crate) fn check(document: &Seccomp) -> Result<(), SeccompError> {
    let gives = |action: &str| matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE");
    if document.default_errno_ret.is_some() && !gives(&document.default_action) {
        return Err(Mistake::NoErrno(document.default_action.clone()).at("defaultErrnoRet"));
    }
    for (index, rule) in document.syscalls.iter().enumerate() {
        if rule.errno_ret.is_some() && !gives(&rule.action) {
            return Err(Mistake::NoErrno(rule.action.clone()).at(format!("syscalls[{index}].errnoRet")));
        }
        if rule.names.is_empty() {
            return Err(Mistake::NoNames.at(format!("syscalls[{index}].names")));
        }
    }
    let told = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if told(&document.listener_metadata) && !told(&document.listener_path) {
        return Err(Mistake::NobodyToTell.at("listenerMetadata"));
    }
    Ok(())
}

/// Whether somebody outside answers for some of the calls.
fn notifies(document: &Seccomp) -> bool {
    document
        .syscalls
        .iter()
        .any(|rule| rule.action == action::NOTIFY_NAME)
}

fn check_notifications(document: &Seccomp) -> Result<(), SeccompError> {
    // Between the filter and the exec lies this one call, which nobody could answer for yet.
    const NEEDED: &str = "sendmsg";
    if document.default_action == action::NOTIFY_NAME {
        return Err(Mistake::CannotNotify("every system call".to_owned()).at("defaultAction"));
    }
    let listens = document
        .listener_path
        .as_ref()
        .is_some_and(|path| !path.is_empty());
    let mut rules = document.syscalls.iter().enumerate();
    match rules.find(|(_, rule)| rule.action == action::NOTIFY_NAME) {
        Some((index, _)) if !listens => {
            return Err(Mistake::NoListener.at(format!("syscalls[{index}].action")));
        }
        _ => {}
    }
    for (index, rule) in document.syscalls.iter().enumerate() {
        if rule.action == action::NOTIFY_NAME && rule.names.iter().any(|name| name == NEEDED) {
            let place = format!("syscalls[{index}].action");
            return Err(Mistake::CannotNotify(NEEDED.to_owned()).at(place));
        }
    }
    Ok(())
}

fn flags(document: &Seccomp) -> Result<u32, SeccompError> {
    const LOG: u32 = 1 << 1;
    const SPEC_ALLOW: u32 = 1 << 2;
    const WAIT_KILLABLE: u32 = 1 << 5;
    if document.flags.is_empty() {
        // As the field's runtimes do: filtering system calls is no reason to slow down speculation.
        return Ok(SPEC_ALLOW);
    }
    let mut bits = 0;
    for (index, flag) in document.flags.iter().enumerate() {
        bits |= match flag.as_str() {
            // One thread loads the filter; there is nobody to synchronise.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => SPEC_ALLOW,
            // The kernel wants it together with a listener only.
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" if notifies(document) => WAIT_KILLABLE,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => 0,
            other => return Err(Mistake::Flag(other.to_owned()).at(format!("flags[{index}]"))),
        };
    }
    Ok(bits)
}
