//! What a step has asked of its client and has no answer to: how long others wait for a step that waits for its client.
//!
//! A client may be suspended, or ask its user first. Its own build waits as long as that takes; others who want the same
//! result wait for it only so long, and then make it themselves ([`crate::solve::Operation::stalls`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// How long others wait for an answer. Longer than any client takes that does not ask its user.
const PATIENCE: Duration = Duration::from_secs(5);

/// The questions of one step that have no answer.
#[derive(Debug, Default)]
pub struct Patience {
    open: watch::Sender<Open>,
}

/// When each of them was asked, in this order.
#[derive(Debug, Default)]
struct Open {
    next: u64,
    asked: BTreeMap<u64, Instant>,
}

/// A question; it has its answer, or needs none any more, when this is dropped.
#[derive(Debug)]
pub struct Asked {
    patience: Arc<Patience>,
    number: u64,
}

impl Patience {
    /// Something is asked.
    pub fn ask(self: &Arc<Self>) -> Asked {
        let mut number = 0;
        self.open.send_modify(|open| {
            number = open.next;
            open.next += 1;
            open.asked.insert(number, Instant::now());
        });
        Asked {
            patience: self.clone(),
            number,
        }
    }

    /// Resolves when something has been without an answer for too long.
    pub async fn ends(&self) {
        let mut open = self.open.subscribe();
        loop {
            let oldest = open.borrow_and_update().asked.values().next().copied();
            let too_long = async {
                match oldest {
                    Some(asked) => tokio::time::sleep_until(asked + PATIENCE).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = too_long => return,
                // The sender lives as long as this is called.
                _ = open.changed() => {}
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.patience.open.send_modify(|open| {
            open.asked.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn it_counts_from_the_oldest_question_that_is_open() {
        let patience = Arc::new(Patience::default());
        let oldest = || patience.open.borrow().asked.keys().next().copied();
        let first = patience.ask();
        let second = patience.ask();
        assert_eq!(oldest(), Some(0));
        drop(first);
        let third = patience.ask();
        assert_eq!(
            oldest(),
            Some(1),
            "others that are asked meanwhile change nothing"
        );
        drop(second);
        assert_eq!(oldest(), Some(2));
        drop(third);
        assert_eq!(oldest(), None);
    }

    #[tokio::test]
    async fn only_an_open_question_can_be_too_much() {
        let patience = Arc::new(Patience::default());
        let mut ends = std::pin::pin!(patience.ends());
        assert!(poll!(ends.as_mut()).is_pending());
        let asked = patience.ask();
        assert!(poll!(ends.as_mut()).is_pending());
        // Long ago.
        patience.open.send_modify(|open| {
            for begun in open.asked.values_mut() {
                *begun -= 2 * PATIENCE;
            }
        });
        ends.await;
        drop(asked);
    }
}
