//! Durations: Go's notation ("1h30m") in and out, and the words people read ("About a minute").

/// Nanoseconds of "300ms", "1.5h", "2h45m", as Go's time.ParseDuration.
pub fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let value: f64 = number.parse().map_err(|_| bad())?;
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        total += value * scale;
        rest = tail;
    }
    if total > i64::MAX as f64 {
        return Err(bad());
    }
    Ok(if negative {
        -(total.round() as i64)
    } else {
        total.round() as i64
    })
}

/// "3 seconds", "About an hour", "2 weeks".
pub fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// "2 hours ago", from seconds since 1970; what never happened is "N/A".
pub fn ago(then: i64, now: i64) -> String {
    if then <= 0 {
        return "N/A".into();
    }
    format!("{} ago", human(now - then))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        for (seconds, want) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (3 * 365 * 86400, "3 years"),
        ] {
            assert_eq!(human(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn ages_by_a_clock_that_was_set() {
        let now = 1_700_000_000;
        assert_eq!(ago(now + 40_000_000, now), "Less than a second ago");
        assert_eq!(ago(i64::MAX, 0), "Less than a second ago");
        assert_eq!(ago(-5, now), "N/A");
    }

    #[test]
    fn go_durations() {
        for (text, nanos) in [
            ("0s", 0),
            ("1ns", 1),
            ("1.5ms", 1_500_000),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("2h0m0.5s", 7_200_500_000_000),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
        assert_eq!(parse("1"), Err("time: missing unit in duration \"1\"".into()));
        assert_eq!(parse("x"), Err("time: invalid duration \"x\"".into()));
        assert_eq!(
            parse("1d"),
            Err("time: unknown unit \"d\" in duration \"1d\"".into())
        );
    }
}
