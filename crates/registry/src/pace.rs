//! How fast bytes may go: every limit that applies to a transfer is waited for after each piece of it.
//!
//! Who waits for the answer to an upload must tell this waiting from a connection on which nothing moves ([`Sending`]).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may go out at once after a time of rest.
const BURST: Duration = Duration::from_millis(100);
/// So many pieces a second go out under a limit, so that the other side sees that something comes; larger ones where they
/// would be smaller than [`LEAST`].
const PIECES: u64 = 4;
const LEAST: usize = 1024;

/// One limit, shared by everyone it is about.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Bytes a second.
    rate: u64,
    /// When everything let through so far is paid for.
    paid: Mutex<Instant>,
}

impl Limit {
    pub fn new(rate: u64) -> Limit {
        Limit {
            rate: rate.max(1),
            paid: Mutex::new(Instant::now()),
        }
    }

    /// How long whoever moved `bytes` has to wait.
    fn charge(&self, bytes: usize, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let from = now.checked_sub(BURST).map_or(*paid, |rested| rested.max(*paid));
        *paid = from + Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        paid.saturating_duration_since(now)
    }
}

/// The limits of a transfer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pace(Vec<Arc<Limit>>);

impl Pace {
    pub fn of(limits: impl IntoIterator<Item = Arc<Limit>>) -> Pace {
        Pace(limits.into_iter().collect())
    }

    pub fn add(&mut self, limit: Limit) {
        self.0.push(Arc::new(limit));
    }

    /// How much may be sent at once, of at most `most`.
    pub fn piece(&self, most: usize) -> usize {
        let slowest = self.0.iter().map(|limit| limit.rate / PIECES).min();
        let allowed = slowest.map_or(most, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        allowed.max(LEAST).min(most)
    }

    /// Waits until `bytes` that were moved are paid for.
    pub async fn moved(&self, bytes: usize) {
        let now = Instant::now();
        let pause = self.0.iter().map(|limit| limit.charge(bytes, now)).max();
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            tokio::time::sleep(pause).await;
        }
    }
}

/// How far the body of a request is, between whoever makes it and whoever waits for the answer.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    sent: AtomicU64,
    held: AtomicBool,
}

impl Sending {
    /// Bytes that were given out.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// The next bytes are held back by a limit: that nothing goes out is our own doing.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    /// Lets `bytes` go when the limits do; how many went by then.
    pub async fn pass(&self, bytes: usize, pace: &Pace) -> u64 {
        self.held.store(true, Ordering::Release);
        // Let go after they are counted: whoever looks in between sees one or the other.
        let _held = Held(&self.held);
        pace.moved(bytes).await;
        self.sent.fetch_add(bytes as u64, Ordering::AcqRel) + bytes as u64
    }
}

/// Ends also with a body that nobody wants any more.
struct Held<'a>(&'a AtomicBool);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_at_the_rate() {
        let limit = Limit::new(1000);
        let start = Instant::now() + Duration::from_secs(10);
        // After a rest a tenth of a second is free.
        assert_eq!(limit.charge(100, start), Duration::ZERO);
        assert_eq!(limit.charge(1000, start), Duration::from_secs(1));
        assert_eq!(
            limit.charge(500, start + Duration::from_millis(500)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn pieces_are_small_where_little_may_go() {
        let most = 256 << 10;
        assert_eq!(Pace::default().piece(most), most);
        let paced =
            |rates: &[u64]| Pace::of(rates.iter().map(|rate| Arc::new(Limit::new(*rate)))).piece(most);
        assert_eq!(paced(&[1 << 30, 40_000]), 10_000);
        assert_eq!(paced(&[1]), LEAST);
        assert_eq!(paced(&[u64::MAX]), most);
    }
}
