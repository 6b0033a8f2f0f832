//! Hooks: programs of the configuration that run at fixed moments of a container's life.
//!
//! In the caller, in its namespaces: `prestart` and `createRuntime` when namespaces and mounts stand and the
//! root is not yet switched, `poststart` after the program has begun, `poststop` after the container is gone.
//! In the child, inside: `createContainer` before the root is switched, `startContainer` before the exec.
//! Each reads the container's state as JSON from its standard input. A failing hook stops the creation, except
//! `poststart` and `poststop`, which are only logged. A hook that outlives its timeout is killed.
//!
//! Source: OCI runtime-spec, config.md "POSIX-platform Hooks", runtime.md "Lifecycle".

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use spec::runtime::{Hook, Hooks, Status};

use crate::error::{LaunchError, reason};
use crate::identity::Identity;

/// How much of a failing hook's standard error is told.
const MAX_COMPLAINT: u64 = 4096;

/// The hooks of one container, with what they are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct HookPlan {
    hooks: Hooks,
    identity: Identity,
}

/// Hooks to run once the program has begun.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pending {
    plan: HookPlan,
    pid: i32,
}

impl HookPlan {
    pub fn new(spec: &spec::runtime::Spec, identity: Identity) -> HookPlan {
        HookPlan {
            hooks: spec.hooks.clone().unwrap_or_default(),
            identity,
        }
    }

    /// Whether the caller has hooks to run while the child waits with its mounts made.
    pub fn wait_for_mounts(&self) -> bool {
        !self.hooks.prestart.is_empty() || !self.hooks.create_runtime.is_empty()
    }

    pub fn run_before_pivot(&self, pid: i32) -> Result<(), LaunchError> {
        self.run("prestart", &self.hooks.prestart, Status::Creating, Some(pid))?;
        self.run(
            "createRuntime",
            &self.hooks.create_runtime,
            Status::Creating,
            Some(pid),
        )
    }

    /// In the child. The pid told is the one the hook can see.
    pub fn run_create_container(&self) -> Result<(), LaunchError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.run(
            "createContainer",
            &self.hooks.create_container,
            Status::Creating,
            Some(pid),
        )
    }

    /// In the child, as its last deed before the exec.
    pub fn run_start_container(&self) -> Result<(), LaunchError> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        self.run(
            "startContainer",
            &self.hooks.start_container,
            Status::Created,
            Some(pid),
        )
    }

    pub fn poststart(&self, pid: i32) -> Pending {
        Pending {
            plan: self.clone(),
            pid,
        }
    }

    pub fn run_poststop(&self) {
        if let Err(error) = self.run("poststop", &self.hooks.poststop, Status::Stopped, None) {
            tracing::warn!(id = %self.identity.id, "{error}");
        }
    }

    fn run(&self, kind: &str, hooks: &[Hook], status: Status, pid: Option<i32>) -> Result<(), LaunchError> {
        if hooks.is_empty() {
            return Ok(());
        }
        let state = serde_json::to_vec(&self.identity.state(status, pid)).unwrap_or_default();
        for hook in hooks {
            run_one(hook, &state).map_err(|reason| LaunchError::Hook {
                hook: kind.to_owned(),
                path: hook.path.display().to_string(),
                reason,
            })?;
        }
        Ok(())
    }
}

impl Pending {
    pub fn run(&self) {
        let result = self.plan.run(
            "poststart",
            &self.plan.hooks.poststart,
            Status::Running,
            Some(self.pid),
        );
        if let Err(error) = result {
            tracing::warn!(id = %self.plan.identity.id, "{error}");
        }
    }
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), String> {
    if !hook.path.is_absolute() {
        return Err("the path must be absolute".to_owned());
    }
    let mut command = Command::new(&hook.path);
    if let Some((name, arguments)) = hook.args.split_first() {
        command.arg0(name).args(arguments);
    }
    // A file takes any amount of complaint without anybody reading along.
    let complaints = rustix::fs::memfd_create(c"hook", rustix::fs::MemfdFlags::CLOEXEC)
        .map(File::from)
        .and_then(|file| Ok((file.try_clone().map_err(|_| rustix::io::Errno::MFILE)?, file)));
    let (complaints, stderr) = complaints.map_err(|error| reason(&error.into()))?;
    command
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr);
    for variable in &hook.env {
        if let Some((key, value)) = variable.split_once('=') {
            command.env(key, value);
        }
    }
    let mut child = command.spawn().map_err(|error| reason(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read; its end of the pipe may be closed already.
        let _ = stdin.write_all(state);
    }
    let status = match hook.timeout.and_then(|seconds| u64::try_from(seconds).ok()) {
        None => child.wait().map_err(|error| reason(&error))?,
        Some(seconds) => {
            // One that no clock reaches is none.
            let deadline = Instant::now().checked_add(Duration::from_secs(seconds));
            loop {
                if let Some(status) = child.try_wait().map_err(|error| reason(&error))? {
                    break status;
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(format!("did not end within its timeout of {seconds} s"));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut complaint = Vec::new();
    let mut complaints = complaints;
    let _ = complaints.rewind();
    let _ = complaints.take(MAX_COMPLAINT).read_to_end(&mut complaint);
    let complaint = String::from_utf8_lossy(&complaint);
    Err(format!("{status}: {}", complaint.trim()))
}
