//! Durations as Go writes them (`1h30m`, `1.5s`, `500ms`), in nanoseconds.

/// Units with their length, longest name first so that `ms` is not read as `m`.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// Reads a duration that is not negative.
pub fn parse_duration(text: &str) -> Option<i64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut total) = (text, 0f64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let (unit, length) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        total += number * length;
        rest = tail.get(unit.len()..)?;
    }
    // The largest duration Docker can hold is about 292 years.
    (total < 9.2e18).then_some(total.round() as i64)
}

/// Writes a duration as Go does (`1m30s`, `500ms`, `0s`).
pub fn format_duration(nanoseconds: i64) -> String {
    let total = nanoseconds.unsigned_abs();
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let fraction = |value: u64, unit: u64| {
        let text = format!(
            "{}.{:0width$}",
            value / unit,
            value % unit,
            width = unit.ilog10() as usize
        );
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(total, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(total, 1_000_000)),
        _ => {
            let (hours, rest) = (total / 3_600_000_000_000, total % 3_600_000_000_000);
            let (minutes, rest) = (rest / 60_000_000_000, rest % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000);
            match (hours, minutes) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, _) => format!("{sign}{minutes}m{seconds}s"),
                _ => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        for (text, nanoseconds, written) in [
            ("30s", 30_000_000_000, "30s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("500ms", 500_000_000, "500ms"),
            ("2h", 7_200_000_000_000, "2h0m0s"),
            ("10us", 10_000, "10µs"),
            ("0", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Some(nanoseconds), "{text}");
            assert_eq!(format_duration(nanoseconds), written);
        }
        for bad in ["", "s", "5", "-1s", "1..2s", "1x", "99999999h9", "9e9s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
