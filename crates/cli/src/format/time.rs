//! Times on the wire (RFC 3339 or seconds) and as Docker's client prints them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Seconds since 1970 now.
pub fn now() -> i64 {
    Timestamp::now().as_second()
}

/// Reads an RFC 3339 time; Go's zero time is no time.
pub fn parse(text: &str) -> Option<Timestamp> {
    let time: Timestamp = text.parse().ok()?;
    (time.as_second() > -62_000_000_000).then_some(time)
}

/// Seconds since 1970 of an RFC 3339 time, 0 for none.
pub fn seconds(text: &str) -> i64 {
    parse(text).map_or(0, |time| time.as_second())
}

/// "2026-11-23 23:35:01 +0000 UTC", in local time.
pub fn created_at(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    let zoned = time.to_zoned_datetime(TimeZone::system());
    zoned.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
}

/// RFC 3339 with nine digits and the local offset: the stamp of an event line.
pub fn event_stamp(nanos: i64) -> String {
    let Ok(time) = Timestamp::from_nanosecond(i128::from(nanos)) else {
        return String::new();
    };
    let zoned = time.to_zoned_datetime(TimeZone::system());
    if zoned.offset().is_zero() {
        return zoned.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string();
    }
    zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
}

/// RFC 3339 in local time without fractions.
pub fn local_rfc3339(seconds: i64) -> String {
    let Ok(time) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    let zoned = time.to_zoned_datetime(TimeZone::system());
    if zoned.offset().is_zero() {
        return zoned.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
    zoned.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// `time.ANSIC`, as `version` shows build times: "Fri May 30 12:07:14 2025".
pub fn ansic(text: &str) -> String {
    match parse(text) {
        Some(time) => time
            .to_zoned_datetime(TimeZone::UTC)
            .strftime("%a %b %e %H:%M:%S %Y")
            .to_string(),
        None => text.to_owned(),
    }
}

/// The value of `--since` and `--until`: seconds, RFC 3339 in several lengths, or a duration back from now; the
/// answer is what the API takes, `seconds.nanoseconds`.
pub fn api_stamp(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Ok(String::new());
    }
    // A bare 0 is the beginning of time, and no duration.
    if text != "0"
        && let Ok(nanos) = super::duration::parse(text)
    {
        let then = Timestamp::now().as_nanosecond() - i128::from(nanos);
        let (seconds, rest) = (then.div_euclid(1_000_000_000), then.rem_euclid(1_000_000_000));
        return Ok(format!("{seconds}.{rest:09}"));
    }
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if numeric(whole) && (fraction.is_empty() || numeric(fraction)) {
        return Ok(text.to_owned());
    }
    let time = text.parse::<Timestamp>().ok().or_else(|| local(text));
    match time {
        Some(time) => {
            let nanos = time.as_nanosecond();
            Ok(format!(
                "{}.{:09}",
                nanos.div_euclid(1_000_000_000),
                nanos.rem_euclid(1_000_000_000)
            ))
        }
        None => Err(format!("failed to parse value as time or duration: {text:?}")),
    }
}

/// A date without zone, or cut short ("2026-11-23", "2026-11-23T10"), is local time.
fn local(text: &str) -> Option<Timestamp> {
    let (date, clock) = text.split_once(['T', ' ']).unwrap_or((text, "00:00:00"));
    let (clock, utc) = clock
        .strip_suffix('Z')
        .map_or((clock, false), |clock| (clock, true));
    let padded = match clock.matches(':').count() {
        0 => format!("{clock}:00:00"),
        1 => format!("{clock}:00"),
        _ => clock.to_owned(),
    };
    let date_time: jiff::civil::DateTime = format!("{date}T{padded}").parse().ok()?;
    let zone = if utc { TimeZone::UTC } else { TimeZone::system() };
    Some(date_time.to_zoned_datetime(zone).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps() {
        assert_eq!(api_stamp("1700000000"), Ok("1700000000".into()));
        assert_eq!(api_stamp("1700000000.5"), Ok("1700000000.5".into()));
        assert_eq!(
            api_stamp("2023-11-14T22:13:20Z"),
            Ok("1700000000.000000000".into())
        );
        assert!(api_stamp("10m").is_ok_and(|stamp| stamp.contains('.')));
        assert_eq!(api_stamp("0"), Ok("0".into()));
        assert!(api_stamp("yesterday").is_err());
        assert_eq!(
            ansic("2025-05-30T12:07:14.000000000+00:00"),
            "Fri May 30 12:07:14 2025"
        );
        assert_eq!(seconds("0001-01-01T00:00:00Z"), 0);
    }
}
