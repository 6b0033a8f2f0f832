//! `exec`.

use std::os::fd::AsFd;

use cgroup::Below;
use spec::runtime::{Process, Status};

use super::arguments::ExecOptions;
use super::console;
use super::create::write_pid;
use super::document;
use super::error::CliError;
use super::inherited;
use super::rdt;
use super::state::{Containers, Record};
use crate::exec::{Exec, Membership};
use crate::launch::Stdio;

pub(super) fn exec(containers: &Containers, options: ExecOptions) -> Result<i32, CliError> {
    // Looked at before anything else is opened: afterwards the numbers could be our own.
    let preserved = inherited::check(options.preserve_fds)?;
    let record = containers.load(&options.id)?;
    let status = containers.status(&record);
    let runs = match status {
        Status::Created | Status::Running => true,
        Status::Paused => options.ignore_paused,
        Status::Creating | Status::Stopped => false,
    };
    if !runs {
        return Err(CliError::Status {
            action: "exec in",
            status,
        });
    }
    let target = record
        .process()
        .ok_or_else(|| CliError::NotRunning(record.id.clone()))?;
    let mut process = process(&record, &options)?;
    crate::process::check(&process)?;
    let below = Below::parse(&options.cgroup)?;
    inherited::tell(preserved, &mut process.env);
    if process.terminal && options.detach && options.console_socket.is_none() {
        return Err(CliError::Usage(
            "a detached process with a terminal needs --console-socket".to_owned(),
        ));
    }
    let signals = if options.detach {
        None
    } else {
        Some(console::take_signals()?)
    };
    let cgroup = match options.cgroup.is_empty() {
        true => record.optional_cgroup()?,
        false => Some(record.cgroup()?),
    };
    let membership = cgroup.as_ref().map(|cgroup| Membership::below(cgroup, &below));
    let membership = membership.transpose()?;
    let stdio = if process.terminal {
        Stdio::Terminal
    } else {
        Stdio::Inherit
    };
    let linux = record.spec.linux.as_ref();
    let filter = linux
        .and_then(|linux| linux.seccomp.as_ref())
        .map(|document| crate::seccomp::prepare(document, None))
        .transpose()?;
    // What is cloned from here is where this process is.
    rdt::enter(&record.classed, std::process::id())?;
    let running = crate::exec::exec(Exec {
        cgroup: membership.as_ref(),
        personality: linux.and_then(|linux| linux.personality.as_ref()),
        memory_policy: linux.and_then(|linux| linux.memory_policy.as_ref()),
        callers_keyring: record.callers_keyring,
        filter: filter.as_ref(),
        preserve_fds: preserved.count(),
        identity: record.identity(),
        ..Exec::new(record.pid, target.as_fd(), &process, stdio)
    })?;
    if let (Some(path), Some(master)) = (&options.console_socket, &running.terminal) {
        console::hand_over(path, master)?;
    }
    if let Some(path) = &options.pidfd_socket {
        console::hand_over_process(path, running.pidfd.as_fd())?;
    }
    if let Some(path) = &options.pid_file {
        write_pid(path, running.pid)?;
    }
    match signals {
        None => Ok(0),
        Some(signals) => {
            let shown = running
                .terminal
                .as_ref()
                .filter(|_| options.console_socket.is_none());
            Ok(console::attend(running.pidfd.as_fd(), shown, &signals)?.code())
        }
    }
}

/// The container's own process with what the options change.
fn process(record: &Record, options: &ExecOptions) -> Result<Process, CliError> {
    if let Some(path) = &options.process {
        return document::read(path);
    }
    if options.command.is_empty() {
        return Err(CliError::Usage("exec needs a command or --process".to_owned()));
    }
    let mut process = record.spec.process.clone().unwrap_or_default();
    process.args.clone_from(&options.command);
    process.terminal = options.tty;
    process.console_size = None;
    process.env.extend(options.env.iter().cloned());
    process.no_new_privileges |= options.no_new_privs;
    if let Some(profile) = &options.apparmor {
        process.apparmor_profile.clone_from(profile);
    }
    if let Some(label) = &options.process_label {
        process.selinux_label.clone_from(label);
    }
    if let Some(cwd) = &options.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some(user) = &options.user {
        let (uid, gid) = user.split_once(':').unwrap_or((user, ""));
        let number = |text: &str| {
            text.parse::<u32>()
                .map_err(|_| CliError::Usage(format!("--user {user:?} is not UID[:GID]")))
        };
        process.user.uid = number(uid)?;
        if !gid.is_empty() {
            process.user.gid = number(gid)?;
        }
    }
    process.user.additional_gids.extend(&options.additional_gids);
    if !options.cap.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(options.cap.iter().cloned());
        }
        // An ambient one must be inheritable, and no option makes it that.
        if !sets.inheritable.is_empty() {
            sets.ambient.extend(options.cap.iter().cloned());
        }
    }
    Ok(process)
}
