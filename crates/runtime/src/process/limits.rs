//! Resource limits and the badness score. From inside a user namespace they could not be raised: limits are set by the
//! caller from outside, and so is the score of a first process; an additional one sets its own before it goes in.
//!
//! A limit of the configuration that this host does not let us raise is an error that names the maximum; a
//! default of the engine's is lowered to the maximum instead.
//!
//! Source: getrlimit(2); raising the hard limit needs CAP_SYS_RESOURCE.

use std::io;

use spec::runtime::Rlimit;

use crate::error::{During, LaunchError, reason};

/// By the kernel's number.
const NAMES: [&str; 16] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];

fn number(name: &str) -> Option<u32> {
    NAMES
        .iter()
        .position(|known| *known == name)
        .and_then(|number| u32::try_from(number).ok())
}

pub(crate) fn apply(pid: i32, limits: &[Rlimit], defaults: &[Rlimit]) -> Result<(), LaunchError> {
    for limit in limits {
        let resource = resource(limit)?;
        if let Err(error) = sys::process::set_limit(pid, resource, limit.soft, limit.hard) {
            let (_, maximum) = sys::process::limit(pid, resource).unwrap_or((0, 0));
            return Err(LaunchError::Limit {
                name: limit.r#type.clone(),
                soft: limit.soft,
                hard: limit.hard,
                maximum,
                reason: reason(&error),
            });
        }
    }
    for default in defaults
        .iter()
        .filter(|default| !limits.iter().any(|limit| limit.r#type == default.r#type))
    {
        let resource = resource(default)?;
        match sys::process::set_limit(pid, resource, default.soft, default.hard) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let (_, maximum) = sys::process::limit(pid, resource).during("read a limit")?;
                let (soft, hard) = (default.soft.min(maximum), default.hard.min(maximum));
                sys::process::set_limit(pid, resource, soft, hard).during(&default.r#type)?;
            }
            other => other.during(&default.r#type)?,
        }
    }
    Ok(())
}

/// Whether the limits of a configuration are limits, each of another kind.
pub(crate) fn check(limits: &[Rlimit]) -> Result<(), LaunchError> {
    for (index, limit) in limits.iter().enumerate() {
        let place = format!("process.rlimits[{index}]");
        let why = if number(&limit.r#type).is_none() {
            format!("{place}.type: there is no rlimit {:?}", limit.r#type)
        } else if limit.soft > limit.hard {
            format!(
                "{place}.soft: {} is above the hard limit {}",
                limit.soft, limit.hard
            )
        } else if limits
            .iter()
            .take(index)
            .any(|known| known.r#type == limit.r#type)
        {
            format!("{place}.type: {} is listed twice", limit.r#type)
        } else {
            continue;
        };
        return Err(LaunchError::Invalid(why));
    }
    Ok(())
}

fn resource(limit: &Rlimit) -> Result<u32, LaunchError> {
    if limit.soft > limit.hard {
        return Err(LaunchError::Invalid(format!(
            "process.rlimits: {}: the soft limit {} is above the hard limit {}",
            limit.r#type, limit.soft, limit.hard
        )));
    }
    number(&limit.r#type).ok_or_else(|| {
        LaunchError::Invalid(format!("process.rlimits: there is no rlimit {:?}", limit.r#type))
    })
}

pub(crate) fn set_oom_score(pid: i32, score: i32) -> Result<(), LaunchError> {
    write_oom_score(&format!("/proc/{pid}/oom_score_adj"), score)
}

/// For the calling process and what it makes from now on.
pub(crate) fn set_own_oom_score(score: i32) -> Result<(), LaunchError> {
    write_oom_score("/proc/self/oom_score_adj", score)
}

fn write_oom_score(path: &str, score: i32) -> Result<(), LaunchError> {
    std::fs::write(path, score.to_string()).during(&format!("set oom_score_adj to {score}"))
}
