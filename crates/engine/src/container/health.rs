//! Health checks: a probe is an exec in the container, run at the interval its image or user set.
//!
//! Docker's rules: `starting` until the first success; failures within the start period don't count; `retries`
//! failures in a row make it `unhealthy`; the last five results are kept, each with at most 4096 bytes of output.

use std::sync::Arc;
use std::time::Duration;

use api_types::{ContainerConfig, ExecCreateRequest, Health, HealthConfig, HealthcheckResult, List};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;

use super::exec::ExecStart;
use super::owner::Command;
use super::{Container, Handle};
use crate::engine::{Engine, Inner};
use crate::error::{Error, Result};

const KEPT_RESULTS: usize = 5;
const KEPT_OUTPUT: usize = 4096;
const DEFAULT_TIME: Duration = Duration::from_secs(30);
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
const DEFAULT_RETRIES: i64 = 3;
/// Told for a probe that did not end in time.
const TIMED_OUT: i64 = -1;

/// What happens when a container becomes unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFailure {
    Nothing,
    /// SIGKILL, after which its restart policy decides.
    Kill,
    /// As the command of that name, whatever the restart policy says.
    Restart,
    /// As the command of that name: the restart policy leaves it alone.
    Stop,
}

impl OnFailure {
    pub(super) fn of(health: &HealthConfig) -> Result<Self> {
        match health.on_failure.as_str() {
            "" | "none" => Ok(Self::Nothing),
            "kill" => Ok(Self::Kill),
            "restart" => Ok(Self::Restart),
            "stop" => Ok(Self::Stop),
            other => Err(Error::invalid(format!(
                "invalid OnFailure in Healthcheck (--health-on-failure): {other:?}: expected none, kill, restart or stop"
            ))),
        }
    }
}

/// How a container is probed.
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Check {
    fn of(config: &ContainerConfig) -> Option<Check> {
        let health = config.healthcheck.as_ref()?;
        let command = match health.test.as_slice() {
            [kind, rest @ ..] if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
            [kind, line, ..] if kind == "CMD-SHELL" => {
                let shell = match config.shell.as_slice() {
                    [] => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                    shell => shell.to_vec(),
                };
                shell.into_iter().chain([line.clone()]).collect()
            }
            _ => return None,
        };
        let time = |nanos: i64, default: Duration| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => default,
        };
        Some(Check {
            command,
            interval: time(health.interval, DEFAULT_TIME),
            timeout: time(health.timeout, DEFAULT_TIME),
            start_period: time(health.start_period, Duration::ZERO),
            start_interval: time(health.start_interval, DEFAULT_START_INTERVAL),
            retries: if health.retries > 0 {
                health.retries
            } else {
                DEFAULT_RETRIES
            },
        })
    }
}

/// The health of a container that was just started, if it has a check.
pub(super) fn initial(config: &ContainerConfig) -> Option<Health> {
    Check::of(config)?;
    Some(Health {
        status: "starting".to_owned(),
        failing_streak: 0,
        log: List::empty(),
    })
}

/// The health after one more result. Pure: what decides is all here.
fn after(health: &Health, result: HealthcheckResult, in_start_period: bool, retries: i64) -> Health {
    let mut next = health.clone();
    if result.exit_code == 0 {
        next.failing_streak = 0;
        "healthy".clone_into(&mut next.status);
    } else if !(in_start_period && next.status == "starting") {
        next.failing_streak += 1;
        if next.failing_streak >= retries {
            "unhealthy".clone_into(&mut next.status);
        }
    }
    next.log.push(result);
    let excess = next.log.len().saturating_sub(KEPT_RESULTS);
    next.log.drain(..excess);
    next
}

