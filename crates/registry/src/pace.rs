//! How fast bytes may go: every limit that applies to a transfer is waited for after each piece of it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What may go out at once after a time of rest.
const BURST: Duration = Duration::from_millis(100);

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

    /// Waits until `bytes` that were moved are paid for.
    pub async fn moved(&self, bytes: usize) {
        let now = Instant::now();
        let pause = self.0.iter().map(|limit| limit.charge(bytes, now)).max();
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            tokio::time::sleep(pause).await;
        }
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
}
