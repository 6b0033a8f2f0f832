//! How old things are, by a clock that nobody sets.
//!
//! What is kept on the disk carries the time of day at which it began, and the host's clock may be set at any time: a
//! machine without a battery begins in the past and is put right by years. So a thing's age is read off the clock once,
//! when it is met first, and counted on from there by the kernel's own count. What the clock does before that nobody can
//! know: a time that has not come yet is that of something new.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Since the boot, the time in which the machine slept included.
pub(crate) fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// A moment by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    pub(crate) time: Timestamp,
    pub(crate) since_boot: Duration,
}

impl Moment {
    pub(crate) fn now() -> Moment {
        Moment {
            time: Timestamp::now(),
            since_boot: since_boot(),
        }
    }
}

/// The ages of things that have names, as far as they have been met.
#[derive(Debug, Default)]
pub(crate) struct Ages {
    met: HashMap<String, Met>,
}

#[derive(Debug)]
struct Met {
    age: Duration,
    since_boot: Duration,
}

impl Ages {
    /// How old the thing is that carries this time.
    pub(crate) fn of(&mut self, name: &str, began: Timestamp, now: Moment) -> Duration {
        let met = self.met.entry(name.to_owned()).or_insert_with(|| Met {
            age: Duration::try_from(now.time.duration_since(began)).unwrap_or_default(),
            since_boot: now.since_boot,
        });
        let since = now.since_boot.saturating_sub(met.since_boot);
        met.age.saturating_add(since)
    }

    /// Forgets all others.
    pub(crate) fn keep(&mut self, is_there: impl Fn(&str) -> bool) {
        self.met.retain(|name, _| is_there(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;
    const YEAR: i64 = 365 * 24 * HOUR;

    fn at(time: i64, since_boot: i64) -> Moment {
        Moment {
            time: Timestamp::from_second(time).unwrap(),
            since_boot: seconds(since_boot),
        }
    }

    fn seconds(seconds: i64) -> Duration {
        Duration::from_secs(seconds.unsigned_abs())
    }

    #[test]
    fn an_age_goes_on_whatever_the_clock_is_set_to() {
        let began = Timestamp::from_second(10 * YEAR).unwrap();
        let mut ages = Ages::default();
        assert_eq!(ages.of("a", began, at(10 * YEAR + HOUR, 50)), seconds(HOUR));
        for shown in [0, 9 * YEAR, 10 * YEAR, 30 * YEAR] {
            assert_eq!(
                ages.of("a", began, at(shown, 50 + HOUR)),
                seconds(2 * HOUR),
                "{shown}"
            );
        }
        // Met only now: nothing else is known of it than what the clock says.
        assert_eq!(ages.of("b", began, at(30 * YEAR, 50)), seconds(20 * YEAR));
    }

    #[test]
    fn what_has_not_begun_yet_is_new() {
        let began = Timestamp::from_second(10 * YEAR).unwrap();
        let mut ages = Ages::default();
        assert_eq!(ages.of("a", began, at(0, 50)), Duration::ZERO);
        // Neither does it wait until its time has come.
        assert_eq!(ages.of("a", began, at(HOUR, 50 + HOUR)), seconds(HOUR));
        ages.keep(|name| name != "a");
        assert_eq!(ages.of("a", began, at(HOUR, 50 + HOUR)), Duration::ZERO);
    }
}
