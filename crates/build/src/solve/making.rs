//! What is being made now, by whichever run: runs that share this make equal results once.
//!
//! Whoever makes a result holds the claim to its identity; another run that wants the same waits for the claim, and then looks
//! whether the cache knows the result. A claim that is given up, because making it failed, was stopped or waits for somebody
//! else for too long, goes to the next who waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spec::Digest;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// The claims of all runs that share it.
#[derive(Debug, Default)]
pub struct Making {
    turns: Mutex<HashMap<Digest, Arc<Turn<()>>>>,
    /// How many claims were let go.
    ended: AtomicU64,
}

/// The right to make one result.
#[derive(Debug)]
pub(super) struct Claim {
    making: Arc<Making>,
    identity: Digest,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Making {
    fn turns(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Turn<()>>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A moment, for [`Claim::is_first_since`].
    pub(super) fn moment(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// The claim to `identity`. Where somebody has it, `waiting` is done, and then it is waited for.
    pub(super) async fn claim(
        self: &Arc<Self>,
        identity: &Digest,
        waiting: impl Future<Output = ()>,
    ) -> Claim {
        let mut claim = Claim {
            making: self.clone(),
            identity: identity.clone(),
            turn: None,
        };
        let turn = self.turns().entry(identity.clone()).or_default().clone();
        claim.turn = Some(match turn.clone().try_lock_owned() {
            Ok(turn) => turn,
            Err(_) => {
                waiting.await;
                turn.lock_owned().await
            }
        });
        claim
    }
}

impl Claim {
    /// Whether nobody has let go of a claim since that moment: then the cache knows what it knew.
    pub(super) fn is_first_since(&self, moment: u64) -> bool {
        self.making.moment() == moment
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(turn) = self.turn.take() {
            self.making.ended.fetch_add(1, Ordering::AcqRel);
            drop(turn);
        }
        let mut turns = self.making.turns();
        // Nobody waits for it.
        if turns
            .get(&self.identity)
            .is_some_and(|turn| Arc::strong_count(turn) == 1)
        {
            turns.remove(&self.identity);
        }
    }
}