/// Probes the container until the task is aborted.
pub(super) fn watch(engine: &Arc<Inner>, container: &Container, handle: Handle) -> Option<JoinHandle<()>> {
    let check = Check::of(&container.config)?;
    let engine = Engine {
        inner: Arc::clone(engine),
    };
    let container = container.clone();
    Some(tokio::spawn(async move {
        let started = tokio::time::Instant::now();
        let mut health = container
            .state
            .health
            .clone()
            .or_else(|| initial(&container.config))
            .unwrap_or_default();
        loop {
            let in_start_period = started.elapsed() < check.start_period;
            let pause = match in_start_period && health.status == "starting" {
                true => check.start_interval.min(check.interval),
                false => check.interval,
            };
            tokio::time::sleep(pause).await;
            if handle.snapshot().state.status == super::Status::Paused {
                continue;
            }
            let _activity = engine
                .inner
                .activities
                .begin("health check", &container.name, "probe");
            let Some(result) = probe(&engine, &container, &check).await else {
                return;
            };
            engine.inner.metrics.health_check(result.exit_code == 0);
            health = after(
                &health,
                result,
                started.elapsed() < check.start_period,
                check.retries,
            );
            handle.tell(Command::Health(Box::new(health.clone()))).await;
        }
    }))
}

/// Runs the probe once; `None` when the container is gone.
async fn probe(engine: &Engine, container: &Container, check: &Check) -> Option<HealthcheckResult> {
    let begin = Timestamp::now();
    let request = ExecCreateRequest {
        cmd: check.command.clone().into(),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecCreateRequest::default()
    };
    let id = engine.exec_create(container.id.as_str(), request).await.ok()?;
    let finish = |exit_code: i64, output: String| {
        Some(HealthcheckResult {
            start: begin.to_string(),
            end: Timestamp::now().to_string(),
            exit_code,
            output,
        })
    };
    let attachment = match engine.exec_start(id.as_str(), ExecStart::default()).await {
        Ok(attachment) => attachment,
        Err(error) => return finish(i64::from(error.exit_code.unwrap_or(-1)), error.message),
    };
    let mut output = Vec::new();
    let read = async {
        if let Some(mut stream) = attachment.and_then(|a| a.stream) {
            read_frames(&mut stream, &mut output).await;
        }
    };
    if tokio::time::timeout(check.timeout, read).await.is_err() {
        let monitor = engine.inner.monitor_of(container).ok()?;
        let exec = id.to_string();
        tokio::task::spawn_blocking(move || monitor.exec_kill(&exec, crate::signal::KILL));
        let text = format!("Health check exceeded timeout ({:?})", check.timeout);
        return finish(TIMED_OUT, text);
    }
    // The output ends with the process; its exit code follows at once.
    for _ in 0..200 {
        match engine.exec_inspect(id.as_str()).await {
            Ok(exec) if exec.exit_code.is_some() => {
                let text = String::from_utf8_lossy(&output).into_owned();
                return finish(exec.exit_code.unwrap_or(-1), text);
            }
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(_) => return None,
        }
    }
    finish(TIMED_OUT, "the probe's exit code did not arrive".to_owned())
}

/// Collects the content of multiplexed frames, up to the limit.
async fn read_frames(stream: &mut tokio::net::UnixStream, output: &mut Vec<u8>) {
    let mut header = [0u8; 8];
    let mut body = Vec::new();
    while stream.read_exact(&mut header).await.is_ok() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        body.clear();
        if (&mut *stream)
            .take(u64::from(length))
            .read_to_end(&mut body)
            .await
            .is_err()
        {
            return;
        }
        let room = KEPT_OUTPUT.saturating_sub(output.len());
        output.extend(body.iter().take(room));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(exit_code: i64) -> HealthcheckResult {
        HealthcheckResult {
            exit_code,
            ..Default::default()
        }
    }

    #[test]
    fn streaks_and_the_start_period() {
        let mut health = Health {
            status: "starting".into(),
            ..Default::default()
        };
        for _ in 0..9 {
            health = after(&health, result(1), true, 3);
        }
        assert_eq!(
            (health.status.as_str(), health.failing_streak, health.log.len()),
            ("starting", 0, 5)
        );
        health = after(&health, result(0), true, 3);
        assert_eq!(health.status, "healthy");
        for _ in 0..2 {
            health = after(&health, result(1), true, 3);
        }
        assert_eq!(health.status, "healthy");
        assert_eq!(after(&health, result(1), false, 3).status, "unhealthy");
    }
}
