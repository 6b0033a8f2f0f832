//! What a step has asked of its client and has no answer to: how long others wait for a step that waits for its client.
//!
//! A client may be suspended, or ask its user first. Its own build waits as long as that takes; others who want the same
//! result wait for it only so long, and then make it themselves ([`crate::solve::Operation::stalls`]).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// How long others wait for an answer. Longer than any client takes that does not ask its user.
const PATIENCE: Duration = Duration::from_secs(5);

/// The questions of one step that have no answer.
#[derive(Debug, Default)]
pub struct Patience {
    asked: watch::Sender<usize>,
}

/// A question; it has its answer, or needs none any more, when this is dropped.
#[derive(Debug)]
pub struct Asked(Arc<Patience>);

impl Patience {
    /// Something is asked.
    pub fn ask(self: &Arc<Self>) -> Asked {
        self.asked.send_modify(|asked| *asked += 1);
        Asked(self.clone())
    }

    /// Resolves when something has been without an answer for too long.
    pub async fn ends(&self) {
        let mut asked = self.asked.subscribe();
        loop {
            // The sender lives as long as this is called.
            let _ = asked.wait_for(|asked| *asked > 0).await;
            tokio::select! {
                () = tokio::time::sleep(PATIENCE) => return,
                _ = asked.wait_for(|asked| *asked == 0) => {}
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.asked.send_modify(|asked| *asked = asked.saturating_sub(1));
    }
}
