//! Points in time as parameters: Unix seconds with an optional fraction (`1700000000.5`).

use jiff::Timestamp;

use super::Query;
use crate::error::{ApiError, Result};

/// More digits than this are no nanoseconds by any reading.
const MOST_DIGITS: usize = 20;

/// A Unix time; the refusal is Docker's text without its context.
pub fn parse(value: &str) -> std::result::Result<Option<Timestamp>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let refuse = |why: String| format!("invalid timestamp {value:?}: {why}");
    let (seconds, fraction) = value.split_once('.').unwrap_or((value, ""));
    let number: i64 = seconds
        .parse()
        .map_err(|_| refuse(format!("invalid seconds {seconds:?}: invalid syntax")))?;
    if fraction.len() > MOST_DIGITS {
        return Err(refuse(format!(
            "invalid nanoseconds: length {} exceeds maximum {MOST_DIGITS}",
            fraction.len()
        )));
    }
    if let Some((position, character)) = fraction.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        return Err(refuse(format!(
            "invalid nanoseconds: invalid character {character:?} at position {position}"
        )));
    }
    let nanoseconds = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanoseconds = nanoseconds.fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0'));
    Timestamp::new(number, nanoseconds)
        .map(Some)
        .map_err(|error| refuse(error.to_string()))
}

/// The parameter of that name; zero and absent mean no bound.
pub fn parameter(query: &Query, name: &str, quote: char) -> Result<Option<Timestamp>> {
    parse(query.get(name))
        .map(|time| time.filter(|time| *time != Timestamp::UNIX_EPOCH))
        .map_err(|why| ApiError::invalid(format!("invalid value for {quote}{name}{quote}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_padded() {
        assert_eq!(
            parse("5.5").unwrap().unwrap(),
            Timestamp::new(5, 500_000_000).unwrap()
        );
        assert_eq!(
            parse("5.0000000019").unwrap().unwrap(),
            Timestamp::new(5, 1).unwrap()
        );
        assert_eq!(parse("").unwrap(), None);
    }

    #[test]
    fn nonsense_is_named() {
        let query = Query::parse("since=abc&until=5.x");
        assert_eq!(
            parameter(&query, "since", '\'').unwrap_err().message,
            r#"invalid value for 'since': invalid timestamp "abc": invalid seconds "abc": invalid syntax"#
        );
        assert!(
            parameter(&query, "until", '"')
                .unwrap_err()
                .message
                .contains("invalid character 'x' at position 0")
        );
        assert!(parse("99999999999999").is_err());
    }
}
