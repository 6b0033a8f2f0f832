//! `create` and `run`.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use cgroup::Cgroup;
use spec::runtime::Spec;

use super::arguments::CreateOptions;
use super::console;
use super::error::CliError;
use super::lifecycle;
use super::state::{self, Containers, Record};
use crate::launch::{Launch, RootFs, Running, Stdio};

pub(super) fn create(containers: &Containers, options: &CreateOptions) -> Result<i32, CliError> {
    if options.detach {
        return Err(CliError::Usage(
            "create has no --detach; a created container is detached".to_owned(),
        ));
    }
    make(containers, options, false)?;
    Ok(0)
}

pub(super) fn run(containers: &Containers, options: &CreateOptions) -> Result<i32, CliError> {
    let signals = if options.detach {
        None
    } else {
        Some(console::take_signals()?)
    };
    let running = make(containers, options, !options.detach)?;
    let started = lifecycle::start(containers, &options.id);
    let Some(signals) = signals.filter(|_| started.is_ok()) else {
        if started.is_err() {
            lifecycle::delete(containers, &options.id, true)?;
        }
        return started;
    };
    let exit = console::attend(running.pidfd.as_fd(), running.terminal.as_ref(), &signals)?;
    if !options.keep {
        lifecycle::delete(containers, &options.id, true)?;
    }
    Ok(exit.code())
}

/// Everything up to the start. On failure nothing is left.
fn make(containers: &Containers, options: &CreateOptions, foreground: bool) -> Result<Running, CliError> {
    if options.preserve_fds != 0 {
        return Err(CliError::Usage("--preserve-fds is not supported".to_owned()));
    }
    if options.no_pivot {
        return Err(CliError::Usage(
            "--no-pivot is not supported: the root could be left".to_owned(),
        ));
    }
    let bundle = state::absolute(&options.bundle)?;
    let spec = read_spec(&bundle.join("config.json"))?;
    containers.reserve(&options.id)?;
    let (parent, name) = state::cgroup_names(
        spec.linux
            .as_ref()
            .and_then(|linux| linux.cgroups_path.as_deref()),
        &options.id,
    );
    let result = launch(containers, options, &bundle, spec, (&parent, &name), foreground);
    if result.is_err() {
        let _ = containers.remove(&options.id);
        if let Ok(cgroup) = Cgroup::open(&parent, &name) {
            let _ = cgroup.remove();
        }
    }
    result
}

fn launch(
    containers: &Containers,
    options: &CreateOptions,
    bundle: &Path,
    spec: Spec,
    (parent, name): (&str, &str),
    foreground: bool,
) -> Result<Running, CliError> {
    let console_socket = options.console_socket.as_deref();
    let root = spec
        .root
        .as_ref()
        .map(|root| bundle.join(&root.path))
        .ok_or_else(|| CliError::Config {
            path: bundle.join("config.json"),
            reason: "root is missing".to_owned(),
        })?;
    let wants_terminal = spec.process.as_ref().is_some_and(|process| process.terminal);
    if wants_terminal && console_socket.is_none() && !foreground {
        return Err(CliError::Usage(
            "a detached container with a terminal needs --console-socket".to_owned(),
        ));
    }
    let cgroup = Cgroup::create(parent, name)?;
    if let Some(resources) = spec.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
        cgroup.apply(resources)?;
    }
    let socket = containers.listen(&options.id)?;
    let stdio = if wants_terminal {
        Stdio::Terminal
    } else {
        Stdio::Inherit
    };
    let mut launch = Launch::new(&options.id, bundle, &spec, RootFs::Path(&root), stdio);
    launch.cgroup = Some(&cgroup);
    launch.start_socket = Some(socket.as_fd());
    let mut created = crate::launch::create(launch)?;
    let pid = created.pid();
    let (_, start_time) = state::stat(pid).ok_or_else(|| CliError::NotRunning(options.id.clone()))?;
    if let (Some(path), Some(master)) = (console_socket, created.terminal()) {
        console::hand_over(path, &master)?;
    }
    if let Some(path) = &options.pid_file {
        write_pid(path, pid)?;
    }
    let record = Record {
        id: options.id.clone(),
        pid,
        start_time,
        bundle: bundle.to_owned(),
        rootfs: root,
        created: jiff::Timestamp::now().to_string(),
        cgroup_parent: parent.to_owned(),
        cgroup_name: name.to_owned(),
        spec: spec.clone(),
    };
    containers.save(&record)?;
    Ok(created.leave()?)
}

pub(super) fn write_pid(path: &Path, pid: i32) -> Result<(), CliError> {
    // Whoever watches for the file must find it whole.
    let temporary = path.with_extension("new");
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|error| CliError::io(&format!("pid file {}", path.display()), error))
}

fn read_spec(path: &Path) -> Result<Spec, CliError> {
    let bytes = fs::read(path).map_err(|error| CliError::io(&path.display().to_string(), error))?;
    serde_json::from_slice(&bytes).map_err(|error| CliError::Config {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}
