//! One at a time for each digest: one unpacking of a chain ID, and, with locks of their own, one bringing back of a blob.
//!
//! Held by blocking threads only. Who unpacks a chain may wait for a download, which never waits for a chain, for a blob that
//! is brought back, which does not either, and for the chains below its own, which were taken before it: chains are a tree, and
//! all waiting goes towards its root.

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
