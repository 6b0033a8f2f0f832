//! What waits to be sent, within a number of bytes.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::message::Message;

#[derive(Debug)]
pub(super) struct Queue {
    most: u64,
    drop_when_full: bool,
    state: Mutex<State>,
    /// Something was put in, taken out, or closed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<Message>,
    size: u64,
    /// Dropped since it was last asked.
    dropped: u64,
    /// Nothing more comes; what there is may be sent until then.
    until: Option<Instant>,
}

/// What is to be sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) messages: Vec<Message>,
    /// How many were dropped before these were put in, or among them.
    pub(super) dropped: u64,
}

impl Queue {
    pub(super) fn new(most: u64, drop_when_full: bool) -> Self {
        Self {
            most,
            drop_when_full,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in; waits for room, or drops it. One message always fits.
    pub(super) fn push(&self, message: Message) {
        let size = message.size();
        let mut state = self.state();
        while state.size > 0 && state.size + size > self.most {
            if self.drop_when_full {
                state.dropped += 1;
                return;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.size += size;
        state.messages.push_back(message);
        self.changed.notify_all();
    }

    /// Takes up to `most` messages when there are some; nothing when there will be none any more. Room is made by
    /// [`Queue::done`], so that what is being sent still counts.
    pub(super) fn take(&self, most: usize) -> Option<Taken> {
        let mut state = self.state();
        loop {
            if !state.messages.is_empty() || state.dropped > 0 {
                let count = state.messages.len().min(most);
                return Some(Taken {
                    messages: state.messages.drain(..count).collect(),
                    dropped: std::mem::take(&mut state.dropped),
                });
            }
            if state.until.is_some() {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// These messages are dealt with.
    pub(super) fn done(&self, messages: &[Message]) {
        let mut state = self.state();
        state.size = state
            .size
            .saturating_sub(messages.iter().map(Message::size).sum());
        self.changed.notify_all();
    }

    /// Nothing more comes, and what there is may take so long.
    pub(super) fn close(&self, patience: Duration) {
        self.state().until = Some(Instant::now() + patience);
        self.changed.notify_all();
    }

    /// Waits before another attempt. False when there is no time for one.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if state.until.is_some_and(|until| until <= now) {
                return false;
            }
            let wake = state.until.map_or(end, |until| until.min(end));
            let Some(left) = end
                .min(wake)
                .checked_duration_since(now)
                .filter(|left| !left.is_zero())
            else {
                return true;
            };
            (state, _) = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn message(length: usize) -> Message {
        Message {
            text: vec![b'x'; length],
            ..Message::of_dropped(0, 0)
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = Queue::new(300, true);
        for length in [36, 36, 36, 36, 400] {
            queue.push(message(length));
        }
        let taken = queue.take(10).unwrap();
        assert_eq!((taken.messages.len(), taken.dropped), (3, 2));
        // What is being sent still takes its room.
        queue.push(message(36));
        assert_eq!(queue.take(10).unwrap().dropped, 1);
        queue.done(&taken.messages);
        queue.push(message(1000));
        assert_eq!(queue.take(10).unwrap().messages.len(), 1);
        queue.close(Duration::from_secs(1));
        assert_eq!(queue.take(10), None);
    }

    #[test]
    fn or_waits_for_room() {
        let queue = Arc::new(Queue::new(100, false));
        let theirs = Arc::clone(&queue);
        let pushing = std::thread::spawn(move || {
            for _ in 0..50 {
                theirs.push(message(30));
            }
            theirs.close(Duration::from_secs(1));
        });
        let mut count = 0;
        while let Some(taken) = queue.take(7) {
            assert!(taken.messages.len() == 1 && taken.dropped == 0);
            count += 1;
            queue.done(&taken.messages);
        }
        pushing.join().unwrap();
        assert_eq!(count, 50);
    }

    #[test]
    fn there_is_no_pause_after_the_farewell() {
        let queue = Queue::new(100, false);
        assert!(queue.pause(Duration::from_millis(1)));
        queue.close(Duration::ZERO);
        assert!(!queue.pause(Duration::from_secs(3600)));
    }
}
