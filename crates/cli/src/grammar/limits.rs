//! Limits: CPUs, ulimits, block devices.

use crate::format::size;
use api_types::{ThrottleDevice, Ulimit, WeightDevice};

/// "1.5" CPUs as billionths, exact.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let bad = || format!("failed to parse {text} as a rational number");
    if let Some((over, under)) = text.split_once('/') {
        let (over, under): (i64, i64) = (
            over.parse().map_err(|_| bad())?,
            under.parse().map_err(|_| bad())?,
        );
        let nanos = over.checked_mul(1_000_000_000).ok_or_else(bad)?;
        return match nanos.checked_rem(under) {
            Some(0) => Ok(nanos / under),
            Some(_) => Err("value is too precise".into()),
            None => Err(bad()),
        };
    }
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let numeric = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !numeric(whole) || !numeric(fraction) {
        return Err(bad());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".into());
    }
    let whole: i64 = if whole.is_empty() {
        0
    } else {
        whole.parse().map_err(|_| bad())?
    };
    let part: i64 = format!("{fraction:0<9}").parse().map_err(|_| bad())?;
    whole
        .checked_mul(1_000_000_000)
        .and_then(|nanos| nanos.checked_add(part))
        .map(|nanos| sign * nanos)
        .ok_or_else(bad)
}

const ULIMITS: &[&str] = &[
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `name=soft[:hard]`
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let Some((name, value)) = text.split_once('=').filter(|(_, value)| !value.contains('=')) else {
        return Err(format!("invalid ulimit argument: {text}"));
    };
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| {
        text.parse::<i64>()
            .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
    };
    let (soft, hard) = match value.split_once(':') {
        Some((_, hard)) if hard.contains(':') => {
            return Err(format!(
                "too many limit value arguments - {value}, can only have up to two, `soft[:hard]`"
            ));
        }
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => {
            let both = number(value)?;
            (both, both)
        }
    };
    if hard != -1 && (soft > hard || soft == -1) {
        return Err(format!(
            "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

pub fn check_ulimit(text: &str) -> Result<(), String> {
    ulimit(text).map(|_| ())
}

fn device(text: &str) -> Result<(&str, &str), String> {
    match text.split_once(':').filter(|(path, _)| !path.is_empty()) {
        Some((path, value)) if !path.starts_with("/dev/") => {
            let _ = value;
            Err(format!("bad format for device path: {text}"))
        }
        Some((path, value)) => Ok((path, value)),
        None => Err(format!("bad format: {text}")),
    }
}

/// `/dev/x:1mb`
pub fn throttle_bytes(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device(text)?;
    let bad = || {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    };
    let rate = size::parse(rate).map_err(|_| bad())?;
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate: u64::try_from(rate).map_err(|_| bad())?,
    })
}

/// `/dev/x:1000`
pub fn throttle_operations(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = device(text)?;
    let rate = rate.parse().map_err(|_| {
        format!("invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive integer")
    })?;
    Ok(ThrottleDevice {
        path: path.to_owned(),
        rate,
    })
}

/// `/dev/x:500`
pub fn weight(text: &str) -> Result<WeightDevice, String> {
    let (path, weight) = device(text)?;
    let bad = || format!("invalid weight for device: {text}");
    let weight: u16 = weight.parse().map_err(|_| bad())?;
    if weight > 0 && !(10..=1000).contains(&weight) {
        return Err(bad());
    }
    Ok(WeightDevice {
        path: path.to_owned(),
        weight,
    })
}

pub fn check_throttle_bytes(text: &str) -> Result<(), String> {
    throttle_bytes(text).map(|_| ())
}
pub fn check_throttle_operations(text: &str) -> Result<(), String> {
    throttle_operations(text).map(|_| ())
}
pub fn check_weight(text: &str) -> Result<(), String> {
    weight(text).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_and_ulimits() {
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(nano_cpus("0.001"), Ok(1_000_000));
        assert_eq!(nano_cpus(".5"), Ok(500_000_000));
        assert_eq!(nano_cpus("1/4"), Ok(250_000_000));
        assert_eq!(
            nano_cpus("a"),
            Err("failed to parse a as a rational number".into())
        );
        assert_eq!(nano_cpus("0.0000000001"), Err("value is too precise".into()));
        assert_eq!(ulimit("nofile=512:1024").unwrap().hard, 1024);
        assert_eq!(ulimit("nofile=5").unwrap().soft, 5);
        assert_eq!(ulimit("foo"), Err("invalid ulimit argument: foo".into()));
        assert_eq!(ulimit("foo=1"), Err("invalid ulimit type: foo".into()));
        assert_eq!(
            ulimit("nofile=2:1"),
            Err("ulimit soft limit must be less than or equal to hard limit: 2 > 1".into())
        );
        assert_eq!(throttle_bytes("/dev/sda:1mb").unwrap().rate, 1 << 20);
        assert_eq!(throttle_bytes("foo"), Err("bad format: foo".into()));
        assert!(weight("/dev/sda:5").is_err());
    }
}
