//! Waiting for a container to end, answered from what its owner publishes.

use std::future::Future;

use super::Status;
use crate::engine::Engine;
use crate::error::Result;

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WaitCondition {
    /// Not running now; true at once for a container that was never started.
    #[default]
    NotRunning,
    /// The next end of its process.
    NextExit,
    /// Its removal, or that it failed.
    Removed,
}

/// How the waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOutcome {
    pub status_code: i64,
    /// Why the container did not start, where it did not; of whoever waits for the removal, why that failed.
    pub error: Option<String>,
}

impl Engine {
    /// Resolves the name at once, and gives a future that ends when the condition holds.
    pub async fn container_wait(
        &self,
        name: &str,
        condition: WaitCondition,
    ) -> Result<impl Future<Output = WaitOutcome> + Send + 'static> {
        let mut published = self.inner.containers.find(name)?.subscribe();
        let (mut exits, mut was_dead) = {
            let now = published.borrow();
            (now.exits, now.state.status == Status::Dead)
        };
        Ok(async move {
            loop {
                let done = {
                    let now = published.borrow_and_update();
                    // A start that failed is told to whoever started it; the process's next end is yet to come.
                    if !now.state.error.is_empty() {
                        exits = now.exits;
                    }
                    // What failed before is not what is waited for.
                    let is_dead = now.state.status == Status::Dead;
                    let failed = is_dead && !was_dead;
                    was_dead = is_dead;
                    let met = match condition {
                        WaitCondition::NotRunning => {
                            !now.state.status.is_alive() && now.state.status != Status::Restarting
                        }
                        WaitCondition::NextExit => now.exits > exits || now.removed,
                        WaitCondition::Removed => now.removed || failed,
                    };
                    // Of who waits for the removal it is no concern that the container had not started.
                    let of_interest = condition != WaitCondition::Removed || failed;
                    let error = (of_interest && !now.state.error.is_empty()).then(|| now.state.error.clone());
                    met.then(|| WaitOutcome {
                        status_code: i64::from(now.state.exit_code),
                        error,
                    })
                };
                if let Some(outcome) = done {
                    return outcome;
                }
                if published.changed().await.is_err() {
                    // The owner is gone: the last snapshot tells how it ended.
                    let last = published.borrow();
                    return WaitOutcome {
                        status_code: i64::from(last.state.exit_code),
                        error: None,
                    };
                }
            }
        })
    }
}
