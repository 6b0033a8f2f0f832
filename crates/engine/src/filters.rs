//! Docker's filters: a map from key to accepted values, where every key must match and any value suffices.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// Parsed filters; the keys are checked by whoever applies them.
pub type Filters = BTreeMap<String, Vec<String>>;

/// Refuses keys that the list does not know, in Docker's words.
pub fn check_keys(filters: &Filters, known: &[&str]) -> Result<()> {
    match filters.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(Error::invalid(format!("invalid filter '{key}'"))),
        None => Ok(()),
    }
}

/// Whether labels hold every `key` or `key=value` asked for.
pub(crate) fn matches_labels(labels: &BTreeMap<String, String>, wanted: &[String]) -> bool {
    wanted.iter().all(|want| match want.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(want),
    })
}

/// The `label` and `label!` filters of prune commands.
pub(crate) fn label_filters_match(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    filters
        .get("label")
        .is_none_or(|wanted| matches_labels(labels, wanted))
        && filters.get("label!").is_none_or(|unwanted| {
            !unwanted
                .iter()
                .any(|one| matches_labels(labels, std::slice::from_ref(one)))
        })
}

/// A boolean filter value in the spellings Docker takes.
pub fn boolean(filters: &Filters, key: &str) -> Result<Option<bool>> {
    let Some(values) = filters.get(key) else {
        return Ok(None);
    };
    let parse = |value: &String| match value.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Ok(true),
        "0" | "f" | "false" => Ok(false),
        _ => Err(Error::invalid(format!("invalid filter '{key}=[{value}]'"))),
    };
    match values
        .iter()
        .map(parse)
        .collect::<Result<Vec<bool>>>()?
        .as_slice()
    {
        [] => Ok(None),
        [first, rest @ ..] if rest.iter().all(|v| v == first) => Ok(Some(*first)),
        _ => Err(Error::invalid(format!("invalid filter '{key}={values:?}'"))),
    }
}

/// The `until` filter: an RFC 3339 time, Unix seconds, or a Go duration before now.
pub(crate) fn until(filters: &Filters) -> Result<Option<jiff::Timestamp>> {
    match filters.get("until").map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([one]) => parse_time(one).map(Some),
        Some(_) => Err(Error::invalid("more than one until filter specified")),
    }
}

/// A point in time as Docker's clients write it.
pub fn parse_time(text: &str) -> Result<jiff::Timestamp> {
    let bad = || {
        Error::invalid(format!(
            "invalid time {text:?}: use RFC 3339, Unix seconds, or a duration such as 10m"
        ))
    };
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return jiff::tz::TimeZone::UTC.to_timestamp(local).map_err(|_| bad());
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if let Ok(seconds) = whole.parse::<i64>() {
        let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
        let nanos = digits.parse::<i32>().map_err(|_| bad())?;
        return jiff::Timestamp::new(seconds, nanos).map_err(|_| bad());
    }
    let nanos = parse_duration(text).ok_or_else(bad)?;
    jiff::Timestamp::from_nanosecond(jiff::Timestamp::now().as_nanosecond() - nanos).map_err(|_| bad())
}

/// A Go duration such as `1h30m` in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |e| digits + e);
        let scale = match &rest[digits..unit_end] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        total += number * scale;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total as i128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h30m"), Some(5_400_000_000_000));
        assert_eq!(parse_duration("1.5s"), Some(1_500_000_000));
        for bad in ["", "1", "s", "1x", "-1s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_in_every_spelling() {
        assert_eq!(parse_time("1700000000").unwrap().as_second(), 1_700_000_000);
        assert_eq!(
            parse_time("1700000000.5").unwrap().subsec_nanosecond(),
            500_000_000
        );
        assert!(parse_time("2024-01-02T03:04:05Z").is_ok());
        assert!(parse_time("2024-01-02T03:04:05").is_ok());
        assert!(parse_time("10m").unwrap() < jiff::Timestamp::now());
        assert!(parse_time("yesterday").is_err());
    }

    #[test]
    fn labels() {
        let labels = [("a".to_owned(), "1".to_owned())].into();
        assert!(matches_labels(&labels, &["a".into()]));
        assert!(matches_labels(&labels, &["a=1".into()]));
        assert!(!matches_labels(&labels, &["a=2".into()]));
        let not: Filters = [("label!".to_owned(), vec!["a".to_owned()])].into();
        assert!(!label_filters_match(&not, &labels));
    }
}
