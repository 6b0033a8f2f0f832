//! Times in the form Go writes (RFC 3339, nanoseconds without trailing zeros, `Z`), fast enough for every log line; and the
//! clock for what has to be waited for, which nobody sets.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
}

/// Nanoseconds since the boot, those in which the machine slept included.
pub(crate) fn steady() -> i64 {
    let since = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// By how many nanoseconds the time of day is ahead of the clock that nobody sets: another number after each time that
/// somebody has set it.
pub(crate) fn ahead() -> i64 {
    i64::try_from(now()).unwrap_or(i64::MAX).saturating_sub(steady())
}

/// Appends `2026-11-23T21:26:04.9381Z`.
pub(crate) fn append(nanoseconds: u64, out: &mut Vec<u8>) {
    let (seconds, mut fraction) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    digits(year, 4, out);
    out.push(b'-');
    digits(month, 2, out);
    out.push(b'-');
    digits(day, 2, out);
    out.push(b'T');
    digits(of_day / 3600, 2, out);
    out.push(b':');
    digits(of_day / 60 % 60, 2, out);
    out.push(b':');
    digits(of_day % 60, 2, out);
    if fraction != 0 {
        let mut width = 9;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        out.push(b'.');
        digits(fraction, width, out);
    }
    out.push(b'Z');
}

/// Day of the Gregorian calendar, for days since 1970-01-01. Counts from the first of March of year 0, so that the
/// leap day comes last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

fn digits(mut value: u64, width: usize, out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + width, b'0');
    for slot in out.iter_mut().skip(at).rev() {
        #[allow(clippy::cast_possible_truncation)]
        let digit = (value % 10) as u8;
        *slot = b'0' + digit;
        value /= 10;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn text(nanoseconds: u64) -> String {
        let mut out = Vec::new();
        append(nanoseconds, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn zeros_at_the_end_are_left_out() {
        assert_eq!(text(0), "1970-01-01T00:00:00Z");
        assert_eq!(text(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(text(1_000_000_001), "1970-01-01T00:00:01.000000001Z");
    }

    #[test]
    fn every_day_is_the_calendars() {
        for day in (0..90_000u64).step_by(13) {
            let nanoseconds = day * 86_400_000_000_000 + day * 1_000_003;
            let jiff = jiff::Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap();
            assert_eq!(text(nanoseconds), jiff.to_string());
        }
    }
}
