//! Layers of one image unpacked side by side: each into a directory of its own, stacked when they are complete.
//!
//! ```text
//!   layer 3   download ──> decompress ──> write ─────────────────> wait for 2, commit
//!   layer 2   download ──> decompress ──> write ──> wait for 1, commit
//!   layer 1   download ──> decompress ──> write, commit
//! ```
//!
//! Layers are begun from the bottom upwards and wait for lower ones only, which were begun before them; so one that can
//! go on is always under way. The first failure ends all of them and is the one that is told.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use store::SnapshotId;

use crate::error::ImageError;

/// Layers unpacked at once: more than processors only take memory, some 3 MiB each.
const FEWEST: usize = 2;
const MOST: usize = 4;
/// How often a layer that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

struct Stack<'a> {
    state: Mutex<State>,
    changed: Condvar,
    /// Set by whoever gives up, here or outside.
    stop: &'a AtomicBool,
}

struct State {
    /// Layers that are complete, lowest first; none of one that is above one that is missing counts.
    done: Vec<Option<SnapshotId>>,
    failure: Option<ImageError>,
}

/// What is below a layer of the stack.
pub(crate) struct Below<'a> {
    stack: &'a Stack<'a>,
    index: usize,
}

impl Below<'_> {
    /// Whether the layer is the lowest.
    pub fn is_nothing(&self) -> bool {
        self.index == 0
    }

    /// Waits until the layer below is complete; `None` if there is none.
    pub fn wait(&self) -> Result<Option<SnapshotId>, ImageError> {
        let Some(below) = self.index.checked_sub(1) else {
            return Ok(None);
        };
        let mut state = self.stack.lock();
        loop {
            if let Some(Some(done)) = state.done.get(below) {
                return Ok(Some(*done));
            }
            if self.stack.stop.load(Ordering::Relaxed) {
                // Whoever set it has the reason.
                return Err(ImageError::GivenUp);
            }
            state = match self.stack.changed.wait_timeout(state, LOOK) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

impl Stack<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, next: &AtomicUsize, unpack: &Unpack<'_>) {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= self.lock().done.len() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            let outcome = unpack(index, &Below { stack: self, index });
            let mut state = self.lock();
            match outcome {
                Ok(done) => {
                    if let Some(slot) = state.done.get_mut(index) {
                        *slot = Some(done);
                    }
                }
                Err(error) => {
                    state.failure.get_or_insert(error);
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            self.changed.notify_all();
        }
    }
}

type Unpack<'a> = dyn Fn(usize, &Below<'_>) -> Result<SnapshotId, ImageError> + Sync + 'a;

/// Has `unpack` called for each of `count` layers, several at once, and gives back the top one's snapshot; `None` without
/// layers. Blocks. Whoever sets `stop` ends it early.
pub(crate) fn unpack_stack(
    count: usize,
    stop: &AtomicBool,
    unpack: &Unpack<'_>,
) -> Result<Option<SnapshotId>, ImageError> {
    let stack = Stack {
        state: Mutex::new(State {
            done: vec![None; count],
            failure: None,
        }),
        changed: Condvar::new(),
        stop,
    };
    let next = AtomicUsize::new(0);
    let processors = std::thread::available_parallelism().map_or(FEWEST, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 1..processors.clamp(FEWEST, MOST).min(count) {
            scope.spawn(|| stack.work(&next, unpack));
        }
        stack.work(&next, unpack);
    });
    let state = stack.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(failure) = state.failure {
        return Err(failure);
    }
    match state.done.last() {
        None => Ok(None),
        Some(Some(top)) => Ok(Some(*top)),
        Some(None) => Err(ImageError::GivenUp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_gets_the_one_below_it() {
        let order = Mutex::new(Vec::new());
        let top = unpack_stack(40, &AtomicBool::new(false), &|index, below| {
            let parent = below.wait()?;
            assert_eq!(parent, index.checked_sub(1).map(|below| SnapshotId(below as u64)));
            order.lock().unwrap().push(index);
            Ok(SnapshotId(index as u64))
        });
        assert_eq!(top.unwrap(), Some(SnapshotId(39)));
        assert_eq!(order.into_inner().unwrap(), (0..40).collect::<Vec<_>>());
        assert_eq!(
            unpack_stack(0, &AtomicBool::new(false), &|_, _| Ok(SnapshotId(1))).unwrap(),
            None
        );
    }

    #[test]
    fn two_are_under_way_at_once() {
        // Each of the two waits for the other: one after the other would never end.
        let both = std::sync::Barrier::new(2);
        let top = unpack_stack(2, &AtomicBool::new(false), &|index, _| {
            both.wait();
            Ok(SnapshotId(index as u64))
        });
        assert_eq!(top.unwrap(), Some(SnapshotId(1)));
    }

    #[test]
    fn the_first_failure_ends_all_and_is_told() {
        let stop = AtomicBool::new(false);
        let begun = AtomicUsize::new(0);
        let failed = unpack_stack(40, &stop, &|index, below| {
            begun.fetch_add(1, Ordering::Relaxed);
            if index == 1 {
                return Err(ImageError::NotFound("layer".to_owned()));
            }
            if index == 0 {
                while !stop.load(Ordering::Relaxed) {
                    std::thread::yield_now();
                }
                return Err(ImageError::GivenUp);
            }
            below.wait().map(|_| SnapshotId(index as u64))
        });
        assert!(matches!(failed, Err(ImageError::NotFound(_))), "{failed:?}");
        assert!(begun.load(Ordering::Relaxed) <= MOST);
    }

    #[test]
    fn it_ends_when_nobody_wants_it_any_more() {
        let stop = AtomicBool::new(false);
        let stopped = unpack_stack(3, &stop, &|index, below| {
            stop.store(index == 0 || stop.load(Ordering::Relaxed), Ordering::Relaxed);
            if index == 0 {
                return Err(ImageError::GivenUp);
            }
            below.wait().map(|_| SnapshotId(index as u64))
        });
        assert!(matches!(stopped, Err(ImageError::GivenUp)), "{stopped:?}");
    }
}
