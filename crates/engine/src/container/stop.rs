//! Ending and pausing what runs: `stop`, `kill`, `pause`, `unpause`.

use std::time::Duration;

use tokio::time::Instant;

use super::owner::{Answer, Owner};
use super::{Status, stuck};
use crate::activity::Activity;
use crate::engine::{Engine, blocking};
use crate::error::{Error, Result};
use crate::signal;

/// Seconds between the stop signal and SIGKILL where nobody says otherwise.
const DEFAULT_TIMEOUT: i64 = 10;

/// A stop under way.
pub(super) struct Stopping {
    /// When patience ends; `None` is never.
    pub(super) deadline: Option<Instant>,
    /// It was killed, and what is waited for is its end.
    killed: bool,
    /// Shown until the container has ended.
    _activity: Activity,
    waiting: Vec<Answer<bool>>,
}

impl Stopping {
    pub(super) fn done(self) {
        for answer in self.waiting {
            let _ = answer.send(Ok(true));
        }
    }

    /// Nobody waits any longer. The container has ended when it has.
    fn give_up(&mut self, why: &Error) {
        for answer in self.waiting.drain(..) {
            let _ = answer.send(Err(why.clone()));
        }
    }
}

/// When so many seconds are over. A negative number never ends, nor does one that no clock reaches.
fn end_of_patience(seconds: i64, now: Instant) -> Option<Instant> {
    now.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

impl Owner {
    pub(super) async fn stop(&mut self, signal: Option<&str>, timeout: Option<i64>, answer: Answer<bool>) {
        if self.supervision.is_none() {
            // A container between two runs of its restart policy is stopped by not starting it again.
            let was_restarting = self.restart_at.take().is_some();
            if was_restarting {
                self.container.state.status = Status::Exited;
                self.container.stopped_by_hand = true;
                self.publish_or_log();
            }
            let _ = answer.send(Ok(was_restarting));
            return;
        }
        let wanted = signal
            .or(Some(self.container.config.stop_signal.as_str()))
            .filter(|s| !s.is_empty());
        let number = match wanted.map_or(Ok(signal::TERM), signal::parse) {
            Ok(number) => number,
            Err(error) => {
                let _ = answer.send(Err(error));
                return;
            }
        };
        let seconds = timeout
            .or(self.container.config.stop_timeout)
            .unwrap_or(DEFAULT_TIMEOUT);
        let deadline = end_of_patience(seconds, Instant::now());
        if self.restarting.is_empty() {
            self.container.stopped_by_hand = true;
            // Stored before the signal: a daemon that dies now must not restart what a person stopped.
            self.publish_or_log();
        }
        match &mut self.stopping {
            Some(stopping) => {
                stopping.deadline = stopping.deadline.into_iter().chain(deadline).min();
                stopping.waiting.push(answer);
            }
            None => {
                self.stopping = Some(Stopping {
                    deadline,
                    killed: false,
                    _activity: self.begin("wait for the end"),
                    waiting: vec![answer],
                })
            }
        }
        if self.container.state.status == Status::Paused
            && let Err(error) = self.unpause().await
        {
            tracing::warn!(container = %self.container.id, %error, "could not thaw a container to stop it");
        }
        if let Err(error) = self.signal(number).await {
            tracing::warn!(container = %self.container.id, %error, "could not signal a container to stop it");
        }
    }

    /// The stop signal was not obeyed in time; or, after that, the container is still there though it was killed.
    pub(super) async fn stop_is_overdue(&mut self) {
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        stopping.deadline = Some(Instant::now() + stuck::PATIENCE);
        if stopping.killed {
            if let Some(why) = self.why_it_is_stuck().await {
                tracing::error!(container = %self.container.id, %why, "a container does not end");
                self.give_stop_up(&why);
                if let Some(stopping) = &mut self.stopping {
                    stopping.deadline = None;
                }
            }
            return;
        }
        match self.signal(signal::KILL).await {
            Ok(()) => {
                if let Some(stopping) = &mut self.stopping {
                    stopping.killed = true;
                }
            }
            // Nobody waits any longer; it is tried again at the next deadline.
            Err(error) => {
                tracing::error!(container = %self.container.id, %error, "could not kill a container that did not stop");
                self.give_stop_up(&error);
            }
        }
    }

    /// Tells those who wait for the end why it does not come.
    fn give_stop_up(&mut self, why: &Error) {
        for answer in self.restarting.drain(..) {
            let _ = answer.send(Err(why.clone()));
        }
        if let Some(stopping) = &mut self.stopping {
            stopping.give_up(why);
        }
    }

    pub(super) async fn kill(&mut self, wanted: Option<&str>) -> Result<()> {
        let named = |error: Error| error.context(format!("cannot kill container: {}", self.container.name));
        let number = wanted
            .filter(|s| !s.is_empty())
            .map_or(Ok(signal::KILL), signal::parse)
            .map_err(named)?;
        if self.supervision.is_none() {
            return Err(named(self.container.not_running()));
        }
        let stop_signal = signal::parse(&self.container.config.stop_signal).ok();
        if number == signal::KILL || number == stop_signal.unwrap_or(signal::TERM) {
            self.container.stopped_by_hand = true;
            self.publish_or_log();
        }
        if number == signal::KILL && self.container.state.status == Status::Paused {
            self.unpause().await?;
        }
        self.signal(number).await
    }

    pub(super) async fn pause(&mut self) -> Result<()> {
        match self.container.state.status {
            Status::Running => {}
            Status::Paused => {
                return Err(Error::conflict(format!(
                    "container {} is already paused",
                    self.container.id
                )));
            }
            _ => return Err(self.container.not_running()),
        }
        let cgroup = self.engine.cgroup_of(&self.container)?;
        blocking(move || cgroup.freeze().map_err(Error::from)).await?;
        self.container.state.status = Status::Paused;
        // That it stands still is for the kernel to know, where the next daemon looks: it is so even if it cannot be stored.
        self.publish_or_log();
        self.emit("pause");
        Ok(())
    }

    pub(super) async fn unpause(&mut self) -> Result<()> {
        if self.container.state.status != Status::Paused {
            return Err(Error::conflict(format!(
                "container {} is not paused",
                self.container.id
            )));
        }
        let cgroup = self.engine.cgroup_of(&self.container)?;
        blocking(move || cgroup.thaw().map_err(Error::from)).await?;
        self.container.state.status = Status::Running;
        self.publish_or_log();
        self.emit("unpause");
        Ok(())
    }
}

impl Engine {
    /// Starts a container; false if it already runs.
    pub async fn container_start(&self, name: &str) -> Result<bool> {
        self.inner
            .containers
            .find(name)?
            .ask(super::owner::Command::Start)
            .await
    }

    /// Stops a container; false if it does not run. A negative timeout waits for ever.
    pub async fn container_stop(
        &self,
        name: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<bool> {
        let handle = self.inner.containers.find(name)?;
        let signal = signal.map(str::to_owned);
        handle
            .ask(|answer| super::owner::Command::Stop {
                signal,
                timeout,
                answer,
            })
            .await
    }

    /// Stops a container if it runs, and starts it.
    pub async fn container_restart(
        &self,
        name: &str,
        signal: Option<&str>,
        timeout: Option<i64>,
    ) -> Result<()> {
        let handle = self.inner.containers.find(name)?;
        let signal = signal.map(str::to_owned);
        handle
            .ask(|answer| super::owner::Command::Restart {
                signal,
                timeout,
                answer,
            })
            .await
    }

    /// Sends a signal, SIGKILL unless named, to the first process.
    pub async fn container_kill(&self, name: &str, signal: Option<&str>) -> Result<()> {
        let handle = self.inner.containers.find(name)?;
        let signal = signal.map(str::to_owned);
        handle
            .ask(|answer| super::owner::Command::Kill { signal, answer })
            .await
    }

    /// Freezes every process of a container.
    pub async fn container_pause(&self, name: &str) -> Result<()> {
        self.inner
            .containers
            .find(name)?
            .ask(super::owner::Command::Pause)
            .await
    }

    /// Thaws a paused container.
    pub async fn container_unpause(&self, name: &str) -> Result<()> {
        self.inner
            .containers
            .find(name)?
            .ask(super::owner::Command::Unpause)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_of_any_length() {
        let now = Instant::now();
        assert_eq!(end_of_patience(0, now), Some(now));
        assert_eq!(end_of_patience(10, now), Some(now + Duration::from_secs(10)));
        for never in [-1, i64::MIN, i64::MAX] {
            assert_eq!(end_of_patience(never, now), None, "{never}");
        }
    }
}
