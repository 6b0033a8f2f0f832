//! Health checks: a probe is an exec in the container, run at the interval its image or user set.
//!
//! Docker's rules: `starting` until the first success; failures within the start period don't count, and until then probes
//! come at the start interval; `retries` failures in a row make it `unhealthy`; the last five results are kept, each with at
//! most 4096 bytes of output. The next daemon goes on with the state the last one knew.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api_types::{ContainerConfig, ExecCreateRequest, Health, HealthConfig, HealthcheckResult, List};
use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::task::JoinHandle;

use super::age::age;
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

impl Check {
    /// How long to wait for the next probe of a container that has run for `ran`.
    fn pause(&self, status: &str, ran: Duration) -> Duration {
        match self.is_starting(status, ran) {
            true => self.start_interval,
            false => self.interval,
        }
    }

    /// Failures are forgiven.
    fn is_starting(&self, status: &str, ran: Duration) -> bool {
        ran < self.start_period && status == "starting"
    }

    /// The health after one more result.
    fn after(&self, health: &Health, result: HealthcheckResult, ran: Duration) -> Health {
        let mut next = health.clone();
        if result.exit_code == 0 {
            next.failing_streak = 0;
            "healthy".clone_into(&mut next.status);
        } else if !self.is_starting(&health.status, ran) {
            next.failing_streak += 1;
            if next.failing_streak >= self.retries {
                "unhealthy".clone_into(&mut next.status);
            }
        }
        next.log.push(result);
        let excess = next.log.len().saturating_sub(KEPT_RESULTS);
        next.log.drain(..excess);
        next
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

/// Probes the container until the task is aborted.
pub(super) fn watch(engine: &Arc<Inner>, container: &Container, handle: Handle) -> Option<JoinHandle<()>> {
    let check = Check::of(&container.config)?;
    let engine = Engine {
        inner: Arc::clone(engine),
    };
    let container = container.clone();
    Some(tokio::spawn(async move {
        // One that another daemon has started has run before.
        let watched = tokio::time::Instant::now();
        let before = age(container.state.pid).unwrap_or_default();
        let ran = || before + watched.elapsed();
        let mut health = container
            .state
            .health
            .clone()
            .or_else(|| initial(&container.config))
            .unwrap_or_default();
        loop {
            tokio::time::sleep(check.pause(&health.status, ran())).await;
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
            health = check.after(&health, result, ran());
            handle.tell(Command::Health(Box::new(health.clone()))).await;
        }
    }))
}

/// Runs the probe once; `None` when the container is gone.
async fn probe(engine: &Engine, container: &Container, check: &Check) -> Option<HealthcheckResult> {
    let (begin, begun) = (Timestamp::now(), Instant::now());
    let request = ExecCreateRequest {
        cmd: check.command.clone().into(),
        attach_stdout: true,
        attach_stderr: true,
        ..ExecCreateRequest::default()
    };
    let id = engine.exec_create(container.id.as_str(), request).await.ok()?;
    let start = ExecStart {
        internal: true,
        ..ExecStart::default()
    };
    let finish = |exit_code: i64, output: String| {
        Some(HealthcheckResult {
            start: begin.to_string(),
            end: Timestamp::now().to_string(),
            exit_code,
            output,
        })
    };
    let attachment = match engine.exec_start(id.as_str(), start).await {
        Ok(attachment) => {
            engine.inner.metrics.health_check_started(begun);
            attachment
        }
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

    fn check(settings: HealthConfig) -> Check {
        let config = ContainerConfig {
            healthcheck: Some(HealthConfig {
                test: vec!["CMD".to_owned(), "probe".to_owned()].into(),
                ..settings
            }),
            ..ContainerConfig::default()
        };
        Check::of(&config).unwrap()
    }

    fn seconds(seconds: u64) -> i64 {
        i64::try_from(Duration::from_secs(seconds).as_nanos()).unwrap()
    }

    fn with_start_period() -> Check {
        check(HealthConfig {
            interval: seconds(60),
            start_period: seconds(10),
            start_interval: seconds(2),
            retries: 2,
            ..HealthConfig::default()
        })
    }

    fn starting() -> Health {
        Health {
            status: "starting".into(),
            ..Health::default()
        }
    }

    const EARLY: Duration = Duration::from_secs(9);
    const LATE: Duration = Duration::from_secs(10);

    #[test]
    fn defaults_are_dockers() {
        let check = check(HealthConfig::default());
        assert_eq!(check.interval, Duration::from_secs(30));
        assert_eq!(check.timeout, Duration::from_secs(30));
        assert_eq!(check.start_period, Duration::ZERO);
        assert_eq!(check.start_interval, Duration::from_secs(5));
        assert_eq!(check.retries, 3);
    }

    #[test]
    fn probes_come_at_the_start_interval_until_the_container_has_started() {
        let check = with_start_period();
        let (start, normal) = (Duration::from_secs(2), Duration::from_secs(60));
        assert_eq!(check.pause("starting", Duration::ZERO), start);
        assert_eq!(check.pause("starting", EARLY), start);
        assert_eq!(check.pause("healthy", EARLY), normal);
        assert_eq!(check.pause("starting", LATE), normal);
        // Also when it is the longer one.
        let slow = Check {
            start_interval: Duration::from_secs(90),
            ..check
        };
        assert_eq!(slow.pause("starting", EARLY), Duration::from_secs(90));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        let check = with_start_period();
        let mut health = starting();
        for _ in 0..9 {
            health = check.after(&health, result(1), EARLY);
            assert_eq!((health.status.as_str(), health.failing_streak), ("starting", 0));
        }
        health = check.after(&health, result(1), LATE);
        assert_eq!((health.status.as_str(), health.failing_streak), ("starting", 1));
        health = check.after(&health, result(1), LATE);
        assert_eq!((health.status.as_str(), health.failing_streak), ("unhealthy", 2));
    }

    #[test]
    fn a_success_ends_the_start_period() {
        let check = with_start_period();
        let mut health = check.after(&starting(), result(0), EARLY);
        assert_eq!(health.status, "healthy");
        health = check.after(&health, result(1), EARLY);
        assert_eq!((health.status.as_str(), health.failing_streak), ("healthy", 1));
        health = check.after(&health, result(1), EARLY);
        assert_eq!(health.status, "unhealthy");
    }

    #[test]
    fn only_failures_in_a_row_make_it_unhealthy_and_one_success_makes_it_healthy() {
        let check = with_start_period();
        let mut health = starting();
        for (code, status, streak) in [
            (1, "starting", 1),
            (0, "healthy", 0),
            (1, "healthy", 1),
            (0, "healthy", 0),
            (-1, "healthy", 1),
            (2, "unhealthy", 2),
            (1, "unhealthy", 3),
            (0, "healthy", 0),
        ] {
            health = check.after(&health, result(code), LATE);
            assert_eq!((health.status.as_str(), health.failing_streak), (status, streak));
        }
    }

    #[test]
    fn the_last_five_results_are_kept() {
        let check = with_start_period();
        let mut health = starting();
        for code in 0..8 {
            health = check.after(&health, result(code), LATE);
        }
        let codes: Vec<i64> = health.log.iter().map(|result| result.exit_code).collect();
        assert_eq!(codes, [3, 4, 5, 6, 7]);
    }
}
