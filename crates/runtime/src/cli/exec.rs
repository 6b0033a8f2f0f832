//! `exec`.

use std::fs;
use std::os::fd::AsFd;

use spec::runtime::{Process, Status};

use super::arguments::ExecOptions;
use super::console;
use super::create::write_pid;
use super::error::CliError;
use super::state::{Containers, Record};
use crate::exec::Exec;
use crate::launch::Stdio;

pub(super) fn exec(containers: &Containers, options: ExecOptions) -> Result<i32, CliError> {
    if options.preserve_fds != 0 {
        return Err(CliError::Usage("--preserve-fds is not supported".to_owned()));
    }
    let record = containers.load(&options.id)?;
    let status = containers.status(&record);
    if status != Status::Running {
        return Err(CliError::Status {
            action: "exec in",
            status,
        });
    }
    let target = record
        .process()
        .ok_or_else(|| CliError::NotRunning(record.id.clone()))?;
    let process = process(&record, &options)?;
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
    let cgroup = record.cgroup()?;
    let running = crate::exec::exec(Exec {
        target_pid: record.pid,
        target_pidfd: target.as_fd(),
        process: &process,
        stdio: if process.terminal {
            Stdio::Terminal
        } else {
            Stdio::Inherit
        },
        cgroup: Some(&cgroup),
        seccomp: record
            .spec
            .linux
            .as_ref()
            .and_then(|linux| linux.seccomp.as_ref()),
        seccomp_cache: None,
        default_rlimits: &[],
    })?;
    if let (Some(path), Some(master)) = (&options.console_socket, &running.terminal) {
        console::hand_over(path, master)?;
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
        let bytes = fs::read(path).map_err(|error| CliError::io(&path.display().to_string(), error))?;
        return serde_json::from_slice(&bytes).map_err(|error| CliError::Config {
            path: path.clone(),
            reason: error.to_string(),
        });
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
    }
    Ok(process)
}
