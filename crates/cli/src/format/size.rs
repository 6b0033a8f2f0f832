//! Human sizes, in and out, as Docker counts them: decimal for disks and networks, binary for memory.

const DECIMAL: [&str; 9] = ["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"];
const BINARY: [&str; 9] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"];

/// `%.<digits>g`: significant digits, no trailing zeros, an exponent where the digits do not reach.
pub fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".into();
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let strip = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent < -4 || exponent >= digits as i32 {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", strip(mantissa), exponent.abs());
    }
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    strip(&format!("{value:.decimals$}"))
}

fn custom(mut value: f64, base: f64, digits: usize, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!(
        "{}{}",
        significant(value, digits),
        units.get(unit).copied().unwrap_or_default()
    )
}

/// "1.234MB"
pub fn decimal(bytes: f64) -> String {
    custom(bytes, 1000.0, 4, &DECIMAL)
}

/// "1.23MB"
pub fn decimal3(bytes: f64) -> String {
    custom(bytes, 1000.0, 3, &DECIMAL)
}

/// "1.234MiB"
pub fn binary(bytes: f64) -> String {
    custom(bytes, 1024.0, 4, &BINARY)
}

/// Reads "512m", "1.5GiB", "100" as bytes; every unit counts by 1024.
pub fn parse(text: &str) -> Result<i64, String> {
    let bad = || format!("invalid size: '{text}'");
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
        .ok_or_else(bad)?;
    let (number, unit) = text.split_at(end + 1);
    let number = match number.strip_suffix(' ') {
        Some(bare) => bare,
        None => number,
    };
    let value: f64 = number.parse().map_err(|_| bad())?;
    if value < 0.0 || !value.is_finite() || number.starts_with('+') {
        return Err(bad());
    }
    let unit = unit.to_ascii_lowercase();
    let power = match unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit)
    {
        "" if unit.starts_with('i') => return Err(bad()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("invalid suffix: '{unit}'")),
    };
    Ok((value * 1024f64.powi(power)) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out() {
        assert_eq!(decimal(0.0), "0B");
        assert_eq!(decimal(1000.0), "1kB");
        assert_eq!(decimal(1_234_567.0), "1.235MB");
        assert_eq!(decimal3(4_261_550.0), "4.26MB");
        assert_eq!(decimal3(192_000_000.0), "192MB");
        assert_eq!(binary(1024.0), "1KiB");
        assert_eq!(binary(452_984_832.0), "432MiB");
        assert_eq!(binary(33_411_727_360.0), "31.12GiB");
        assert_eq!(significant(999.9, 3), "1e+03");
    }

    #[test]
    fn sizes_in() {
        for (text, want) in [
            ("0", 0),
            ("32", 32),
            ("32b", 32),
            ("32k", 32 << 10),
            ("32KiB", 32 << 10),
            ("6m", 6 << 20),
            ("1.5g", 3 << 29),
            ("1 gb", 1 << 30),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        for text in ["abc", "", "-1", "1x", "m", "1..2m"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("abc"), Err("invalid size: 'abc'".into()));
    }
}
