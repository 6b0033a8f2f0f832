//! Hooks: programs of the configuration that run at fixed moments of a container's life.
//!
//! In the caller, in its namespaces: `prestart` and `createRuntime` when namespaces and mounts stand and the
//! root is not yet switched, `poststart` after the program has begun, `poststop` after the container is gone.
//! In the child, inside: `createContainer` before the root is switched, `startContainer` before the exec.
//! Each reads the container's state as JSON from its standard input. A hook that fails is the end of the container, and
//! those after it of its kind do not run; of `poststop` each runs, and a failure is a warning. A hook that outlives its
//! timeout is killed, with what it has started.
//!
//! Source: OCI runtime-spec, config.md "POSIX-platform Hooks", runtime.md "Lifecycle".

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::MemfdFlags;
use rustix::process::{Pid, Signal};
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

/// Whether they are programs that could be run.
pub(crate) fn check(hooks: &Hooks) -> Result<(), LaunchError> {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ];
    for (kind, hooks) in kinds {
        for (index, hook) in hooks.iter().enumerate() {
            check_one(hook).map_err(|why| LaunchError::Invalid(format!("hooks.{kind}[{index}].{why}")))?;
        }
    }
    Ok(())
}

fn check_one(hook: &Hook) -> Result<(), String> {
    if !hook.path.is_absolute() {
        return Err(format!("path: {:?} is not absolute", hook.path));
    }
    if hook.path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(format!("path: {:?} has a null byte", hook.path));
    }
    for (field, texts) in [("args", &hook.args), ("env", &hook.env)] {
        for (index, text) in texts.iter().enumerate() {
            let named = text.split_once('=').is_some_and(|(name, _)| !name.is_empty());
            if text.contains('\0') {
                return Err(format!("{field}[{index}]: {text:?} has a null byte"));
            }
            if field == "env" && !named {
                return Err(format!(
                    "{field}[{index}]: {text:?} is not of the form name=value"
                ));
            }
        }
    }
    match hook.timeout {
        Some(seconds) if seconds <= 0 => Err(format!("timeout: {seconds} is not more than 0")),
        _ => Ok(()),
    }
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

    /// When the container is gone: each of them, whatever became of the one before.
    pub fn run_poststop(&self) {
        for hook in self.hooks.poststop.chunks(1) {
            if let Err(error) = self.run("poststop", hook, Status::Stopped, None) {
                tracing::warn!("container {}: {error}", self.identity.id);
            }
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
    pub fn run(&self) -> Result<(), LaunchError> {
        self.plan.run(
            "poststart",
            &self.plan.hooks.poststart,
            Status::Running,
            Some(self.pid),
        )
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
    // Files take and hold any amount without anybody at the other end: a hook need not read.
    let given = memory(state).map_err(|error| reason(&error))?;
    let mut complaints = memory(b"").map_err(|error| reason(&error))?;
    let stderr = complaints.try_clone().map_err(|error| reason(&error))?;
    command
        .env_clear()
        .stdin(given)
        .stdout(Stdio::null())
        .stderr(stderr)
        .process_group(0);
    for variable in &hook.env {
        if let Some((key, value)) = variable.split_once('=') {
            command.env(key, value);
        }
    }
    let mut child = command.spawn().map_err(|error| reason(&error))?;
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
                    let _ = rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL);
                    // It may have gone to another group.
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
    let _ = complaints.rewind();
    let _ = complaints.take(MAX_COMPLAINT).read_to_end(&mut complaint);
    let complaint = String::from_utf8_lossy(&complaint);
    Err(format!("{status}: {}", complaint.trim()))
}

/// A file that is nowhere, to be read from its beginning.
fn memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create(c"hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(script: &str, timeout: i64) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/usr/bin:/bin".to_owned()],
            timeout: Some(timeout),
        }
    }

    /// More than a pipe holds, to one that never reads.
    #[test]
    fn a_hook_that_does_not_read_is_not_waited_for() {
        let state = vec![b'x'; 1 << 20];
        assert_eq!(run_one(&hook("exit 0", 60), &state), Ok(()));
        assert_eq!(run_one(&hook("test $(wc -c) = 1048576", 60), &state), Ok(()));
    }

    #[test]
    fn a_hook_that_hangs_goes_with_what_it_has_started() {
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let script = format!("sleep 1000 & echo $! >{}; wait", told.display());
        let error = run_one(&hook(&script, 1), b"").unwrap_err();
        assert!(error.contains("timeout of 1 s"), "{error}");
        let started = std::fs::read_to_string(told).unwrap().trim().parse().unwrap();
        // Whoever reaps what has lost its parent may take a moment.
        while rustix::process::test_kill_process(Pid::from_raw(started).unwrap()).is_ok() {
            let stat = std::fs::read_to_string(format!("/proc/{started}/stat")).unwrap_or_default();
            if stat.contains(") Z ") {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn hooks_that_are_none_are_told_with_their_place() {
        let told = |change: &dyn Fn(&mut Hook)| {
            let mut wrong = hook("exit 0", 1);
            change(&mut wrong);
            let hooks = Hooks {
                poststop: vec![hook("exit 0", 1), wrong],
                ..Hooks::default()
            };
            check(&hooks).unwrap_err().to_string()
        };
        for (text, place) in [
            (told(&|hook| hook.path = "sh".into()), "path"),
            (told(&|hook| hook.timeout = Some(0)), "timeout"),
            (told(&|hook| hook.timeout = Some(-1)), "timeout"),
            (told(&|hook| hook.env.push("PATH".to_owned())), "env[1]"),
            (told(&|hook| hook.args.push("a\0b".to_owned())), "args[3]"),
        ] {
            assert!(text.contains(&format!("hooks.poststop[1].{place}: ")), "{text}");
        }
    }
}
