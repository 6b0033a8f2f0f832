//! `start`, `kill`, `delete`, `pause`, `resume`.

use std::fs;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use spec::runtime::Status;

use super::error::CliError;
use super::rdt;
use super::signal;
use super::state::{Containers, Record};
use crate::LaunchError;
use crate::hooks::HookPlan;
use crate::launch::start_over;

const SIGKILL: i32 = 9;

/// How long `delete --force` waits for a killed process to be gone.
const GONE: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

pub(super) fn start(containers: &Containers, id: &str) -> Result<i32, CliError> {
    let record = containers.load(id)?;
    let status = containers.status(&record);
    if status != Status::Created {
        return Err(CliError::Status {
            action: "start",
            status,
        });
    }
    let result = containers
        .connect(id)
        .and_then(|socket| Ok(start_over(socket, &record.spec, record.identity(), record.pid)?));
    // Started or dead, it does not wait there any more.
    let _ = fs::remove_file(containers.start_socket(id));
    let hooks = HookPlan::new(&record.spec, record.identity());
    let result = result.and_then(|()| Ok(hooks.poststart(record.pid).run()?));
    let Err(error) = result else { return Ok(0) };
    // It may still wait, for a start or for an answer to a system call; and where a hook has failed, nothing of it stays.
    end(&record)?;
    if matches!(&error, CliError::Launch(LaunchError::Hook { .. }))
        && let Err(left) = destroy(containers, &record)
    {
        tracing::warn!("container {id}, which a hook ended: {}", left.sentence());
    }
    Err(error)
}

/// Takes back all that was made for a container whose processes are gone.
fn destroy(containers: &Containers, record: &Record) -> Result<(), CliError> {
    if !record.cgroup_name.is_empty() {
        record.place().remove()?;
    }
    rdt::remove(&record.classes)?;
    HookPlan::new(&record.spec, record.identity()).run_poststop();
    containers.remove(&record.id)
}

pub(super) fn kill(containers: &Containers, id: &str, name: &str, all: bool) -> Result<i32, CliError> {
    let signal = signal::parse(name)?;
    let record = containers.load(id)?;
    if all {
        for pid in record.cgroup()?.pids()? {
            // One that has just ended is as dead as it should be.
            let _ = sys::process::kill(pid, signal);
        }
        return Ok(0);
    }
    let Some(process) = record.process() else {
        return Err(CliError::NotRunning(id.to_owned()));
    };
    sys::process::send_signal(process.as_fd(), signal)
        .map_err(|error| CliError::io("send the signal", error))?;
    Ok(0)
}

pub(super) fn delete(containers: &Containers, id: &str, force: bool) -> Result<i32, CliError> {
    let record = match containers.load(id) {
        Ok(record) => record,
        Err(CliError::NoContainer(_)) if force => {
            // What a creation that was killed may have left.
            containers.remove(id)?;
            return Ok(0);
        }
        Err(error @ CliError::Config { .. }) if force => {
            containers.remove(id)?;
            let told = error.sentence();
            tracing::warn!("{told}; what is left of the container's processes and cgroup is not known");
            return Ok(0);
        }
        Err(error) => return Err(error),
    };
    match containers.status(&record) {
        Status::Stopped => {}
        // Nothing of the user's has run yet.
        Status::Created => end(&record)?,
        _ if force => end(&record)?,
        status => {
            return Err(CliError::Status {
                action: "delete",
                status,
            });
        }
    }
    destroy(containers, &record)?;
    Ok(0)
}

fn end(record: &Record) -> Result<(), CliError> {
    let Some(process) = record.process() else {
        return Ok(());
    };
    let _ = sys::process::send_signal(process.as_fd(), SIGKILL);
    if let Ok(cgroup) = record.cgroup() {
        cgroup.kill_all()?;
        let _ = cgroup.thaw();
    }
    let mut fds = [PollFd::new(&process, PollFlags::IN)];
    match poll(&mut fds, Some(&GONE)) {
        Ok(0) => Err(CliError::Io {
            what: format!("container {}", record.id),
            reason: format!(
                "its process {} is still there after {:?}",
                record.pid,
                Duration::from_secs(10)
            ),
        }),
        _ => Ok(()),
    }
}

pub(super) fn pause(containers: &Containers, id: &str) -> Result<i32, CliError> {
    let record = containers.load(id)?;
    match containers.status(&record) {
        Status::Running | Status::Created => record.cgroup()?.freeze()?,
        status => {
            return Err(CliError::Status {
                action: "pause",
                status,
            });
        }
    }
    Ok(0)
}

pub(super) fn resume(containers: &Containers, id: &str) -> Result<i32, CliError> {
    let record = containers.load(id)?;
    match containers.status(&record) {
        Status::Paused => record.cgroup()?.thaw()?,
        status => {
            return Err(CliError::Status {
                action: "resume",
                status,
            });
        }
    }
    Ok(0)
}
