//! One unpacking per chain ID at a time.
//!
//! Held by blocking threads only. A holder may wait for a download, which never waits for a chain; and chains
//! are taken from the bottom of an image upwards with at most one held at a time, so nothing waits in a circle.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, PoisonError};

use spec::Digest;

#[derive(Default)]
pub(crate) struct ChainLocks {
    held: Mutex<HashSet<Digest>>,
    freed: Condvar,
}

pub(crate) struct ChainGuard<'a> {
    locks: &'a ChainLocks,
    chain: Digest,
}

impl ChainLocks {
    /// Waits until nobody else works on `chain`.
    pub fn lock(&self, chain: &Digest) -> ChainGuard<'_> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        while held.contains(chain) {
            held = self.freed.wait(held).unwrap_or_else(PoisonError::into_inner);
        }
        held.insert(chain.clone());
        ChainGuard {
            locks: self,
            chain: chain.clone(),
        }
    }
}

impl Drop for ChainGuard<'_> {
    fn drop(&mut self) {
        self.locks
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.chain);
        self.locks.freed.notify_all();
    }
}
