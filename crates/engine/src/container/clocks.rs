//! Clocks of a container's own: how far its monotonic and its boot clock are from the host's.
//!
//! The wish is an annotation, so that any client can have it; `berth run --time-offset` writes it. The time of day has no
//! namespace and stays the host's.
//!
//! Source: time_namespaces(7).

use std::collections::BTreeMap;

use api_types::HostConfig;
use spec::runtime::TimeOffset;

use crate::error::{Error, Result};
use crate::filters::parse_duration;

/// `DURATION` for both clocks or `CLOCK=DURATION`, separated by commas.
const ANNOTATION: &str = "io.berth.time-offset";
const CLOCKS: [&str; 2] = ["boottime", "monotonic"];
const NANOSECONDS: i128 = 1_000_000_000;

/// By clock; empty for the host's clocks.
pub(super) fn offsets(host: &HostConfig) -> Result<BTreeMap<String, TimeOffset>> {
    let mut offsets = BTreeMap::new();
    let asked = host.annotations.as_map().get(ANNOTATION);
    for text in asked.iter().flat_map(|text| text.split(',')) {
        let (clock, duration) = match text.split_once('=') {
            Some((clock, duration)) => (Some(clock.trim()), duration),
            None => (None, text),
        };
        let wrong = || {
            Error::invalid(format!(
                "invalid time offset {text:?}: expected DURATION, boottime=DURATION or monotonic=DURATION, such as 72h \
                 or boottime=-30m"
            ))
        };
        let offset = offset(duration.trim()).ok_or_else(wrong)?;
        let named: Vec<&str> = CLOCKS
            .into_iter()
            .filter(|known| clock.is_none_or(|clock| clock == *known))
            .collect();
        if named.is_empty() {
            return Err(wrong());
        }
        offsets.extend(named.into_iter().map(|clock| (clock.to_owned(), offset)));
    }
    Ok(offsets)
}

fn offset(text: &str) -> Option<TimeOffset> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let total = sign * parse_duration(text)?;
    Some(TimeOffset {
        secs: total.div_euclid(NANOSECONDS).try_into().ok()?,
        nanosecs: total.rem_euclid(NANOSECONDS).try_into().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, i64, u32)>> {
        let mut host = HostConfig::default();
        host.annotations.insert(ANNOTATION.to_owned(), text.to_owned());
        let offsets = offsets(&host)?;
        Ok(offsets
            .into_iter()
            .map(|(clock, offset)| (clock, offset.secs, offset.nanosecs))
            .collect())
    }

    #[test]
    fn clocks_together_and_apart() {
        let both = |secs| {
            vec![
                ("boottime".to_owned(), secs, 0),
                ("monotonic".to_owned(), secs, 0),
            ]
        };
        assert_eq!(read("72h").unwrap(), both(259_200));
        assert_eq!(read("boottime=+1m, monotonic=1m").unwrap(), both(60));
        assert_eq!(
            read("monotonic=-1.5s").unwrap(),
            [("monotonic".to_owned(), -2, 500_000_000)]
        );
        assert!(offsets(&HostConfig::default()).unwrap().is_empty());
        for bad in ["", "soon", "wall=1h", "boottime=", "1h,", "-", "--1h"] {
            let error = read(bad).unwrap_err();
            assert!(
                error.message.contains("invalid time offset"),
                "{bad}: {}",
                error.message
            );
        }
    }
}
